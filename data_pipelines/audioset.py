"""Names of AudioSet's classes, whose ids its tables have as labels.

The names stand in `class_labels_indices.csv`, which is published beside the
tables (https://research.google.com/audioset/download.html).
"""

from collections.abc import Iterator, Mapping
import csv
import dataclasses
import os
import re

from data_pipelines.caption_rows import Row
from data_pipelines.schema import DataError
from v2a_jax.basics import audioset
from v2a_jax.basics.files import read_bytes
from v2a_jax.basics.paths import as_path

FILENAME = "class_labels_indices.csv"
_HEADER = ["index", "mid", "display_name"]
_ID = re.compile(r"/[a-z]/\w+")


@dataclasses.dataclass
class Classes:
  """AudioSet's classes by id.

  Attributes:
    known: number and name by id; empty if there is no table of them.
    unknown: ids in labels that `known` does not have.
  """

  known: Mapping[str, tuple[int, str]]
  unknown: set[str] = dataclasses.field(default_factory=set)

  def name(self, row: Row) -> Row:
    """Returns a row with names in place of ids in its label, and as tags.

    Its tags also say whether there are speech, music and effects. AudioSet's
    labels are taken as complete: what they do not name is absent. So a row with
    an id that is not known gets no tags: what that class is of is not known.
    """
    ids = row.label.replace(",", " ").split()
    if not ids or not all(map(_ID.fullmatch, ids)):
      return row
    unknown = {id for id in ids if id not in self.known}
    self.unknown |= unknown
    names = [self.known[id][1] if id in self.known else id for id in ids]
    row = dataclasses.replace(row, label="; ".join(names))
    if unknown:
      return row
    tags = [*row.tags, *names]
    there = {tag.lower() for tag in tags}
    kinds = audioset.kinds([self.known[id][0] for id in ids])
    tags += [kind for kind in kinds if kind not in there]
    return dataclasses.replace(row, tags=tuple(tags))

  def notes(self) -> Iterator[str]:
    """Yields a line if labels have ids without a name."""
    if not self.unknown:
      return
    example = min(self.unknown)
    if self.known:
      yield (
        f"{len(self.unknown)} ids of AudioSet have no name in {FILENAME}, such"
        f" as {example}: the rows that have them get no tags"
      )
      return
    yield (
      f"labels are ids of AudioSet, such as {example}: put its {FILENAME} beside"
      " the table, or name it with --labels, to have their names and tags"
    )


def read_classes(
  table: str | os.PathLike, labels: str | os.PathLike | None = None
) -> Classes:
  """Reads the names of the classes; none if they are not there.

  Args:
    table: table of captions, beside which they are looked for.
    labels: file with them; None to look for `FILENAME`.

  Raises:
    DataError: `labels` cannot be read, or is no such file.
  """
  path = as_path(labels) if labels else as_path(table).parent / FILENAME
  try:
    text = read_bytes(path).decode("utf-8-sig")
  except FileNotFoundError:
    if not labels:
      return Classes({})
    raise DataError(f"no table of AudioSet's classes {path}") from None
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"cannot read {path}: {error}") from None
  try:
    header, *rows = csv.reader(text.splitlines())
    if header != _HEADER:
      raise ValueError
    known = {mid: (int(index), name) for index, mid, name in filter(None, rows)}
  except (ValueError, csv.Error):
    raise DataError(
      f"{path} is not AudioSet's table of classes: its first line must be"
      f" {','.join(_HEADER)}, and each row have a number, an id and a name"
    ) from None
  return Classes(known)
