"""Random access to the records of a finished data set."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
import threading
from typing import Any

from data_pipelines import schema
from data_pipelines.manifest import read_manifest
from v2a_jax.basics.files import sha256_of
from v2a_jax.basics.text import did_you_mean


class Source:
  """Records of one split, by index; can be pickled and shared by threads.

  `source[i]` is a dict of Python values; see `schema.decode`.

  Attributes:
    path: folder of the data set.
    split: name of the split, or several joined by "+".
  """

  def __init__(self, path: pathlib.Path, split: str, length: int):
    self.path, self.split, self._length = path, split, length
    self._lock = threading.Lock()
    self._opened = None  # opened by the process that reads, when it reads

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = range(self._length)[index]  # negative indices, and IndexError
    try:
      return schema.decode(self._reader[index])
    except (RuntimeError, OSError, ValueError, KeyError) as error:
      raise schema.DataError(
        f"{self.path}: record {index} of {self.split!r} cannot be read "
        f"({' '.join(str(error).split())[:200]}); build the data set again"
      ) from None

  def __repr__(self) -> str:
    return f"Source({str(self.path)!r}, split={self.split!r})"

  def __getstate__(self):
    return self.path, self.split, self._length

  def __setstate__(self, state):
    self.__init__(*state)

  @property
  def _reader(self):
    with self._lock:
      if self._opened is None:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self.path)
        self._opened = builder.as_data_source(split=self.split)
      return self._opened


def open_source(
  path: str | os.PathLike, split: str = "train", *, verify: bool = False
) -> Source:
  """Opens one split of a data set, or `all` of them in the order of `SPLITS`.

  `verify` compares each shard's sha256 too, which reads all of it.

  Raises:
    DataError: the data set is missing, unfinished or of another schema version,
      has no such split, or a shard is missing, cut off or altered.
  """
  path = pathlib.Path(path)
  manifest = read_manifest(path)
  names = list(manifest["splits"]) if split == "all" else [split]
  if not set(names) <= set(manifest["splits"]):
    known = [*manifest["splits"], "all"]
    raise schema.DataError(
      f"{path} has no split {split!r}; it has {', '.join(known)}"
      f"{did_you_mean(split, known)}"
    )
  shards = [s for s in manifest["shards"] if s["split"] in names]
  for shard in shards:
    _check_shard(path / shard["file"], shard, verify=verify)
  # TFDS' "all" orders the splits in its own way.
  return Source(path, "+".join(names), sum(s["records"] for s in shards))


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
    return f"{source.path}: record {index} of {source.split!r}"


def _check_shard(path: pathlib.Path, shard: dict, *, verify: bool) -> None:
  try:
    size = path.stat().st_size
  except OSError as error:
    raise schema.DataError(
      f"{path}: {error.strerror}; build the data set again"
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
