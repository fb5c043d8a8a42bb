"""What a value of a column may be.

A column of any name has values of one kind: numbers, yes or no, text, or several
texts. Columns that training reads, and those that say who made a row, are of the
kinds in `KINDS`.
"""

from collections.abc import Mapping, Sequence
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.schema import PRESENCE_TAGS, word_fault

BY, CONFIDENCE, ERROR = "by", "confidence", "error"
TYPES = {
  "yes or no": pa.bool_(),
  "number": pa.float64(),
  "text": pa.string(),
  "texts": pa.list_(pa.string()),
}
# Kinds that columns with a meaning may be of. `words` are a list of objects, which
# is stored as JSON; numbers are in 0..1.
KINDS: dict[str, tuple[str, ...]] = {
  "caption": ("text", "texts"),
  "audio_caption": ("text", "texts"),
  "transcript": ("text",),
  "words": ("text",),
  **dict.fromkeys(PRESENCE_TAGS, ("yes or no", "number")),
  BY: ("text",),
  CONFIDENCE: ("number",),
  ERROR: ("text",),
}


class ColumnError(ValueError):
  """A value or a name that is refused; one line: which, and why."""


def checked(column: str, value: Any) -> Any:
  """Returns a value as bool, float, text or texts; a list of objects as JSON.

  Raises:
    ColumnError: it is something else, or not of the column's kind.
  """
  if column == "words":
    return json.dumps(read_words(value), ensure_ascii=False)
  value = _plain(column, value)
  check_kind(column, kind_of(value))
  if column in KINDS and isinstance(value, float) and not 0 <= value <= 1:
    raise ColumnError(f"{column}={value:g} is not in [0, 1]")
  return value


def check_kind(column: str, kind: str) -> None:
  """Raises ColumnError if a column with a meaning may not be of a kind."""
  wanted = KINDS.get(column, (kind,))
  if kind not in wanted:
    raise ColumnError(f"{column} is {kind}, not {' or '.join(wanted)}")


def read_words(value: Any) -> list[Mapping[str, Any]]:
  """Returns `words`, a list or its JSON, as a list.

  Raises:
    ColumnError: they are not [{"word", "start"?, "end"?}].
  """
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except (ValueError, RecursionError):
      raise ColumnError(f"words are not JSON: {value[:60]!r}") from None
  if fault := word_fault(value):
    raise ColumnError(fault)
  return list(value)


def kind_of(value: Any) -> str:
  """Returns the kind of what `checked` gives."""
  kinds = {bool: "yes or no", float: "number", str: "text", list: "texts"}
  return kinds[type(value)]


def kind_named(type_: pa.DataType) -> str:
  """Returns the kind of an Arrow type, the type's own name if it has none."""
  return next((k for k, known in TYPES.items() if known == type_), str(type_))


def _plain(column: str, value: Any) -> Any:
  """Returns bool, float, text or a list of texts; raises ColumnError."""
  if isinstance(value, bool | np.bool_):
    return bool(value)
  if isinstance(value, int | float | np.number):
    try:
      number = float(value)
    except OverflowError:  # A whole number of hundreds of digits.
      number = math.inf
    if not math.isfinite(number):
      raise ColumnError(f"{column}={str(value)[:60]} is not finite")
    return number
  if isinstance(value, str):
    return value
  if isinstance(value, Sequence):
    if all(isinstance(item, str) for item in value):
      return list(value)
    if all(isinstance(item, Mapping) for item in value):
      return json.dumps(value, ensure_ascii=False)
  raise ColumnError(
    f"{column} is {type(value).__name__}, not a number, yes or no, text, or a"
    f" list of texts: {str(value)[:60]!r}"
  )
