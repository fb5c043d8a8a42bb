"""Reads WebDataset's archives: tar files of clips with what is said of them.

The members of a sample have the same name up to the first dot of its last part:
`a/17.mp4`, `a/17.txt` with a caption, `a/17.json` with the columns of a table.
https://github.com/webdataset/webdataset

Nothing is unpacked under a name from the archive. Headers and texts are read in
one pass; later a clip at a time is copied to a file of its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

from data_pipelines import media_files
from data_pipelines.schema import DataError
from v2a_jax.basics.files import open_regular
from v2a_jax.basics.paths import is_remote

if TYPE_CHECKING:
  from v2a_jax.basics.store import StorePath

# Bytes of the largest text, and of the largest header, that is read.
_MOST_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


@dataclasses.dataclass(frozen=True)
class Member:
  """Where the bytes of a clip are.

  Attributes:
    archive: path of the tar file, relative to the folder of the build.
    offset: byte at which they begin.
    size: number of bytes.
  """

  archive: str
  offset: int
  size: int


@dataclasses.dataclass(frozen=True)
class Archive:
  """What a tar file holds.

  Attributes:
    name: its path, relative to the folder of the build.
    members: clips by name, which is the archive's, a slash and the member's.
    rows: what the texts of a sample say, with the clip's name as `file`.
    notes: what was left out, one line for each reason.
  """

  name: str
  members: Mapping[str, Member]
  rows: Sequence[Mapping[str, Any]]
  notes: Sequence[str]


def read_archive(
  directory: "pathlib.Path | StorePath", archive: str
) -> Archive:
  """Reads the headers and texts of a tar file.

  Members that are links or devices, or whose names lead out of the archive, are
  left out.

  Args:
    directory: folder of the build.
    archive: path of the tar file in it, with forward slashes.

  Raises:
    DataError: it is no tar file, is compressed, or cannot be read.
  """
  path = directory / archive
  reading = _Reading(archive)
  try:
    with _open(path) as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(0)
      for name, header in _headers(file, reading.left_out):
        reading.add(name, header, file, size)
  except tarfile.TarError as error:
    raise DataError(
      f"cannot read {path}: {error}; a plain tar file is needed, not a"
      " compressed one"
    ) from None
  except OSError as error:
    reason = error.strerror and f"cannot read {path}: {error.strerror}"
    raise DataError(reason or str(error)) from None
  return reading.finish()


@contextlib.contextmanager
def file_of(
  directory: "pathlib.Path | StorePath",
  name: str,
  members: Mapping[str, Member],
) -> Iterator[pathlib.Path]:
  """Gives the path of a clip on this machine for the time being.

  It is the clip's own, or that of a copy: of a member of an archive, and of what
  lies on an object store.

  Args:
    directory: folder of the build.
    name: path in it, or name of a member.
    members: members of archives by name.

  Raises:
    OSError: it cannot be read, or the disk of temporary files is full.
  """
  member = members.get(name)
  if member is None and not is_remote(directory):
    yield directory / name
    return
  with tempfile.TemporaryDirectory(prefix="v2a-clip-") as folder:
    path = pathlib.Path(folder, "clip").with_suffix(
      pathlib.PurePosixPath(name).suffix
    )
    if member is None:
      (directory / name).download(path)
    else:
      _copy(directory / member.archive, member, path)
    yield path


def _copy(archive, member: Member, path: pathlib.Path) -> None:
  with _open(archive) as file:
    file.seek(member.offset)
    with open(path, "wb") as copy:
      shutil.copyfileobj(_Part(file, member.size), copy)
  if path.stat().st_size != member.size:
    raise OSError(f"{member.archive} has become shorter")


def _open(archive: "pathlib.Path | StorePath") -> BinaryIO:
  if is_remote(archive):
    return archive.open_part()
  return open(open_regular(archive), "rb")


class _Reading:
  """Members and texts of an archive, collected by sample."""

  def __init__(self, archive: str):
    self._archive = archive
    self._media: dict[str, list[tuple[str, Member]]] = defaultdict(list)
    self._texts: dict[str, dict[str, Any]] = defaultdict(dict)
    self._names = set[str]()
    self._left_out: dict[str, list[str]] = defaultdict(list)

  def left_out(self, name: str, reason: str) -> None:
    self._left_out[reason].append(name)

  def add(
    self, name: str, header: tarfile.TarInfo, file: BinaryIO, size: int
  ) -> None:
    """Takes a member, whose bytes are read if they are a text."""
    path = pathlib.PurePosixPath(name)
    ending = path.suffix.lower()
    sample = str(path.with_name(path.name.split(".")[0]))
    if path.name.startswith("."):
      return
    if str(path) in self._names:
      self.left_out(name, "a second one of the same name")
      return
    self._names.add(str(path))
    end = header.offset_data + header.size
    if end > size:
      self.left_out(name, "cut off")
    elif ending in media_files.SOUNDS | media_files.VIDEOS:
      member = Member(self._archive, header.offset_data, header.size)
      self._media[sample].append((str(path), member))
    elif ending not in (".txt", ".json"):
      self.left_out(name, f"{ending or 'no ending'} is not read")
    elif header.size > _MOST_BYTES:
      self.left_out(name, "a text of over 1 MiB")
    else:
      file.seek(header.offset_data)
      said = _said(file.read(header.size), ending)
      if said is None:
        self.left_out(name, "not UTF-8, or not a JSON object")
      else:
        known = self._texts[sample]
        if "caption" in known and "caption" in said:  # in .txt and in .json
          both = map(_listed, (known["caption"], said["caption"]))
          said["caption"] = [text for texts in both for text in texts]
        known |= said

  def finish(self) -> Archive:
    members, rows = {}, []
    for sample, media in self._media.items():
      # A film before its sound alone.
      media.sort(
        key=lambda m: (
          pathlib.PurePosixPath(m[0]).suffix.lower() in (media_files.SOUNDS)
        )
      )
      (name, member), *others = media
      for other, _ in others:
        self.left_out(other, "a second medium of its sample")
      members[f"{self._archive}/{name}"] = member
      if sample in self._texts:
        row = {"file": f"{self._archive}/{name}"}
        rows.append(self._texts[sample] | row)
    notes = [
      f"{self._archive}: {len(names)} members left out, such as {names[0]!r}:"
      f" {reason}"
      for reason, names in self._left_out.items()
    ]
    return Archive(self._archive, members, rows, notes)


def _headers(file: BinaryIO, left_out) -> Iterator[tuple[str, tarfile.TarInfo]]:
  """Yields names and headers of the plain files of an archive."""
  archive = tarfile.open(fileobj=_Headers(file), mode="r:")
  count = 0
  while True:
    try:
      header = archive.next()
    except tarfile.ReadError:
      if not count:
        raise
      header = None
    if header is None:
      break
    count += 1
    # Not needed again, and there may be millions.
    archive.members = []
    parts = pathlib.PurePosixPath(header.name).parts
    if header.isdir():
      continue
    if not header.isreg() or header.issparse():
      left_out(header.name, "a link, device or file with holes")
    elif header.name.startswith("/") or ".." in parts or not parts:
      left_out(header.name, "its name leads out of the archive")
    elif not header.name.isprintable() or "\\" in header.name:
      left_out(header.name, "its name has characters of no file name")
    else:
      yield header.name, header
  file.seek(archive.offset)
  if any(file.read(_BLOCK)):
    left_out(f"what follows the first {count}", "the archive is cut or damaged")


def _said(data: bytes, ending: str) -> dict[str, Any] | None:
  """Returns what a text says, by column; None if it cannot be read."""
  try:
    text = data.decode("utf-8-sig")
    if ending == ".txt":
      return {"caption": text.strip()}
    said = json.loads(text)
  except (ValueError, RecursionError):
    return None
  if not isinstance(said, dict):
    return None
  return {k: v for k, v in said.items() if not isinstance(v, dict)}


def _listed(value: Any) -> list[Any]:
  return value if isinstance(value, list) else [value]


class _Headers:
  """A file of which only headers can be read, so that none claims much memory."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self.seek, self.tell = file.seek, file.tell

  def read(self, size: int) -> bytes:
    if size > _MOST_BYTES:
      raise tarfile.ReadError(f"a header of {size:,} bytes")
    return self._file.read(size)


class _Part:
  """The next `size` bytes of a file."""

  def __init__(self, file: BinaryIO, size: int):
    self._file, self._left = file, size

  def read(self, size: int) -> bytes:
    data = self._file.read(min(size, self._left))
    self._left -= len(data)
    return data
