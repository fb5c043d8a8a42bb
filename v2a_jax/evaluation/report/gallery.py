"""The clips of a report: one video, many soundtracks, one playhead.

Media paths come from results.json, which may come from anyone: only files
inside its own folder are used.
"""

import base64
from collections.abc import Collection, Sequence
import dataclasses
import mimetypes
import pathlib
import shutil

import numpy as np

from v2a_jax import media
from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import is_remote
from v2a_jax.evaluation import previews, selection
from v2a_jax.evaluation.report import figures
from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.schema import GENERATED, GROUND_TRUTH, SHUFFLED

# Order of the soundtracks, and so of their keys 1, 2, ...; other rows follow.
_ORDER = (GROUND_TRUTH, GENERATED, "codec", SHUFFLED)
_RATE = 16_000  # Hz, of the spectrograms
# Where a page would be too large.
_SYNTHETIC = ("shifted", "metronome", "silence", "noise")
_SYNTHETIC_WORDS = "the shifted true sound, metronome, silence and noise"
_SMALL_RATE, _SMALL_SIDE, _SMALL_FPS = 64_000, 240, 30.0  # bit/s, pixels, Hz
_TYPES = {".m4a": "audio/mp4", ".mp4": "video/mp4", ".webm": "video/webm"}


@dataclasses.dataclass
class Track:
  """A soundtrack of a clip."""

  row: str  # of the results
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
  rank: str = ""  # among all clips that were scored
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
  """Collects clips that have media, from the worst to the best of the first run.

  Of more than `max_clips`, those are taken that are evenly spread over them.
  """
  ids = dict.fromkeys(
    clip["id"]
    for run in runs
    for clip in run["clips"]
    if clip.get("audio") or clip.get("video")
  )
  ids = selection.spread(selection.ranked([*ids], runs[0]), max_clips)
  clips = [_clip(id_, runs, columns, labels) for id_ in ids]
  ranks = selection.ranks(runs[0])
  for clip in clips:
    if rank := ranks.get(clip.id):
      clip.rank = f"{rank} of {len(ranks)} from the worst"
  return clips


def order_by(runs: Sequence[dict], columns: Sequence[Column]) -> str:
  """Returns the label of the metric that the clips are ordered by, "" for none."""
  id_ = selection.metric_of(runs[0])
  return next((column.label for column in columns if column.id == id_), "")


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
      colour = i if generated else None
      tracks.append(Track(row, label, colour, path, scores))
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
  paths = [clip.video for clip in clips if clip.video]
  paths += [track.path for track in tracks]
  images = sum(len(track.spectrogram) for track in tracks)
  images += sum(len(clip.poster) for clip in clips)
  return images + sum(4 * -(-f.stat().st_size // 3) for f in paths)


def fit(
  clips: Sequence[Clip], max_bytes: float, folder: pathlib.Path
) -> list[str]:
  """Makes the media of clips smaller until a page can hold them.

  First anchors that are the same in every report are left out, then sounds and
  pictures are encoded anew, then all anchors but the true sound are left out.

  Args:
    clips: the clips, which are changed.
    max_bytes: largest size of all their media in a page.
    folder: where encoded files are written.

  Returns:
    What was done, in words. The media may still be larger.
  """
  said = []

  def leave_out(rows: Collection[str], words: str) -> None:
    count = 0
    for clip in clips:
      kept = [
        t for t in clip.tracks if t.colour is not None or t.row not in rows
      ]
      count += len(clip.tracks) - len(kept)
      clip.tracks[:] = kept
    if count:
      said.append(f"{words} are left out of the gallery")

  def encode() -> None:
    small = _Encoder(folder)
    for clip in clips:
      clip.video = clip.video and small.video(clip.video)
      for track in clip.tracks:
        track.path = small.sound(track.path)
    said.append(
      f"sounds are AAC of {_SMALL_RATE // 1000} kbit/s, pictures of"
      f" {_SMALL_SIDE} pixels"
    )

  def anchors() -> None:
    rows = {t.row for clip in clips for t in clip.tracks} - {GROUND_TRUTH}
    leave_out(rows, "other anchors")

  for step in (
    lambda: leave_out(_SYNTHETIC, _SYNTHETIC_WORDS),
    encode,
    anchors,
  ):
    if embedded_size(clips) <= max_bytes:
      break
    step()
  return said


class _Encoder:
  """Encodes files anew, equal ones once, where that makes them smaller."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._done: dict[str, pathlib.Path] = {}

  def sound(self, path: pathlib.Path) -> pathlib.Path:
    def encode(out: pathlib.Path) -> None:
      rate = media.probe_limited(path).sample_rate or 48_000
      sound = media.limited(media.read_audio)(path, sample_rate=rate)
      media.encode_audio(
        out, sound.samples, sound.sample_rate, bit_rate=_SMALL_RATE
      )

    return self._smaller(path, ".m4a", encode)

  def video(self, path: pathlib.Path) -> pathlib.Path:
    def encode(out: pathlib.Path) -> None:
      previews.write_video(path, out, side=_SMALL_SIDE, max_fps=_SMALL_FPS)

    return self._smaller(path, ".mp4", encode)

  def _smaller(self, path, suffix: str, encode) -> pathlib.Path:
    digest = files.sha256_of(path)
    if digest not in self._done:
      out = self._folder / f"{len(self._done):04d}{suffix}"
      try:
        encode(out)
      except media.MediaError:
        out = path  # A note says so where it is to be heard.
      small = out.stat().st_size < path.stat().st_size
      self._done[digest] = out if small else path
    return self._done[digest]


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
  return _TYPES.get(path.suffix) or guess or "application/octet-stream"


def data_url(path: pathlib.Path | None) -> str:
  """Returns a media file as an address that holds it; "" for none."""
  return _encoded(_kind(path), files.read_bytes(path)) if path else ""


def _encoded(kind: str, data: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"
