"""Measures the latents of a published codec on a data set."""

from collections.abc import Iterator
import itertools

import numpy as np

from data_pipelines.loader import make_loader
from data_pipelines.loader_config import LoaderConfig
from v2a_jax.codec import dac_files

BATCH = 8


def calibrate(folder: str, dataset: str, num_clips: int) -> float:
  """Writes the calibration of a DAC; see `dac_files.calibrate`.

  Args:
    folder: folder of the codec.
    dataset: data set; clips of its training split are drawn at random, and
      random 4 seconds of each.
    num_clips: number of clips; a small data set is read more than once.

  Returns:
    The number of directions that the latents' variance fills.

  Raises:
    MissingWeightsError, WrongWeightsError: the codec cannot be read.
    DataError: the data set cannot.
  """
  sizes = dac_files.read_config(folder)
  config = LoaderConfig(
    paths=(dataset,),
    batch_size=min(BATCH, num_clips),
    seconds=4.0,
    sample_rate=sizes.sample_rate,
    channels=sizes.channels,
    frames=False,
  )

  def waveforms() -> Iterator[np.ndarray]:
    count = -(-num_clips // config.batch_size)
    with make_loader(config) as loader:
      for batch in itertools.islice(loader, count):
        yield np.asarray(batch["audio"])

  return dac_files.calibrate(folder, waveforms()).effective_rank
