"""The clips of a report: one video, many soundtracks, one playhead.

Media paths come from results.json, which may come from anyone: only files
inside its own folder are used.
"""

import base64
from collections.abc import Sequence
import dataclasses
import mimetypes
import pathlib
import shutil

import numpy as np

from v2a_jax import media
from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import is_remote
from v2a_jax.evaluation.report import compare, figures
from v2a_jax.evaluation.report.columns import Column

# Order of the soundtracks, and so of their keys 1, 2, ...; other rows follow.
_ORDER = ("ground_truth", compare.GENERATED, "codec", "shuffled_video")
_RATE = 16_000  # Hz, of the spectrograms
_KINDS = {".m4a": "audio/mp4", ".mp4": "video/mp4", ".webm": "video/webm"}


@dataclasses.dataclass
class Track:
  """A soundtrack of a clip."""

  label: str
  colour: int | None  # of the run; None for an anchor
  path: pathlib.Path
  scores: list[tuple[str, str]]  # (label, value)
  spectrogram: str = ""  # data URL of an image
  note: str = ""  # why the sound cannot be read
  url: str = ""  # filled in by `attach`


@dataclasses.dataclass
class Clip:
  """A card of the gallery."""

  id: str
  caption: str
  transcript: str
  duration: float  # seconds
  events: list[float]  # reference times of the clip's sounds, seconds
  video: pathlib.Path | None
  tracks: list[Track]
  notes: list[str]  # what is missing
  video_url: str = ""  # filled in by `attach`

  @property
  def ticks(self) -> list[float]:
    """Positions of the events, percent of the duration."""
    return [
      round(100 * e / self.duration, 3)
      for e in self.events
      if 0 <= e <= self.duration
    ]


def collect(
  runs: Sequence[dict],
  columns: Sequence[Column],
  *,
  labels: dict[str, str],
  max_clips: int,
) -> list[Clip]:
  """Collects the first clips that have media, those of the first run first."""
  ids = dict.fromkeys(
    clip["id"]
    for run in runs
    for clip in run["clips"]
    if clip.get("audio") or clip.get("video")
  )
  return [_clip(id_, runs, columns, labels) for id_ in list(ids)[:max_clips]]


def _clip(id_, runs, columns, labels) -> Clip:
  entries = [
    (i, run, clip)
    for i, run in enumerate(runs)
    for clip in run["clips"]
    if clip["id"] == id_
  ]
  _, run, first = entries[0]
  notes = []
  video = inside(run["folder"], first.get("video"), notes)
  tracks = _tracks(entries, columns, labels, notes)
  duration = float(first.get("duration") or 0) or 1.0
  for track in tracks:
    _draw(track, duration)
  return Clip(
    id=id_,
    caption=first.get("caption") or "",
    transcript=first.get("transcript") or "",
    duration=duration,
    events=list(first.get("events") or []),
    video=video,
    tracks=tracks,
    notes=notes,
  )


def inside(folder: pathlib.Path, name: str | None, notes: list[str]):
  """Returns a file of a results folder, on this machine, or adds a note."""
  if not name:
    return None
  path = (folder / name).resolve()
  leaves = is_remote(folder) and ".." in pathlib.PurePosixPath(name).parts
  if leaves or not path.is_relative_to(folder.resolve()):
    notes.append(f"{name}: lies outside the results' folder, left out")
  elif not path.is_file():
    notes.append(f"{name}: no such file")
  else:
    return cache.fetch(path)
  return None


def _tracks(entries, columns, labels, notes) -> list[Track]:
  rows = dict.fromkeys(
    row for _, _, clip in entries for row in clip.get("audio") or ()
  )
  ordered = [row for row in _ORDER if row in rows]
  tracks, seen = [], set()
  for row in ordered + [row for row in rows if row not in _ORDER]:
    for i, run, clip in entries:
      path = inside(run["folder"], (clip.get("audio") or {}).get(row), notes)
      if path is None:
        continue
      digest = files.sha256_of(path)
      generated = row == compare.GENERATED
      if not generated and (row, digest) in seen:
        continue
      again = any(other == row for other, _ in seen)
      seen.add((row, digest))
      label = labels.get(row, row)
      if generated:
        label = run["name"]
      elif again or (len(entries) > 1 and row == compare.SHUFFLED):
        label = f"{label} · {run['name']}"
      values = clip.get("scores", {}).get(row, {})
      scores = [
        (c.label, c.format(values[c.id])) for c in columns if c.id in values
      ]
      tracks.append(Track(label, i if generated else None, path, scores))
  return tracks


def _draw(track: Track, duration: float) -> None:
  """Sets the track's spectrogram, or a note if its sound cannot be read."""
  try:
    sound = media.limited(media.read_audio)(
      track.path, sample_rate=_RATE, channels=1, duration=duration
    )
  except media.MediaError as error:
    track.note = f"no sound could be read: {error}"
    return
  samples = np.zeros(max(64, int(round(duration * _RATE))), np.float32)
  mono = sound.samples[: len(samples), 0]
  samples[: len(mono)] = mono
  image = figures.spectrogram(samples, _RATE)
  track.spectrogram = _encoded("image/webp", image)


def embedded_size(clips: Sequence[Clip]) -> int:
  """Returns the size of all media of the clips in a page, bytes."""
  tracks = [track for clip in clips for track in clip.tracks]
  paths = {clip.video for clip in clips if clip.video}
  paths |= {track.path for track in tracks}
  images = sum(len(track.spectrogram) for track in tracks)
  return images + sum(4 * -(-f.stat().st_size // 3) for f in paths)


def attach(clips: Sequence[Clip], folder: pathlib.Path | None) -> None:
  """Sets the addresses of media: in the page, or copied to a folder."""
  copied: dict[pathlib.Path, str] = {}

  def address(path: pathlib.Path) -> str:
    if folder is None:
      return data_url(path)
    if path not in copied:
      folder.mkdir(parents=True, exist_ok=True)
      # Runs may use one name for different files.
      name = f"{len(copied):04d}{path.suffix}"
      with files.written(folder / name) as part:
        shutil.copyfile(path, part)
      copied[path] = f"{folder.name}/{name}"
    return copied[path]

  for clip in clips:
    clip.video_url = address(clip.video) if clip.video else ""
    for track in clip.tracks:
      track.url = address(track.path)


def _kind(path: pathlib.Path) -> str:
  guess = mimetypes.guess_type(path.name)[0]
  return _KINDS.get(path.suffix) or guess or "application/octet-stream"


def data_url(path: pathlib.Path | None) -> str:
  """Returns a media file as an address that holds it; "" for none."""
  return _encoded(_kind(path), path.read_bytes()) if path else ""


def _encoded(kind: str, data: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"
