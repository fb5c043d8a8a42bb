"""Lists the columns of a data set as text."""

from collections.abc import Iterator
import os

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.columns import admit as admit_lib
from data_pipelines.columns import records, store
from data_pipelines.columns.measure import FINGERPRINTS
from data_pipelines.columns.values import BY


def lines(dataset: str | os.PathLike, *, admit: str = "") -> Iterator[str]:
  """Yields a line for each column, or those of what an expression admits.

  The list of records is made first if it is missing or out of date.

  Raises:
    DataError: the data set is missing or cannot be read.
    AdmitError: the expression cannot be followed.
  """
  known = records.make_records(dataset)
  if admit:
    yield admit_lib.admitted(dataset, admit).describe()
    return
  yield f"{dataset}: {len(known):,} clips"
  for name in store.sources(dataset):
    columns = store.open_columns(dataset, name)
    first, end = columns.rows(known.keys)
    yield ""
    yield f"{name}: {int((end > first).sum()):,} clips{_by(columns)}"
    if name == FINGERPRINTS:
      continue  # Kilobytes a clip, of which there is nothing to see.
    names = [n for n in columns.names if n != BY]
    width = max(map(len, names), default=0)
    for column in names:
      values = columns.values(column, known.keys)
      yield f"  {column:<{width}}  {describe(values)}"


def describe(values: pa.ChunkedArray) -> str:
  """Returns what a column holds, in a few words."""
  there = values.drop_null()
  count = len(there)
  missing = f"; none of {len(values) - count:,}" * (count < len(values))
  if not count:
    return f"nothing{missing}"
  if pa.types.is_boolean(there.type):
    yes = pc.sum(there).as_py()
    return f"{yes:,} yes, {count - yes:,} no{missing}"
  if pa.types.is_floating(there.type) or pa.types.is_integer(there.type):
    low, middle, high = pc.quantile(there, [0.05, 0.5, 0.95]).to_pylist()
    return f"{low:.4g} … {middle:.4g} … {high:.4g} (5, 50, 95 %){missing}"
  if pa.types.is_list(there.type):
    total = pc.sum(pc.list_value_length(there)).as_py()
    return f"{total:,} texts of {count:,} clips{missing}"
  different = pc.count_distinct(there).as_py()
  example = str(there[0].as_py())
  shown = example if len(example) <= 40 else example[:39] + "…"
  return f"{different:,} texts, such as {shown!r}{missing}"


def _by(columns: store.Columns) -> str:
  """Names who made the rows, those with the most rows first."""
  if BY not in columns.names:
    return ""
  counts = pc.value_counts(columns.table[BY].drop_null()).to_pylist()
  counts.sort(key=lambda entry: -entry["counts"])
  names = [entry["values"] for entry in counts[:3]]
  return f", by {', '.join(names)}" + ", …" * (len(counts) > 3)
