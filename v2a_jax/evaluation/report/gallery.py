"""The clips of a report: one picture, many soundtracks, on one clock.

Media paths come from results.json, which may come from anyone: only files
inside its own folder are taken.
"""

import base64
from collections.abc import Sequence
import dataclasses
import hashlib
import mimetypes
import pathlib
import shutil

import numpy as np

from v2a_jax import media
from v2a_jax.evaluation.report import compare, figures

# What is heard first, and so has the key 1. Rows that are not named here
# come after these.
_ORDER = ("ground_truth", compare.GENERATED, "codec", "shuffled_video")
_RATE = 16_000  # Hz, of the spectrograms
_KINDS = {".m4a": "audio/mp4", ".mp4": "video/mp4", ".webm": "video/webm"}


@dataclasses.dataclass
class Track:
  """A soundtrack of a clip; `url` is filled in by `attach`."""

  label: str
  colour: int | None
  path: pathlib.Path
  scores: list[tuple[str, str]]
  spectrogram: str = ""
  note: str = ""
  url: str = ""


@dataclasses.dataclass
class Clip:
  """A card of the gallery; times are fractions of `duration` seconds."""

  id: str
  caption: str
  transcript: str
  duration: float
  events: list[float]
  video: pathlib.Path | None
  tracks: list[Track]
  notes: list[str]
  video_url: str = ""

  @property
  def ticks(self) -> list[float]:
    """Where the events lie, in percent."""
    return [
      round(100 * e / self.duration, 3)
      for e in self.events
      if 0 <= e <= self.duration
    ]


def collect(
  runs: Sequence[dict],
  metrics: Sequence[compare.Metric],
  *,
  labels: dict[str, str],
  max_clips: int,
) -> list[Clip]:
  """The first clips with something to play, those of the first run first."""
  ids = dict.fromkeys(
    clip["id"]
    for run in runs
    for clip in run["clips"]
    if clip.get("audio") or clip.get("video")
  )
  return [_clip(id_, runs, metrics, labels) for id_ in list(ids)[:max_clips]]


def _clip(id_, runs, metrics, labels) -> Clip:
  found = [
    (i, run, clip)
    for i, run in enumerate(runs)
    for clip in run["clips"]
    if clip["id"] == id_
  ]
  _, run, first = found[0]
  notes = []
  video = _inside(run["folder"], first.get("video"), notes)
  tracks = _tracks(found, metrics, labels, notes)
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


def _inside(folder: pathlib.Path, name: str | None, notes: list[str]):
  """The file `name` of a results folder, or None and a note."""
  if not name:
    return None
  path = (folder / name).resolve()
  if not path.is_relative_to(folder.resolve()):
    notes.append(f"{name}: lies outside the results' folder, left out")
  elif not path.is_file():
    notes.append(f"{name}: no such file")
  else:
    return path
  return None


def _tracks(found, metrics, labels, notes) -> list[Track]:
  rows = dict.fromkeys(
    row for _, _, clip in found for row in clip.get("audio") or ()
  )
  known = [row for row in _ORDER if row in rows]
  tracks, seen = [], {}
  for row in known + [row for row in rows if row not in _ORDER]:
    for i, run, clip in found:
      path = _inside(run["folder"], (clip.get("audio") or {}).get(row), notes)
      if path is None:
        continue
      digest = hashlib.sha256(path.read_bytes()).hexdigest()
      generated = row == compare.GENERATED
      if not generated and (row, digest) in seen:
        continue
      again = any(other == row for other, _ in seen)
      seen[row, digest] = True
      label = labels.get(row, row)
      if generated:
        label = run["name"]
      elif again or (len(found) > 1 and row == compare.SHUFFLED):
        label = f"{label} · {run['name']}"
      scores = clip.get("scores", {}).get(row, {})
      colour = i if generated else None
      tracks.append(Track(label, colour, path, _scores(scores, metrics)))
  return tracks


def _scores(scores: dict, metrics) -> list[tuple[str, str]]:
  return [(m.label, m.format(scores[m.id])) for m in metrics if m.id in scores]


def _draw(track: Track, duration: float) -> None:
  try:
    sound = media.read_audio(
      track.path, sample_rate=_RATE, channels=1, duration=duration
    )
  except media.MediaError as error:
    track.note = f"no sound could be read: {error}"
    return
  samples = np.zeros(max(64, int(round(duration * _RATE))), np.float32)
  heard = sound.samples[: len(samples), 0]
  samples[: len(heard)] = heard
  png = figures.spectrogram_png(samples, _RATE)
  track.spectrogram = _data_url("image/png", png)


def embedded_size(clips: Sequence[Clip]) -> int:
  """Bytes of a page that holds all media of the clips."""
  files = {path for clip in clips for path in _files(clip)}
  pictures = sum(len(t.spectrogram) for clip in clips for t in clip.tracks)
  return pictures + sum(4 * -(-f.stat().st_size // 3) for f in files)


def _files(clip: Clip) -> list[pathlib.Path]:
  own = [clip.video] if clip.video else []
  return own + [track.path for track in clip.tracks]


def attach(clips: Sequence[Clip], folder: pathlib.Path | None) -> None:
  """Gives every video and track its address.

  Args:
    clips: to be changed.
    folder: beside the page, into which media are copied; None puts them into
      the page.
  """
  copied: dict[pathlib.Path, str] = {}

  def address(path: pathlib.Path) -> str:
    if folder is None:
      return _data_url(_kind(path), path.read_bytes())
    if path not in copied:
      folder.mkdir(parents=True, exist_ok=True)
      # Runs may use one name for different files.
      name = f"{len(copied):04d}{path.suffix}"
      shutil.copyfile(path, folder / name)
      copied[path] = f"{folder.name}/{name}"
    return copied[path]

  for clip in clips:
    clip.video_url = address(clip.video) if clip.video else ""
    for track in clip.tracks:
      track.url = address(track.path)


def _kind(path: pathlib.Path) -> str:
  guess = mimetypes.guess_type(path.name)[0]
  return _KINDS.get(path.suffix) or guess or "application/octet-stream"


def _data_url(kind: str, data: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"
