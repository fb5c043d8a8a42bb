"""Arrow files: tables that are mapped into memory, not read into it.

pandas, Polars and DuckDB open them too (`pandas.read_feather`).
"""

from collections.abc import Callable, Iterator
import contextlib
import os

import pyarrow as pa
import pyarrow.ipc

from data_pipelines.schema import DataError
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, is_remote


def read(path: str | os.PathLike) -> pa.Table | None:
  """Opens a table; None if there is no such file.

  Raises:
    DataError: it is damaged.
  """
  path = as_path(path)
  try:
    if is_remote(path):
      source = pa.BufferReader(files.read_bytes(path))
    else:
      files.check_regular(path)
      source = pa.memory_map(str(path))
    return pa.ipc.open_file(source).read_all()
  except FileNotFoundError:
    return None
  except (pa.ArrowException, OSError) as error:
    line = str(error).splitlines()[0]
    raise DataError(
      f"{path} is damaged ({line}); remove it and make it again"
    ) from None


def write(path: str | os.PathLike, table: pa.Table) -> None:
  """Writes a table, whole or not at all; makes its folder.

  Raises:
    OSError: the folder cannot be written, or the disk is full.
  """
  with writing(path, table.schema) as add:
    add(table)


@contextlib.contextmanager
def writing(
  path: str | os.PathLike, schema: pa.Schema
) -> Iterator[Callable[[pa.Table], None]]:
  """Yields what adds rows to a table that is written as `write` does."""
  path = as_path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with (
    files.written(path) as part,
    pa.OSFile(str(part), "wb") as sink,
    pa.ipc.new_file(sink, schema) as writer,
  ):
    yield writer.write_table
