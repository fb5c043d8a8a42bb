"""Chooses clips by an expression over columns: `config.data.admit`.

  silence < 0.5 and bandwidth > 6000 and not duplicate
  and licence in ('CC0-1.0', 'CC BY 4.0') and (missing(keep) or keep)

Python's signs for numbers, texts in quotes, columns, `and`, `or`, `not`, `in`,
`not in` (of a list, or of a text in another), comparisons
(`-0.1 < offset < 0.1`), `abs(column)` and `missing(column)`; nothing else can be
written in it, and nothing of it is run as code. A column is one of the records (`records.SCHEMA`), or of a source,
`SOURCE.COLUMN` where two have it. Where a value is missing, a comparison with it
is false, and so is a column of yes or no.

A clip that is not admitted is counted under the first condition, between the
outermost `and`s, that it fails.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.columns import records as records_lib
from data_pipelines.columns import store
from data_pipelines.columns.records import Records
from v2a_jax.basics.text import did_you_mean

_LONGEST = 2000  # letters
_COMPARISONS = {
  ast.Lt: pc.less,
  ast.LtE: pc.less_equal,
  ast.Gt: pc.greater,
  ast.GtE: pc.greater_equal,
  ast.Eq: pc.equal,
  ast.NotEq: pc.not_equal,
}
_SIGNS = {
  ast.Lt: "<",
  ast.LtE: "<=",
  ast.Gt: ">",
  ast.GtE: ">=",
}


class AdmitError(ValueError):
  """An expression that cannot be followed; one line: where, what to write."""


@dataclasses.dataclass(frozen=True)
class Cut:
  """A limit that an expression sets for a column of numbers.

  Attributes:
    column: name as it is written.
    sign: "<", "<=", ">" or ">=" of a clip that is admitted.
    value: the limit.
  """

  column: str
  sign: str
  value: float


@dataclasses.dataclass(frozen=True)
class Admitted:
  """What an expression admits of a data set.

  Attributes:
    mask: bool [n], of all records.
    refused: number of clips by the condition that they fail first.
    without: of these, those where a column of the condition has no value.
  """

  mask: np.ndarray
  refused: Mapping[str, int]
  without: Mapping[str, int]

  def describe(self) -> str:
    """Returns one line with the counts."""
    count, total = int(self.mask.sum()), len(self.mask)
    text = f"{count:,} of {total:,} clips admitted"
    parts = []
    for condition, number in self.refused.items():
      none = self.without[condition]
      note = f" ({none:,} without a value)" if none else ""
      parts.append(f"{number:,} fail {condition}{note}")
    return "; ".join([text, *parts])


class Expression:
  """An expression that was read; see the module's text.

  Attributes:
    text: the expression.
  """

  def __init__(self, text: str):
    """Reads it.

    Raises:
      AdmitError: it is not of this grammar.
    """
    self.text = " ".join(text.split())
    if len(self.text) > _LONGEST:
      raise AdmitError(f"admit has {len(self.text)} letters, over {_LONGEST}")
    try:
      tree = ast.parse(self.text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
      reason = getattr(error, "msg", None) or type(error).__name__
      raise AdmitError(
        f"admit={self.text!r} is no expression ({reason}); write one such as"
        ' "silence < 0.5 and not duplicate"'
      ) from None
    both = isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)
    self._terms = tree.values if both else [tree]
    for term in self._terms:
      self._check(term)

  def columns(self) -> list[str]:
    """Returns the columns that it names, as it writes them."""
    return list(dict.fromkeys(n for t in self._terms for n in _names(t)))

  def cuts(self) -> list[Cut]:
    """Returns the limits that its conditions set for single columns."""
    found = []
    for term in self._terms:
      for node in ast.walk(term):
        if isinstance(node, ast.Compare):
          found += _cuts(node)
    return found

  def __call__(
    self, find: Callable[[str], pa.ChunkedArray], count: int
  ) -> Admitted:
    """Evaluates it.

    Args:
      find: returns the column of a name, of `count` values.
      count: number of records.

    Raises:
      AdmitError: `find` raised it, or kinds of values do not go together.
    """
    known = {name: find(name) for name in self.columns()}
    mask = np.ones(count, bool)
    refused, without = {}, {}
    for term in self._terms:
      text = ast.unparse(term)
      try:
        holds = _truth(_value(term, known), text)
      except (pa.ArrowException, TypeError, AttributeError, OverflowError):
        kinds = ", ".join(f"{n} is {_kind(known[n])}" for n in _names(term))
        raise AdmitError(
          f"admit: {text!r} compares what cannot be compared: {kinds}"
        ) from None
      if isinstance(holds, bool):
        holds = np.full(count, holds)
      fails = mask & ~holds
      if fails.any():
        nothing = np.zeros(count, bool)
        for name in _names(term):
          nothing |= _numpy(pc.is_null(known[name]))
        refused[text] = int(fails.sum())
        without[text] = int((fails & nothing).sum())
      mask &= holds
    return Admitted(mask, refused, without)

  def _check(self, node: ast.AST) -> None:
    """Refuses what is not of the grammar."""
    allowed = (
      *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub),
      *(ast.Compare, ast.In, ast.NotIn, *_COMPARISONS, ast.Load),
      *(ast.Name, ast.Attribute, ast.Constant, ast.Tuple, ast.List, ast.Call),
    )
    good = isinstance(node, allowed)
    if isinstance(node, ast.Constant):
      good = isinstance(node.value, bool | int | float | str)
    elif isinstance(node, ast.Attribute):
      good = isinstance(node.value, ast.Name)
    elif isinstance(node, ast.Call):
      known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
      of_column = [isinstance(a, ast.Name | ast.Attribute) for a in node.args]
      good = known and of_column == [True] and not node.keywords
    elif isinstance(node, ast.Tuple | ast.List):
      good = all(map(_is_literal, node.elts))
    if not good:
      raise AdmitError(
        f"admit: {ast.unparse(node)!r} is not allowed; there are numbers, texts,"
        " columns, and, or, not, in, comparisons, abs(column), missing(column)"
      )
    skip = (ast.Attribute, ast.Tuple, ast.List)
    if isinstance(node, ast.Call):
      self._check(node.args[0])
    elif not isinstance(node, skip):
      for child in ast.iter_child_nodes(node):
        self._check(child)


def columns_of(
  dataset: str | os.PathLike, records: Records
) -> Callable[[str], pa.ChunkedArray]:
  """Returns a function from a column's name to its values, record by record.

  It raises `AdmitError` where there is no such column, or several.
  """
  names = store.sources(dataset)
  opened: dict[str, store.Columns] = {}
  keys = records.keys if names else np.zeros(0, np.uint64)

  def source(name: str) -> store.Columns:
    if name not in opened:
      opened[name] = store.open_columns(dataset, name)
    return opened[name]

  def find(name: str) -> pa.ChunkedArray:
    own, dot, column = name.rpartition(".")
    if not dot and name in records.table.column_names:
      return records.table[name]
    found = [s for s in ([own] if dot else names) if s in names]
    found = [s for s in found if column in source(s).names]
    if len(found) == 1:
      return source(found[0]).values(column, keys)
    if found:
      raise AdmitError(
        f"admit: {' and '.join(found)} have a column {name!r}; write"
        f" {found[0]}.{name}"
      )
    known = [*records_lib.SCHEMA.names[1:]]
    known += [column for s in names for column in source(s).names]
    raise AdmitError(
      f"admit: {dataset} has no column {name!r}{did_you_mean(column, known)};"
      f" there are {', '.join(dict.fromkeys(known))}"
    )

  return find


def admitted(dataset: str | os.PathLike, text: str) -> Admitted:
  """Evaluates an expression on a data set.

  Raises:
    AdmitError: the expression is wrong, or a column unknown.
    DataError: the data set, or the list of its records, is missing.
  """
  expression = Expression(text)
  records = records_lib.open_records(dataset)
  return expression(columns_of(dataset, records), len(records))


def _value(node: ast.AST, known: Mapping[str, pa.ChunkedArray]):
  """Returns the value of a node: a literal, or an array."""
  if isinstance(node, ast.Constant):
    return node.value
  if isinstance(node, ast.Name | ast.Attribute):
    return known[ast.unparse(node)]
  if isinstance(node, ast.Tuple | ast.List):
    return [_value(item, known) for item in node.elts]
  if isinstance(node, ast.Call):
    return _FUNCTIONS[node.func.id](_value(node.args[0], known))
  if isinstance(node, ast.UnaryOp):
    value = _value(node.operand, known)
    if isinstance(node.op, ast.Not):
      return ~_array(_truth(value, ast.unparse(node.operand)))
    return -value if isinstance(value, int | float) else pc.negate(value)
  if isinstance(node, ast.BoolOp):
    parts = [_truth(_value(v, known), ast.unparse(v)) for v in node.values]
    join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
    total = parts[0]
    for part in parts[1:]:
      total = join(total, part)
    return _array(total)
  return _compared(node, known)


def _compared(node: ast.Compare, known) -> np.ndarray:
  """Evaluates a chain of comparisons; missing values are false."""
  total: np.ndarray | np.bool_ = np.bool_(True)
  values = [_value(v, known) for v in (node.left, *node.comparators)]
  for sign, left, right in zip(node.ops, values, values[1:]):
    if isinstance(sign, ast.In | ast.NotIn):
      there, holds = _contained(left, right)
      if isinstance(sign, ast.NotIn):
        holds = there & ~holds
    else:
      holds = _numpy(_COMPARISONS[type(sign)](_arrow(left), _arrow(right)))
    total = np.logical_and(total, holds)
  return _array(total)


def _contained(left, right) -> tuple[np.ndarray, np.ndarray]:
  """Returns (there is a value, it is in): `a in ('b', 'c')`, `'b' in tags`."""
  if isinstance(right, list):
    values = pa.array(right)
    kept = pc.is_in(left, value_set=values.cast(left.type))
    return _numpy(pc.is_valid(left)), _numpy(kept)
  if not pa.types.is_list(right.type):
    holds = pc.match_substring(right, left)
    return _numpy(pc.is_valid(right)), _numpy(holds)
  there = _numpy(pc.is_valid(right))
  holds = np.zeros(len(right), bool)
  flat = right.combine_chunks()
  parents = pc.list_parent_indices(flat).to_numpy()
  holds[parents[_numpy(pc.equal(pc.list_flatten(flat), left))]] = True
  return there, holds


def _arrow(value):
  return (
    pa.scalar(value)
    if isinstance(value, bool | int | float | str)
    else (pa.array(value) if isinstance(value, np.ndarray) else value)
  )


def _array(value):
  return np.asarray(value)


def _truth(value, text: str):
  """Returns a mask, or a bool; missing values are false."""
  if isinstance(value, bool | np.bool_):
    return bool(value)
  if isinstance(value, np.ndarray) and value.dtype == bool:
    return bool(value) if value.ndim == 0 else value
  if isinstance(value, pa.ChunkedArray | pa.Array):
    if pa.types.is_boolean(value.type):
      return _numpy(value)
    raise AdmitError(
      f"admit: {text!r} is {_kind(value)}, not yes or no: compare it with"
      " something"
    )
  raise AdmitError(f"admit: {text!r} is neither true nor false")


def _numpy(value) -> np.ndarray:
  filled = pc.fill_null(value, False)
  if isinstance(filled, pa.Scalar):
    return np.bool_(filled.as_py())
  return (
    filled.to_numpy(zero_copy_only=False)
    if isinstance(filled, pa.Array)
    else filled.to_numpy()
  )


def _kind(value) -> str:
  kind = value.type
  if pa.types.is_boolean(kind):
    return "yes or no"
  if pa.types.is_list(kind):
    return "a list of texts"
  return "text" if pa.types.is_string(kind) else "a number"


def _missing(value) -> np.ndarray:
  return _numpy(pc.is_null(value))


_FUNCTIONS = {"abs": pc.abs, "missing": _missing}


def _names(node: ast.AST) -> Iterator[str]:
  """Yields the columns in a node."""
  if isinstance(node, ast.Name | ast.Attribute):
    yield ast.unparse(node)
  elif isinstance(node, ast.Call):
    yield from _names(node.args[0])
  else:
    for child in ast.iter_child_nodes(node):
      yield from _names(child)


def _is_literal(node: ast.AST) -> bool:
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
    node = node.operand
  return isinstance(node, ast.Constant)


def _cuts(node: ast.Compare) -> Sequence[Cut]:
  sides = [node.left, *node.comparators]
  found = []
  for sign, left, right in zip(node.ops, sides, sides[1:]):
    if type(sign) not in _SIGNS:
      continue
    shown, column, value = _SIGNS[type(sign)], left, right
    if not isinstance(left, ast.Name | ast.Attribute):
      shown = shown.translate(str.maketrans("<>", "><"))
      column, value = right, left
    if isinstance(column, ast.Name | ast.Attribute) and _is_literal(value):
      limit = ast.literal_eval(value)
      if isinstance(limit, int | float):
        found.append(Cut(ast.unparse(column), shown, float(limit)))
  return found
