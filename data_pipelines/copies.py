"""A data set of an object store, as a folder of this machine.

The folder is in the cache, under the digest of the data set's manifest. It has
the files that describe the data set; its shards are links to copies in the
cache, which are made one by one.
"""

from collections.abc import Mapping, Sequence
import functools
import os
import pathlib
from typing import Any

from data_pipelines import tfds_files
from data_pipelines.manifest import MANIFEST
from v2a_jax.basics import cache, files


class Copy:
  """The local folder of a data set, and its shards as they are needed."""

  def __init__(self, path, shards: Sequence[Mapping[str, Any]]):
    """Copies nothing yet.

    Args:
      path: URL of the data set's folder.
      shards: entries of the manifest.
    """
    self._path, self._shards = path, shards
    self._present: set[int] = set()

  @functools.cached_property
  def folder(self) -> pathlib.Path:
    """The local folder, with what describes the data set."""
    digest = files.sha256_of(self._path / MANIFEST)
    folder = cache.root() / "datasets" / digest[:32]
    folder.mkdir(parents=True, exist_ok=True)
    for name in tfds_files.METADATA:
      if not (folder / name).is_file():
        files.write_whole(folder / name, files.read_bytes(self._path / name))
    return folder

  def fetch(self, number: int) -> None:
    """Makes sure that a shard, by its place in the list, can be read.

    Raises:
      OSError: it is missing or altered, or the cache's disk is full.
    """
    if number in self._present:
      return
    shard = self._shards[number]
    link = self.folder / shard["file"]
    copy = cache.fetch(
      self._path / shard["file"], size=shard["bytes"], sha256=shard["sha256"]
    )
    if not link.exists():
      part = link.with_name(f".{os.getpid()}-{id(link)}")
      part.symlink_to(copy)
      part.replace(link)
    self._present.add(number)
