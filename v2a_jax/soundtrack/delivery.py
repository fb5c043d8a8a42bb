"""Delivery of takes: level, watermark, true peak, files, sidecar.

For `clip.mp4` and a folder `out/`:

  out/clip/clip__c01_s0007.mp4   picture copied packet by packet, new sound
  out/clip/clip__c01_s0007.wav   the same sound, Broadcast Wave, 24 bit
  out/clip/clip.json             every resolved setting, score and digest

and if asked for, a timeline (.edl, .otio), stems: the layers (…__music.wav) and
the new sound alone where the original was mixed in (…__new.wav), and everything
in one file (clip.zip).

Candidates are numbered by rank; s is the seed. The order is sample rate, mix,
level, watermark, true peak, write; then the video file is decoded, its level
and true peak are measured and the mark is looked for in it. The sidecar is
written last, so it says that everything before it is there.
"""

from collections.abc import Callable, Mapping
import dataclasses
import datetime
from fractions import Fraction
import functools
import hashlib
import pathlib
import platform
from typing import Any
import zipfile

import jax
import numpy as np
import soxr

import v2a_jax
from v2a_jax import media, watermark
from v2a_jax.basics import files
from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.media.track import fit_length
from v2a_jax.soundtrack import loudness as loud
from v2a_jax.soundtrack import mixing, places, timeline

