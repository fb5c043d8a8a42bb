"""Timelines for editing programs: pictures in a row, with their new sound.

A CMX 3600 edit decision list has the best sound of each picture; it is text of
numbered events, each with source and record times. OpenTimelineIO has a track
for every rank, of which the first is switched on
(https://opentimelineio.readthedocs.io).
"""

from collections.abc import Sequence
import dataclasses
from fractions import Fraction
import json
import pathlib
from typing import Any
from urllib import parse

from v2a_jax import media
from v2a_jax.basics import files

FORMATS = ("edl", "otio")
_MIDNIGHT = "00:00:00:00"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shot:
  """A picture and its soundtracks.

  Attributes:
    video: file of the picture.
    sounds: files of sound, the best first, as long as the picture.
    channels: number of channels of each sound.
    fps: frames a second.
    timecode: code of the first frame; "" for midnight.
    seconds: length of the picture.
    cuts: seconds at which shots in the picture begin, but for the first.
  """

  video: pathlib.Path
  sounds: tuple[pathlib.Path, ...]
  channels: int
  fps: float
  timecode: str
  seconds: Fraction
  cuts: tuple[float, ...] = ()

  @property
  def start(self) -> media.Timecode:
    """Code of the first frame."""
    return start_of(self.timecode, self.fps)

  @property
  def frames(self) -> int:
    """Number of whole frames, at least one."""
    return max(int(self.seconds * media.frame_rate(self.fps)), 1)

  @property
  def parts(self) -> list[tuple[int, int]]:
    """First frame, and frame after the last, of each shot in the picture."""
    rate = media.frame_rate(self.fps)
    cuts = {min(round(cut * rate), self.frames) for cut in self.cuts}
    edges = sorted({0, *cuts, self.frames})
    return list(zip(edges, edges[1:]))


def start_of(timecode: str, fps: float) -> media.Timecode:
  """Returns the code of a first frame; midnight if it has no usable one."""
  try:
    return media.Timecode.parse(timecode, fps)
  except ValueError:
    return media.Timecode.parse(_MIDNIGHT, fps)


def together(shots: Sequence[Shot]) -> list[Shot]:
  """Returns shots, those of one picture and length as one with all sounds."""
  found: dict[tuple[pathlib.Path, Fraction], Shot] = {}
  for shot in shots:
    key = shot.video, shot.seconds
    sounds = found[key].sounds if key in found else ()
    first = found.get(key, shot)
    found[key] = dataclasses.replace(first, sounds=(*sounds, *shot.sounds))
  return list(found.values())


def write(
  path: pathlib.Path, shots: Sequence[Shot], title: str
) -> pathlib.Path:
  """Writes shots one after another, as the suffix says: .edl or .otio.

  A picture with cuts is an event, or a clip, for each of its shots.

  The first shot's time code is the timeline's, and its frame rate.

  Raises:
    ModuleNotFoundError: OpenTimelineIO is not installed.
    OSError: the file cannot be written.
  """
  if path.suffix == ".edl":
    files.write_whole(path, _edl(shots, title))
  else:
    files.write_whole(path, _otio(path.parent, shots, title))
  return path


def bare(text: str) -> str:
  """Returns an OpenTimelineIO file without the folders of files elsewhere.

  Those beside the timeline, or below it, stay where they are.
  """

  def shorten(part: dict[str, Any]) -> dict[str, Any]:
    url = part.get("target_url")
    if isinstance(url, str) and url.startswith("file:"):
      part["target_url"] = url.rpartition("/")[2]
    return part

  return json.dumps(json.loads(text, object_hook=shorten), indent=4)


def _edl(shots: Sequence[Shot], title: str) -> str:
  record = shots[0].start
  kind = "DROP FRAME" if record.drop else "NON-DROP FRAME"
  lines = [f"TITLE: {_line(title)}", f"FCM: {kind}", ""]
  number = 0
  for shot in shots:
    total = _frames(shot, record)
    events = [("V", shot.video, part) for part in shot.parts]
    if shot.sounds:
      channel = "AA" if shot.channels > 1 else "A"
      events.append((channel, shot.sounds[0], (0, shot.frames)))
    for channel, file, part in events:
      number += 1
      source = [shot.start.plus(frame) for frame in part]
      placed = [record.plus(round(x * total / shot.frames)) for x in part]
      span = " ".join(map(str, source + placed))
      lines.append(f"{number:03d}  AX       {channel:<5} C        {span}")
      lines.append(f"* FROM CLIP NAME: {_line(file.name)}")
    record = record.plus(total)
  return "\n".join([*lines, ""])


def _frames(shot: Shot, record: media.Timecode) -> int:
  """Returns a shot's length in frames of the timeline."""
  if shot.start.rate == record.rate:
    return shot.frames
  return max(round(shot.seconds * record.rate), 1)


def _line(text: str) -> str:
  return " ".join(text.split())


def _otio(folder: pathlib.Path, shots: Sequence[Shot], title: str) -> str:
  import opentimelineio as otio

  time, span = otio.opentime.RationalTime, otio.opentime.TimeRange
  first = shots[0].start
  timeline = otio.schema.Timeline(
    title, global_start_time=time(first.frames, float(first.rate))
  )

  def clip(file: pathlib.Path, shot: Shot, part: tuple[int, int]):
    rate = float(shot.start.rate)
    whole = span(time(shot.start.frames, rate), time(shot.frames, rate))
    begin, end = part
    used = span(time(shot.start.frames + begin, rate), time(end - begin, rate))
    url = file.absolute().as_uri()
    if file.is_relative_to(folder):
      url = parse.quote(file.relative_to(folder).as_posix())
    reference = otio.schema.ExternalReference(url, available_range=whole)
    return otio.schema.Clip(file.name, reference, used)

  def track(kind, name, row):
    track = otio.schema.Track(name, kind=kind)
    for file, shot, part in row:
      if file is None:
        gap = time(shot.frames, float(shot.start.rate))
        track.append(otio.schema.Gap(duration=gap))
      else:
        track.append(clip(file, shot, part))
    timeline.tracks.append(track)
    return track

  kinds = otio.schema.TrackKind
  track(
    kinds.Video,
    "picture",
    [(shot.video, shot, part) for shot in shots for part in shot.parts],
  )
  for rank in range(max(len(shot.sounds) for shot in shots)):
    row = [
      (sound, shot, (0, shot.frames))
      for shot in shots
      for sound in [shot.sounds[rank] if rank < len(shot.sounds) else None]
    ]
    track(kinds.Audio, f"take {rank + 1}", row).enabled = rank == 0
  return otio.adapters.write_to_string(timeline, "otio_json")
