"""Sorts rows by their keys in memory that does not grow with their number.

Keys are digests (`records.key_of`), so numbers from 0 to 2^64 that are spread
evenly. Rows are divided by their keys into parts on disk, each of them small
enough to be sorted in memory.
"""

from collections import defaultdict
from collections.abc import Iterator
import pathlib
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

_PART_BYTES = 8 << 20


class Sorter:
  """Rows that are added in any order and come back in that of their keys.

  A context manager. Rows of one key stay in the order in which they were added.
  """

  def __init__(
    self, schema: pa.Schema, nbytes: int, folder: pathlib.Path | None
  ):
    """Starts without rows.

    Args:
      schema: columns of the rows, of which `key` is uint64.
      nbytes: size of all rows in bytes, about.
      folder: folder of a disk with room for them; None for that of temporary
        files.
    """
    self._schema, self._folder = schema, folder
    # The first bits of a key number its part.
    self._bits = (nbytes // _PART_BYTES).bit_length()
    self._rows: list[dict[str, Any]] = []
    self._bytes = self._count = 0
    # Numbers of the record batches on disk that have rows of each part.
    self._batches: dict[int, list[int]] = defaultdict(list)

  def __enter__(self) -> "Sorter":
    self._file = tempfile.TemporaryFile(dir=self._folder)
    self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), self._schema)
    return self

  def __exit__(self, *_):
    self._file.close()

  def add(self, row: dict[str, Any], nbytes: int) -> None:
    """Adds a row, of about `nbytes` bytes."""
    self._rows.append(row)
    self._bytes += nbytes
    if self._bytes >= _PART_BYTES:
      self._spread()

  def parts(self) -> Iterator[tuple[int, int, pa.Table]]:
    """Yields first key, last key and rows of each part, sorted."""
    self._spread()
    self._writer.close()
    self._file.seek(0)
    reader = pa.ipc.open_file(pa.PythonFile(self._file, "r"))
    width = 64 - self._bits
    for part in range(2**self._bits):
      batches = [reader.get_batch(i) for i in self._batches[part]]
      table = pa.Table.from_batches(batches, self._schema)
      yield part << width, (part + 1 << width) - 1, by_key(table)

  def _spread(self) -> None:
    """Writes the rows in memory, those of each part together."""
    table = by_key(pa.Table.from_pylist(self._rows, self._schema))
    keys = table["key"].to_numpy()
    parts = keys >> np.uint64(64 - self._bits) if self._bits else 0 * keys
    cuts = np.flatnonzero(np.diff(parts)) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(parts)]):
      if start < stop:
        (batch,) = table.slice(start, stop - start).to_batches()
        self._writer.write_batch(batch)
        self._batches[int(parts[start])].append(self._count)
        self._count += 1
    self._rows, self._bytes = [], 0


def by_key(table: pa.Table) -> pa.Table:
  """Returns a table sorted by key; rows of one key stay in their order."""
  order = np.argsort(table["key"].to_numpy(), kind="stable")
  return table.take(pa.array(order)).combine_chunks()