CONTAINERS = ("mp4", "mov", "mkv")
CODECS = ("aac", "pcm", "flac")
_BITS = 24
_TRIES = 4  # of a lossy codec to keep loudness and true peak
_PEAK_SLACK, _LOUDNESS_SLACK = 0.02, 0.2  # dB and LU, of that


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
  """How soundtracks are written.

  Attributes:
    keep: number of candidates to write, the best ones; None for all.
    sample_rate: sample rate of what is written in Hz.
    loudness: integrated loudness in LUFS, such as -23; None as generated.
    true_peak: highest true peak in dBTP.
    container: mp4, mov or mkv; another one where it cannot hold the picture.
    audio_codec: sound of video files: aac, or lossless pcm or flac.
    sound_file: file of the sound alone: wav (Broadcast Wave) or flac.
    original: what becomes of the video's own sound: "" drops it, mix adds the
      new sound to it, duck also turns the new sound down while it is heard.
    original_level: change of the original's level in dB.
    duck: how far the new sound is turned down in dB.
    timeline: timelines to write: edl (CMX 3600), otio (OpenTimelineIO).
    zip: whether everything is put into one zip file as well.
    payload: 16 bits that the watermark carries.
    mark: whether there is a watermark.
  """

  keep: int | None = None
  sample_rate: int = 48_000
  loudness: float | None = None
  true_peak: float = loud.PEAK
  container: str = "mp4"
  audio_codec: str = "aac"
  sound_file: str = "wav"
  original: str = ""
  original_level: float = 0.0
  duck: float = 12.0
  timeline: tuple[str, ...] = ()
  zip: bool = False
  payload: int = 0
  mark: bool = True

  def __post_init__(self):
    check(
      self,
      keep="[1, inf)",
      sample_rate="[8000, 192000]",
      loudness="[-70, 0]",
      true_peak="[-40, 0]",
      original_level="[-60, 20]",
      duck="[0, 60]",
      payload="[0, 65535]",
    )
    choose(
      self,
      container=CONTAINERS,
      audio_codec=CODECS,
      sound_file=("wav", "flac"),
      original=mixing.MODES,
      zip=(False, True),
      mark=(False, True),
    )
    for name in self.timeline:
      if name not in timeline.FORMATS:
        raise SettingError(
          f"timeline={name!r} is not one of {', '.join(timeline.FORMATS)}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
  """What was written, the best candidate first.

  Attributes:
    videos: muxed files.
    waves: files of the sound alone.
    sidecar: the JSON file.
    rows: what the sidecar says of each candidate.
    shot: the picture and its sounds, for a timeline of several videos.
  """

  videos: tuple[pathlib.Path, ...]
  waves: tuple[pathlib.Path, ...]
  sidecar: pathlib.Path
  rows: tuple[Mapping[str, Any], ...]
  shot: timeline.Shot


def check_source(
  video: pathlib.Path, options: DeliveryOptions, limits: media.Limits
) -> media.MediaInfo:
  """Refuses, before any work, a video that cannot be delivered so.

  Raises:
    MediaError: it has no sound to mix with, or cannot be read.
    ValueError: no file can be named after it.
    ModuleNotFoundError: OpenTimelineIO is asked for and not installed.
  """
  places.stem_of(video)
  if "otio" in options.timeline:
    import opentimelineio  # noqa: F401
  info = media.probe_limited(video, limits=limits)
  if options.original and not info.has_audio:
    raise media.MediaError(
      str(video), f"has no sound to {options.original} with", "leave it out"
    )
  return info


def deliver(
  takes,
  directory: pathlib.Path,
  options: DeliveryOptions,
  *,
  key: str | None = None,
  on_file: Callable[[pathlib.Path], None] = lambda path: None,
) -> Delivery:
  """Writes candidates and the sidecar.

  Args:
    takes: `Soundtracks` of a `Soundtracker`.
    directory: a folder named after the video is made in it, with a number
      where there is one of another video or request (`places.folder_for`).
    options: how they are written.
    key: key of the watermark; None for that of the environment, or the public
      one.
    on_file: called with each path as it is finished.

  Raises:
    MediaError: a file cannot be written; what was finished stays.
    ValueError: no file can be named after the video.
  """
  info = check_source(takes.video, options, takes.limits)
  stem = places.stem_of(takes.video)
  described = describe(takes.video, takes.request, takes.model)
  described |= {"delivery": _options_of(options, key)}
  folder = places.folder_for(directory, stem, described)
  source = _Source.read(takes, info, options)
  rows = []
  for rank, take in enumerate(takes.candidates[: options.keep], start=1):
    base = folder / f"{stem}__c{rank:02d}_s{take.seed:04d}"
    row = _write(take, rank, base, source, options, key=key)
    rows.append(row)
    on_file(folder / row["video"])
  picture = {
    "fps": info.fps,
    "timecode": info.timecode,
    "seconds": str(takes.seconds),
  }
  shot = _shot(takes.video, folder, picture, rows)
  for name in options.timeline:
    timeline.write(folder / f"{stem}.{name}", [shot], stem)
  sidecar = folder / f"{stem}.json"
  files.write_json(
    sidecar,
    described
    | {"picture": picture, "candidates": rows}
    | {"rejected": [dict(row) for row in takes.rejected]},
  )
  if options.zip:
    _zip(folder / f"{stem}.zip", folder, stem, rows, options)
  return Delivery(
    videos=tuple(folder / row["video"] for row in rows),
    waves=shot.sounds,
    sidecar=sidecar,
    rows=tuple(rows),
    shot=shot,
  )


def _shot(video, folder, picture, rows) -> timeline.Shot:
  return timeline.Shot(
    video=video,
    sounds=tuple(folder / row["wave"] for row in rows),
    channels=rows[0]["channels"],
    fps=picture["fps"],
    timecode=picture["timecode"],
    seconds=Fraction(picture["seconds"]),
  )


def existing(
  video: pathlib.Path,
  request,
  model: Mapping[str, Any],
  directory: pathlib.Path,
  options: DeliveryOptions,
  *,
  key: str | None = None,
) -> timeline.Shot | None:
  """Finds what a whole earlier delivery of the same request has written."""
  described = describe(video, request, model)
  described |= {"delivery": _options_of(options, key)}
  stem = places.stem_of(video)
  folder = places.find(directory, stem, described)
  if folder is None:
    return None
  found = files.read_json(folder / f"{stem}.json")
  return _shot(video, folder, found["picture"], found["candidates"])


def _options_of(options: DeliveryOptions, key) -> dict[str, Any]:
  return dataclasses.asdict(options) | {"own_key": key is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
  """The video that takes are for.

  Attributes:
    takes: all takes.
    info: what the video file says.
    original: its own sound at the delivered rate, float32 [t channels]; None
      if it is dropped.
    created: when the sound was made.
  """

  takes: Any
  info: media.MediaInfo
  original: np.ndarray | None
  created: datetime.datetime

  @classmethod
  def read(cls, takes, info, options: DeliveryOptions) -> "_Source":
    original = None
    if options.original:
      original = _heard(takes.video, options.sample_rate, takes)
    now = datetime.datetime.now()
    return cls(takes=takes, info=info, original=original, created=now)


def _heard(path, sample_rate: int, takes) -> np.ndarray:
  read = media.limited(media.read_audio)
  duration = float(takes.seconds)
  return read(
    path, sample_rate=sample_rate, duration=duration, limits=takes.limits
  ).samples


def _write(take, rank: int, base, source: _Source, options, *, key) -> dict:
  """Writes one candidate; returns its row of the sidecar."""
  rate, takes = options.sample_rate, source.takes
  new = _at_rate(take.samples, take.sample_rate, rate, takes.seconds)
  finish = functools.partial(
    _finish, rate=rate, options=options, key=key, loudness=options.loudness
  )
  row = {"rank": rank, "seed": take.seed, "score": take.score}
  row |= {"scores": dict(take.scores), "rejected": take.rejected}
  row |= {"heard": dict(take.heard)}
  samples, sounds = new, {}
  for kind, part in take.layers.items():
    part = _at_rate(part, take.sample_rate, rate, takes.seconds)
    sounds[kind] = finish(
      part * loud.gain(new, rate, options.loudness), loudness=None
    )
  if source.original is not None:
    sounds["new"] = finish(new)
    samples = mixing.mix(
      new,
      source.original,
      rate,
      mode=options.original,
      original_level=options.original_level,
      duck=options.duck,
    )
  row["stems"] = {}
  for kind, sound in sounds.items():
    stem = base.with_name(f"{base.name}__{kind}.{options.sound_file}")
    _write_sound(stem, sound, rank, source, options)
    row["stems"][kind] = stem.name
  samples = finish(samples)
  wave = base.with_name(f"{base.name}.{options.sound_file}")
  _write_sound(wave, samples, rank, source, options)
  muxed, heard = _mux(samples, base, source, options)
  row |= {
    "video": muxed.name,
    "wave": wave.name,
    "channels": samples.shape[1],
    **_measured(samples, rate),
    **{f"video_{k}": v for k, v in _measured(heard, rate).items()},
    "sha256_samples": hashlib.sha256(samples.tobytes()).hexdigest(),
    "watermark": None,
  }
  if options.mark:
    found = watermark.detect(heard, rate, key=key)
    row["watermark"] = dataclasses.asdict(found)
  return row


def _at_rate(samples, rate: int, wanted: int, seconds) -> np.ndarray:
  """Returns samples at another rate, as long as the picture to the sample."""
  if rate != wanted:
    samples = soxr.resample(samples, rate, wanted, quality="VHQ")
  return fit_length(np.asarray(samples, np.float32), round(seconds * wanted))


def _finish(
  samples, *, rate: int, options: DeliveryOptions, key, loudness: float | None
) -> np.ndarray:
  """Brings samples to their level and marks them."""
  level = functools.partial(
    loud.level,
    sample_rate=rate,
    loudness=loudness,
    peak=options.true_peak,
  )
  samples = level(samples)
  if options.mark:
    # After the level, because it fills silence up to a level of its own.
    marked = watermark.embed(samples, rate, key=key, payload=options.payload)
    samples = level(marked)
  return np.clip(samples, -1.0, 1.0)


def _measured(samples: np.ndarray, rate: int) -> dict[str, float | None]:
  """Returns loudness and true peak; the loudness of short sound is None."""
  found = loud.integrated(samples, rate)
  return {
    "loudness_lufs": None if found is None else round(found, 2),
    "true_peak_dbtp": round(loud.true_peak(samples, rate), 2),
  }


def _write_sound(path, samples, rank: int, source: _Source, options) -> None:
  """Writes a sound as Broadcast Wave, or FLAC, of 24 bits."""
  rate, takes = options.sample_rate, source.takes
  if options.sound_file == "flac":
    media.encode_audio(path, samples, rate, bits=_BITS)
    return
  measured, info = _measured(samples, rate), source.info
  layout = "mono" if samples.shape[1] == 1 else "stereo"
  prompt = takes.request.prompt
  broadcast = media.Broadcast(
    description=f"{takes.video.name} {prompt}".strip(),
    originator=f"v2a_jax {v2a_jax.__version__}",
    reference=path.stem,
    created=source.created,
    start=timeline.start_of(info.timecode, info.fps),
    project=takes.video.stem,
    scene=takes.video.stem,
    take=rank,
    note=f"generated from the picture. {prompt}".strip(),
    loudness=measured["loudness_lufs"],
    true_peak=measured["true_peak_dbtp"],
    history=f"A=PCM,F={rate},W={_BITS},M={layout},T=v2a_jax generated\r\n",
  )
  media.write_wav(path, samples, rate, bits=_BITS, broadcast=broadcast)


def _mux(samples, base, source: _Source, options: DeliveryOptions):
  """Writes the video; returns its path, and its sound as it is heard.

  A lossy codec moves peaks, and may take away treble. Where it leaves the
  loudness or the true peak that are asked for, it is given as much more or less.
  """
  takes, rate = source.takes, options.sample_rate
  target = options.loudness and loud.integrated(samples, rate)
  given, trim, peak = samples, 0.0, options.true_peak
  for _ in range(_TRIES):
    muxed = media.mux(
      takes.video,
      given,
      sample_rate=rate,
      out=base.with_name(f"{base.name}.{options.container}"),
      audio_codec=options.audio_codec,
      limits=takes.limits,
    )
    heard = _heard(muxed, rate, takes)
    over = loud.true_peak(heard, rate) - options.true_peak
    found = target and loud.integrated(heard, rate)
    less = target - found if found else 0.0
    if over <= _PEAK_SLACK and abs(less) <= _LOUDNESS_SLACK:
      break
    peak -= max(over, 0.0)
    trim += less
    given = loud.limit(samples * np.float32(10 ** (trim / 20)), rate, peak=peak)
  return muxed, heard


def _zip(path, folder, stem: str, rows, options: DeliveryOptions) -> None:
  """Puts what was written into one file, without compressing it again."""
  names = [row[k] for row in rows for k in ("video", "wave")]
  names += [name for row in rows for name in row["stems"].values()]
  names += [f"{stem}.{name}" for name in (*options.timeline, "json")]
  with files.written(path) as part:
    with zipfile.ZipFile(part, "w") as archive:
      for name in names:
        archive.write(folder / name, f"{folder.name}/{name}")


def describe(video, request, model) -> dict:
  """Returns all that decided the sound, for the sidecar."""
  return {
    "video": str(video),
    "video_sha256": _digest(video),
    "audio_sha256": _digest(request.audio),
    "like_sha256": _digest(request.like),
    "request": dataclasses.asdict(request),
    "model": model,
    "score": request.score_name,
    "software": {
      "v2a_jax": v2a_jax.__version__,
      "jax": jax.__version__,
      "python": platform.python_version(),
      "device": jax.devices()[0].device_kind,
    },
  }


def _digest(path) -> str:
  """Returns the sha256 of a file, "" of none."""
  return files.sha256_of(path) if path else ""
