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
from v2a_jax.evaluation.report import figures
from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.schema import (
  GENERATED,
  GROUND_TRUTH,
  SHUFFLED,
  is_finite,
)

# Order of the soundtracks, and so of their keys 1, 2, ...; other rows follow.
_ORDER = (GROUND_TRUTH, GENERATED, "codec", SHUFFLED)
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
  poster: str = ""  # data URL of an image
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
  """Collects clips that have media, from the worst to the best.

  Of more than `max_clips`, those are taken that are evenly spread over them.
  """
  ids = dict.fromkeys(
    clip["id"]
    for run in runs
    for clip in run["clips"]
    if clip.get("audio") or clip.get("video")
  )
  ids = _ranked(list(ids), runs, order_by(runs, columns))
  if len(ids) > max_clips:
    places = np.linspace(0, len(ids) - 1, max_clips).round().astype(int)
    ids = [ids[place] for place in places]
  return [_clip(id_, runs, columns, labels) for id_ in ids]


def order_by(runs: Sequence[dict], columns: Sequence[Column]) -> Column | None:
  """Returns the metric that the clips are in the order of; None for none.

  It is the first of timing, or else of quality, that the clips of the first run
  have each.
  """
  known = [
    column
    for column in columns
    if column.role == "quality"
    and column.higher_is_better is not None
    and len(set(_scores(runs[0], column).values())) > 1
  ]
  timing = [column for column in known if column.judges_timing]
  return next(iter(timing + known), None)


def _scores(run: dict, column: Column) -> dict[str, float]:
  """Returns the scores of a run's sounds by clip, those that are numbers."""
  found = {
    clip["id"]: clip.get("scores", {}).get(GENERATED, {}).get(column.id)
    for clip in run["clips"]
  }
  return {id_: value for id_, value in found.items() if is_finite(value)}


def _ranked(
  ids: list[str], runs: Sequence[dict], column: Column | None
) -> list[str]:
  """Sorts clips by the first run's score, worst first; those without go last."""
  if column is None:
    return ids
  scores = _scores(runs[0], column)
  sign = 1 if column.higher_is_better else -1
  return sorted(ids, key=lambda id_: sign * scores.get(id_, sign * np.inf))


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
    poster=_poster(video, duration),
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
      generated = row == GENERATED
      if not generated and (row, digest) in seen:
        continue
      again = any(other == row for other, _ in seen)
      seen.add((row, digest))
      label = labels.get(row, row)
      if generated:
        label = run["name"]
      elif again or (len(entries) > 1 and row == SHUFFLED):
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


def _poster(video: pathlib.Path | None, duration: float) -> str:
  """Returns the frame in the middle of a video; "" if it cannot be read."""
  if video is None:
    return ""
  read = media.limited(media.read_video)
  try:
    frames = read(video, start=duration / 2, max_fps=1).frames
  except media.MediaError:
    return ""
  if not len(frames):
    return ""
  return _encoded("image/webp", figures.webp(frames[0][..., ::-1]))


def embedded_size(clips: Sequence[Clip]) -> int:
  """Returns the size of all media of the clips in a page, bytes."""
  tracks = [track for clip in clips for track in clip.tracks]
  paths = {clip.video for clip in clips if clip.video}
  paths |= {track.path for track in tracks}
  images = sum(len(track.spectrogram) for track in tracks)
  images += sum(len(clip.poster) for clip in clips)
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
