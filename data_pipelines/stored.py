"""Media at the size that a model reads: the second of three speeds of reading.

A copy of a data set has its pictures at the loader's size and frame rate, as
H.264 with two key frames a second or uncompressed, and its sound at the codec's
rate: there is nothing left to scale and to resample. Uncompressed frames are
those that the loader would read from the source, bit for bit.
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

from data_pipelines import schema
from data_pipelines.manifest import read_manifest
from data_pipelines.window import Window
from v2a_jax import media

KEY = "stored"  # the manifest's entry
FORMS = ("h264", "raw", "none")
_GOP_SECONDS = 0.5
_CRF = 18


def facts_of(form: str, window: Window) -> dict[str, Any]:
  """Returns the manifest's entry of media in a form of `FORMS`."""
  return {
    "form": form,
    "fps": window.fps,
    "frame_size": list(window.frame_size),
    "sample_rate": window.sample_rate,
    "channels": window.channels,
  }


def shrink(
  record: Mapping[str, Any], form: str, window: Window
) -> dict[str, Any]:
  """Returns a record whose media are as a window needs them.

  Args:
    record: see `schema`.
    form: one of `FORMS`; `none` leaves the media out.
    window: shape of the loader's examples.

  Raises:
    MediaError: its media cannot be decoded, or H.264 has no such frame size.
  """
  if form == "none":
    return dict(record, video=b"", audio=b"")
  video, audio = b"", b""
  if record["video"]:
    frames = media.read_video(
      record["video"], max_fps=window.fps, size=window.frame_size
    )
    settings: dict[str, Any] = {"codec": "rawvideo"}
    if form == "h264":
      settings = {"crf": _CRF, "gop_seconds": _GOP_SECONDS}
    if len(frames.times):
      video = media.encode_video(frames.frames, frames.times, **settings)
  if record["audio"]:
    sound = media.read_audio(
      record["audio"],
      sample_rate=window.sample_rate,
      channels=window.channels,
    )
    audio = media.encode_flac(sound.samples, window.sample_rate)
  return dict(record, video=video, audio=audio)


def check(path: str | os.PathLike, window: Window, *, sound: bool) -> None:
  """Checks that a data set has the media that a window needs.

  Args:
    path: folder of the data set.
    window: shape of the examples.
    sound: whether sound is read.

  Raises:
    DataError: they were left out, or are smaller than what is read.
  """
  entry = read_manifest(path).get(KEY)
  if not entry:
    return
  if entry["form"] == "none" and (window.frames or sound):
    what = "pictures" if window.frames else "sound"
    raise schema.DataError(
      f"{path} has no {what}, which this run reads: they were left out by"
      " `v2a data precompute --media=none`; make it without, or read the source"
    )
  own = dataclasses.asdict(window)
  names = ["fps", "frame_size"] * window.frames
  for name in names + ["sample_rate", "channels"] * sound:
    has, wanted = entry[name], own[name]
    has = tuple(has) if isinstance(has, list) else has
    larger = (
      wanted > has
      if name != "frame_size"
      else max(a / b for a, b in zip(wanted, has)) > 1
    )
    if larger:
      raise schema.DataError(
        f"{path} holds {name}={has}, this run reads {wanted}: make it again with"
        " `v2a data precompute`, or read the source"
      )
