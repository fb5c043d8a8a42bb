"""Finds the file that a table means, however the table writes its name."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
import difflib
import pathlib
import unicodedata

# Near names are looked for so often, and among so many files: it takes a while.
_MOST_HINTS, _MOST_FILES = 20, 10_000


class FileIndex:
  """Files of a folder, found by path or name, with or without suffix.

  A name that is not there as it is may differ in case, in how accents are
  spelled (Unicode's normal forms) or in the suffix, if only one file is meant.
  """

  def __init__(self, files: Sequence[str]):
    """Takes relative paths with forward slashes."""
    self._files = files
    self._exact = set(files)
    self._names: dict[str, list[str]] = defaultdict(list)
    self._plain: dict[str, list[str]] = defaultdict(list)
    for file in files:
      path = pathlib.PurePosixPath(file)
      keys = {path.name, path.stem, str(path.with_suffix(""))}
      for key in keys - {file}:
        self._names[key].append(file)
      for key in {_plain(key) for key in keys | {file}}:
        self._plain[key].append(file)
    self._loose: list[tuple[str, str]] = []
    self._hints = _MOST_HINTS

  def __contains__(self, name: str) -> bool:
    """Says whether a file has this name, however it is written."""
    return self._look_up(name)[0] is not None

  def __call__(self, name: str) -> tuple[str | None, str]:
    """Returns the file and "", or None and the reason."""
    file, problem = self._look_up(name)
    if file is None and not problem:
      stem = pathlib.PurePosixPath(name.replace("\\", "/")).stem
      return None, "no such file" + self._hint(stem)
    if file and problem:
      self._loose.append((name, file))
    return file, "" if file else problem

  def _look_up(self, name: str) -> tuple[str | None, str]:
    """Returns a file and how its name differs, or None and why not one."""
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    tails = ["/".join(path.parts[i:]) for i in range(len(path.parts))]
    # Paths may begin above or below the folder: drop leading parts.
    for tail in tails:
      if tail in self._exact:
        return tail, ""
    for table, keys in (
      (self._names, tails),
      (self._plain, map(_plain, tails)),
      (self._plain, map(_plain, _without_suffix(path, tails))),
    ):
      for key in keys:
        files = table.get(key, [])
        if len(files) > 1:
          return None, f"{len(files)} files have this name, e.g. {files[0]}"
        if files:
          return files[0], "in another spelling" * (table is self._plain)
    return None, ""

  def part_of_film(
    self, film: str, start: float, end: float | None
  ) -> str | None:
    """Returns the file that is a stretch of a film, by the names in use.

    VGGSound's `ID_000030`, AudioSet's `ID_30000`, `ID_30`, `ID_30_40` and, in
    WavCaps and other copies of its sounds, `YID`.

    Args:
      film: id of the film.
      start: seconds in it.
      end: seconds in it; None if not known.
    """
    names = [
      *(f"{film}_{round(start):06d}", f"{film}_{round(1000 * start)}"),
      *(f"{film}_{start:g}", f"{film}_{start:g}_{end or start + 10:g}"),
      f"Y{film}",
    ]
    for name in names:
      files = self._names.get(name, [])
      if len(files) == 1:
        return files[0]
    return None

  def notes(self) -> Iterator[str]:
    """Yields a line if names were found that are not as in the table."""
    if self._loose:
      name, file = self._loose[0]
      yield (
        "file names of the table in another case, spelling or suffix than in"
        f" the folder: {len(self._loose)}, such as {name} for {file}"
      )

  def _hint(self, stem: str) -> str:
    if len(self._files) > _MOST_FILES or not self._hints:
      return ""
    self._hints -= 1
    stems = {pathlib.PurePosixPath(file).stem: file for file in self._files}
    close = difflib.get_close_matches(stem, stems, n=1)
    return f", did you mean {stems[close[0]]}?" if close else ""


def _plain(name: str) -> str:
  """Returns a name without case and in one spelling of accents."""
  return unicodedata.normalize("NFC", name).casefold()


def _without_suffix(path: pathlib.PurePosixPath, tails: list[str]) -> list[str]:
  return [tail.removesuffix(path.suffix) for tail in tails] * bool(path.suffix)
