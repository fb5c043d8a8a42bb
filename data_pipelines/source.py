"""Random access to the records of a finished data set.

Shards on an object store are copied to the cache of this machine, each when its
first record is read, because ArrayRecord reads local files only. A copy is kept
under its sha256 and serves every process of the machine.
"""

import bisect
from collections.abc import Mapping, Sequence
import dataclasses
import errno
import itertools
import json
import os
import pathlib
import platform
import threading
from typing import Any

from data_pipelines import copies, schema
from data_pipelines.manifest import read_manifest
from v2a_jax.basics.files import check_regular, read_bytes, sha256_of
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.basics.text import did_you_mean

# Keys of features.json under which TFDS finds the name of a class.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_TFDS_FEATURES = "tensorflow_datasets.core.features."


class Source:
  """Records of one split, by index; can be pickled and shared by threads.

  `source[i]` is a dict of Python values; see `schema.decode`.

  Attributes:
    path: folder of the data set.
    split: name of the split, or several joined by "+".
  """

  def __init__(
    self, path: pathlib.Path, split: str, shards: Sequence[Mapping[str, Any]]
  ):
    """Opens nothing yet.

    Args:
      path: folder of the data set.
      split: see above.
      shards: the manifest's entries of the split, in order.
    """
    self.path, self.split, self._shards = path, split, shards
    self._ends = list(itertools.accumulate(s["records"] for s in shards))
    self._copy = copies.Copy(path, shards) if is_remote(path) else None
    self._lock = threading.Lock()
    self._opened = None  # opened by the process that reads, when it reads

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(len(self))[index]  # negative indices, and IndexError
    try:
      if self._copy:
        self._copy.fetch(bisect.bisect_right(self._ends, index))
      return schema.decode(self._reader[index])
    except (RuntimeError, OSError, ValueError, KeyError) as error:
      raise schema.DataError(
        f"{self.path}: record {index} of {self.split!r} cannot be read "
        f"({' '.join(str(error).split())[:200]}); build the data set again"
      ) from None

  def origin(self, index: int) -> int:
    """Returns `index`; see `columns.view.View.origin`."""
    return index

  def __repr__(self) -> str:
    return f"Source({str(self.path)!r}, split={self.split!r})"

  def __getstate__(self):
    return self.path, self.split, self._shards

  def __setstate__(self, state):
    self.__init__(*state)

  @property
  def _reader(self):
    with self._lock:
      if self._opened is None:
        import tensorflow_datasets as tfds

        folder = self._copy.folder if self._copy else self.path
        _check_features(folder)
        check_regular(folder / "dataset_info.json")
        builder = tfds.builder_from_directory(folder)
        self._opened = builder.as_data_source(split=self.split)
      return self._opened


def _check_features(folder: pathlib.Path) -> None:
  """Refuses classes in features.json that are not TFDS' own features.

  TFDS imports the modules that the file names, and Python looks for them in the
  working directory too.
  """
  path = folder / "features.json"
  named: list[Any] = []

  def collect(pairs: list[tuple[str, Any]]) -> None:
    named.extend(value for key, value in pairs if key in _CLASS_KEYS)

  json.loads(read_bytes(path), object_pairs_hook=collect)
  for name in named:
    if not str(name).startswith(_TFDS_FEATURES):
      raise schema.DataError(
        f"{path} names {str(name)[:99]!r}, which is no feature of"
        " tensorflow_datasets"
      )


def open_source(
  path: str | os.PathLike, split: str = "train", *, verify: bool = False
) -> Source:
  """Opens one split of a data set, or `all` of them in the order of `SPLITS`.

  `verify` compares each shard's sha256 too, which reads all of it.

  Raises:
    DataError: the data set is missing, unfinished or of another schema version,
      has no such split, or a shard is missing, cut off or altered.
  """
  path = as_path(path)
  manifest = read_manifest(path)
  names = list(manifest["splits"]) if split == "all" else [split]
  if not set(names) <= set(manifest["splits"]):
    known = [*manifest["splits"], "all"]
    raise schema.DataError(
      f"{path} has no split {split!r}; it has {', '.join(known)}"
      f"{did_you_mean(split, known)}"
    )
  shards = [s for s in manifest["shards"] if s["split"] in names]
  sizes = path.sizes() if is_remote(path) else None
  for shard in shards:
    _check_shard(path / shard["file"], shard, sizes, verify=verify)
  # TFDS' "all" orders the splits in its own way.
  return Source(path, "+".join(names), shards)


@dataclasses.dataclass(frozen=True)
class Concatenated:
  """Several sources, one after the other, with one index through all."""

  sources: Sequence[Source]

  def __len__(self) -> int:
    return sum(map(len, self.sources))

  def __getitem__(self, index: int) -> dict[str, Any]:
    source, index = self.locate(index)
    return source[index]

  def locate(self, index: int) -> tuple[Source, int]:
    """Returns the source that holds record `index`, and its index there."""
    index = range(len(self))[index]
    for source in self.sources:
      if index < len(source):
        return source, index
      index -= len(source)
    raise AssertionError("unreachable")

  def name(self, index: int) -> str:
    """Returns what messages call record `index`: data set, number, split."""
    source, index = self.locate(index)
    number = source.origin(index)
    return f"{source.path}: record {number} of {source.split!r}"


def _check_shard(
  path: pathlib.Path,
  shard: Mapping[str, Any],
  sizes: Mapping[str, int] | None,
  *,
  verify: bool,
) -> None:
  """Compares a shard's size, and sha256 to `verify`, with the manifest's.

  `sizes` by name are those of the folder; None asks for the shard's own.
  """
  try:
    if sizes is not None and shard["file"] not in sizes:
      raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    size = sizes[shard["file"]] if sizes else path.stat().st_size
  except OSError as error:
    raise schema.DataError(
      f"{path}: {error.strerror}, on {platform.node()}; copy the data set there"
      " again, or build the data set again"
    ) from None
  if size != shard["bytes"]:
    raise schema.DataError(
      f"{path} has {size:,} bytes, its manifest says {shard['bytes']:,}: it is "
      "cut off or altered; copy it again, or build the data set again"
    )
  if verify and sha256_of(path) != shard["sha256"]:
    raise schema.DataError(
      f"{path} has another sha256 than its manifest says: it is altered; copy "
      "it again, or build the data set again"
    )
