"""Folders of sounds and videos, whose files are matched by name.

A name is the path inside the folder without its suffix: `dogs/bark_01` is
`dogs/bark_01.wav` in one folder and `dogs/bark_01.mp4` in another. Where a
folder has a sound and a video of one name, the sound is what is heard and the
video what is seen.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from typing import Any
import unicodedata

from data_pipelines import caption_rows, schema
from data_pipelines import captions as captions_lib
from data_pipelines.media_files import SOUNDS, find_media
from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.basics.paths import local_path
from v2a_jax.evaluation import takes as takes_lib

_NAMED = 3  # names that a message shows


@dataclasses.dataclass(frozen=True)
class Folder:
  """Media files of a folder, by name.

  Attributes:
    path: the folder.
    sounds: files that hold sound only.
    videos: files that hold a picture, and maybe sound.
  """

  path: pathlib.Path
  sounds: Mapping[str, pathlib.Path]
  videos: Mapping[str, pathlib.Path]

  @property
  def names(self) -> list[str]:
    """Names of all files, sorted."""
    return sorted({*self.sounds, *self.videos})

  def sound(self, name: str) -> pathlib.Path:
    """Returns the file whose sound is heard."""
    return self.sounds.get(name) or self.videos[name]


def read_folder(path: str | os.PathLike, what: str) -> Folder:
  """Lists the media files of a folder, subfolders included.

  Names are in Unicode's composed form, whatever the file system has.

  Args:
    path: local folder.
    what: what messages call it, such as "the outputs".

  Raises:
    DataError: it has no media file.
    ValueError: it is no folder, or has two files of one name.
  """
  path = local_path(path, what)
  if not path.is_dir():
    raise ValueError(f"{path}: {what} must be a folder, and there is none")
  sounds, videos = {}, {}
  for name in find_media(path).files:
    file = path / name
    found = sounds if file.suffix.lower() in SOUNDS else videos
    name = composed(pathlib.PurePosixPath(name).with_suffix("").as_posix())
    if twin := found.get(name):
      raise ValueError(
        f"{path}: {twin.name} and {file.name} have one name ({name!r}): keep"
        " one of them"
      )
    if file.is_file():  # No pipes, no devices.
      found[name] = file
  return Folder(path, sounds, videos)


def composed(name: str) -> str:
  """Returns a name with accents as NFC has them; macOS takes them apart."""
  return unicodedata.normalize("NFC", name)


def plain(id_: str) -> str:
  """Returns the name of the file that is kept for a record of this id.

  It is the id where that is a plain path inside a folder; else other characters
  become "_", and a digest keeps ids apart that would have one name.
  """
  name = composed(id_)
  parts = [re.sub(r"[^\w.-]+", "_", part) for part in name.split("/")]
  parts = [part for part in parts if part.strip(".")]
  if (safe := "/".join(parts)) == name:
    return name
  return f"{safe}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True)
class Match:
  """Names on both sides, and those on one side alone.

  Attributes:
    pairs: name in the folder by id of the record.
    without_output: ids of records that the folder has no file for.
    without_truth: names of files that belong to no record.
  """

  pairs: Mapping[str, str]
  without_output: Sequence[str]
  without_truth: Sequence[str]

  def to_json(self) -> dict[str, Any]:
    """Returns counts and names."""
    return {
      side: {"count": len(names), "names": list(names)}
      for side, names in (
        ("without_output", self.without_output),
        ("without_truth", self.without_truth),
      )
    }

  def lines(self, output: str, truth: str) -> list[str]:
    """Says which files of either side are left out; none where all match."""
    out = []
    if self.without_output:
      out.append(
        f"{len(self.without_output)} clips of {truth} have no sound in"
        f" {output}: {first(self.without_output)}"
      )
    if self.without_truth:
      out.append(
        f"{len(self.without_truth)} files of {output} have no clip in {truth}:"
        f" {first(self.without_truth)}"
      )
    return out


def first(names: Sequence[str]) -> str:
  """Joins the first few names."""
  more = "" if len(names) <= _NAMED else ", …"
  return ", ".join(names[:_NAMED]) + more


def match(ids: Iterable[str], names: Iterable[str]) -> Match:
  """Matches ids of records with names of a `Folder`, as they are or `plain`.

  Of the takes that `v2a generate` writes to a folder for each video, the one
  that it ranks first stands for the clip.
  """
  left, pairs, missing = set(names), {}, []
  takes: dict[str, list[str]] = {}
  for name in sorted(left):
    if stem := takes_lib.stem_of(name):
      takes.setdefault(stem, []).append(name)
  for id_ in ids:
    own = takes.get(pathlib.PurePosixPath(composed(id_)).name, [])
    tried = (composed(id_), plain(id_), *own[:1])
    name = next((n for n in tried if n in left), None)
    if name is None:
      missing.append(id_)
    else:
      pairs[id_] = name
      left -= {name, *own}
  return Match(pairs, missing, sorted(left))


class FolderRecords(Sequence):
  """Media files as the records of a data set; read when they are asked for.

  Attributes:
    path: the folder of the true sounds.
    ids: the names of its files.
    digest: sha256 of the names.
  """

  def __init__(
    self,
    truth: Folder,
    *,
    videos: Folder | None = None,
    captions: str | os.PathLike | None = None,
  ):
    """Reads the table of captions, and no media.

    Args:
      truth: folder of the true sounds, or of videos with them.
      videos: folder of the pictures, for clips whose own file has none.
      captions: table of captions; see `data_pipelines.captions`.

    Raises:
      DataError: the table cannot be read.
    """
    self.path, self.ids = truth.path, truth.names
    self.digest = hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()
    self._truth, self._videos = truth, videos
    self._rows, self.notes = {}, []
    if captions:
      self._read_captions(captions)
    if videos and (strays := sorted({*videos.videos} - {*self.ids})):
      self.notes.append(
        f"{len(strays)} videos of {videos.path} belong to no clip:"
        f" {first(strays)}"
      )

  def _read_captions(self, path) -> None:
    by_file = {
      self._truth.sound(name).relative_to(self.path).as_posix(): name
      for name in self.ids
    }
    table = captions_lib.read_captions(path, list(by_file))
    self._rows = {by_file[file]: rows[0] for file, rows in table.rows.items()}
    self.notes.append(f"{path}: captions of {len(self._rows)} clips")
    if table.unmatched:
      names = [f"line {line}, {name!r}" for line, name, _ in table.unmatched]
      self.notes.append(
        f"{path}: {len(names)} rows belong to no clip: {first(names)}"
      )

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: int) -> dict[str, Any]:
    name = self.ids[index]
    row = self._rows.get(name) or caption_rows.Row(line=0)
    audio = files.read_bytes(self._truth.sound(name))
    return schema.make_record(
      id=name,
      audio=audio or b"\0",  # An empty file is refused by its reader.
      video=self._picture(name),
      # The sound's length decides, which is known when it is decoded.
      duration=_DAY,
      caption=row.caption,
      audio_caption=row.audio_caption,
      transcript=row.transcript,
      label=row.label,
    )

  def _picture(self, name: str) -> bytes:
    for folder in (self._truth, self._videos):
      file = folder and folder.videos.get(name)
      if file and _has_picture(file):
        return files.read_bytes(file)
    return b""


_DAY = 86_400.0


def _has_picture(file: pathlib.Path) -> bool:
  try:
    return media.probe_limited(file).has_video
  except media.MediaError:
    return False
