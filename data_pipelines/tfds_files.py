"""The files by which TensorFlow Datasets (TFDS) opens a data set.

https://www.tensorflow.org/datasets/external_tfrecord
"""

from collections.abc import Mapping, Sequence
import pathlib
import re
from typing import Any

from data_pipelines import schema

METADATA = ("dataset_info.json", "features.json")
# Name of a shard once all are written.
SHARD = re.compile(
  rf"{schema.DATASET_NAME}-(train|val|test)\.array_record-(\d{{5}})-of-\d{{5}}"
)


def shard_name(split: str, index: int, count: int) -> str:
  """Returns the name of a split's shard `index`, from 0, of `count`."""
  return (
    f"{schema.DATASET_NAME}-{split}.array_record-{index:05d}-of-{count:05d}"
  )


def write(
  folder: pathlib.Path, shards: Sequence[Mapping[str, Any]], description: str
) -> None:
  """Writes the metadata that `tfds.builder_from_directory` reads.

  Args:
    folder: folder of the shards.
    shards: split, number of records and bytes of each; see `Shard.close`.
    description: one sentence on the data set.
  """
  import tensorflow_datasets as tfds

  template = tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name=schema.DATASET_NAME,
    filetype_suffix="array_record",
    template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
  )
  splits = []
  for split in schema.SPLITS:
    own = [shard for shard in shards if shard["split"] == split]
    if own:
      splits.append(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[shard["records"] for shard in own],
          num_bytes=sum(shard["bytes"] for shard in own),
          filename_template=template,
        )
      )
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=schema.features(),
    split_infos=splits,
    version=f"{schema.SCHEMA_VERSION}.0.0",
    description=description,
    check_data=False,  # it needs TensorFlow; `Shard.close` checks instead
  )
