"""Delivery of takes: a folder of files, timelines, the sidecar.

For `clip.mp4` and a folder `out/`:

  out/clip/clip__c01_s0007.mp4   picture copied packet by packet, new sound
  out/clip/clip__c01_s0007.wav   the same sound, Broadcast Wave, 24 bit
  out/clip/clip.json             every resolved setting, score and digest

and if asked for, a timeline (.edl, .otio), stems: the layers (…__music.wav) and
the new sound alone where the original was mixed in (…__new.wav), and everything
in one file (clip.zip).

Candidates are numbered by rank; s is the seed. How each is written is in
`take_files`. The sidecar is written last but for the zip file. While a folder is
written, it says so itself (`places.writing`).
"""

from collections.abc import Callable, Mapping
import dataclasses
from fractions import Fraction
import pathlib
import platform
from typing import Any
import zipfile

import jax

import v2a_jax
from v2a_jax import media, watermark
from v2a_jax.basics import files
from v2a_jax.soundtrack import (
  places,
  provenance,
  scoring,
  take_files,
  timeline,
)
from v2a_jax.soundtrack.options import DeliveryOptions


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
    ProvenanceError: who is named to sign cannot.
    ModuleNotFoundError: OpenTimelineIO or C2PA is asked for and not installed.
  """
  if options.sign:
    provenance.signer()
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
      where there is one of another video or request (`places.writing`).
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
  with places.writing(directory, stem, described) as folder:
    return _write(takes, folder, info, options, described, key, on_file)


def _write(
  takes, folder, info, options: DeliveryOptions, described, key, on_file
) -> Delivery:
  """Writes all files into a folder; the arguments are those of `deliver`."""
  stem = places.stem_of(takes.video)
  source = take_files.Source.read(takes, info, options)
  rows = []
  for rank, take in enumerate(takes.candidates[: options.keep], start=1):
    base = folder / f"{stem}__c{rank:02d}_s{take.seed:04d}"
    row = take_files.write(take, rank, base, source, options, key=key)
    rows.append(row)
    on_file(folder / row["video"])
  picture = {
    "fps": info.fps,
    "timecode": info.timecode,
    "seconds": str(takes.seconds),
    "cuts": list(takes.cuts),
  }
  shot = _shot(takes.video, folder, picture, rows)
  for name in options.timeline:
    timeline.write(folder / f"{stem}.{name}", [shot], stem)
  sidecar = folder / f"{stem}.json"
  described |= {"chosen_by": _chosen_by(takes), "picture": picture}
  described |= {"candidates": rows}
  described |= {"rejected": [dict(row) for row in takes.rejected]}
  files.write_json(sidecar, described)
  if options.zip:
    names = places.names(stem, described)
    _zip(folder / f"{stem}.zip", folder, names)
  return Delivery(
    videos=tuple(folder / row["video"] for row in rows),
    waves=shot.sounds,
    sidecar=sidecar,
    rows=tuple(rows),
    shot=shot,
  )


def _chosen_by(takes) -> dict[str, str]:
  """Returns the scores that chose takes, and their networks.

  Takes that were made one by one still have those that rejected others.
  """
  names = list(takes.request.rank_by)
  for take in takes.candidates:
    names += [name for name in take.scores if name not in scoring.ALWAYS]
  return scoring.networks(names, takes.request.clap)


def _shot(video, folder, picture, rows) -> timeline.Shot:
  return timeline.Shot(
    video=video,
    sounds=tuple(folder / row["wave"] for row in rows),
    channels=rows[0]["channels"],
    fps=picture["fps"],
    timecode=picture["timecode"],
    seconds=Fraction(picture["seconds"]),
    cuts=tuple(picture["cuts"]),
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
  digest = watermark.key_digest(key) if options.mark else ""
  return dataclasses.asdict(options) | {"key_digest": digest}


def _zip(path, folder, names) -> None:
  """Puts files of a folder into one, without compressing them again."""
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
    "ranked_by": request.score_name,
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
