"""What results.json holds besides the figures: identity, curve and media.

The layout is described in docs/architecture.md.
"""

from collections.abc import Iterator, Mapping
from importlib import metadata
import json
import math
import os
import pathlib
import re
import subprocess
from typing import Any

import numpy as np

from v2a_jax import media
from v2a_jax.evaluation.clips import Clip

SCHEMA = 1
FILE = "results.json"
_PACKAGES = (
  "jax flax numpy scipy librosa mir_eval opencv-python-headless soxr av"
).split()
_CURVE_POINTS = 400
_GALLERY_SIDE = 360
_SLACK = 0.05


def code_identity() -> dict[str, Any]:
  """The code's commit ("" outside a checkout) and packages' versions."""
  versions = {}
  for name in ("v2a_jax", *_PACKAGES):
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return {"git": _commit(), "versions": versions}


def _commit() -> str:
  folder = pathlib.Path(__file__).parent
  try:
    told = subprocess.run(
      ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
      cwd=folder,
      capture_output=True,
      text=True,
      timeout=20,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return told.stdout.strip() if told.returncode == 0 else ""


def read_curve(workdir: str | os.PathLike) -> list[dict[str, float]]:
  """The training curve of a workdir: at most some 400 lines of its metrics.

  Lines that cannot be read (the last one of a killed run) are passed over. A
  path that is no workdir has no curve.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  entries = [e for e in _json_lines(path) if "step" in e]
  stride = max(1, math.ceil(len(entries) / _CURVE_POINTS))
  kept = entries[::stride]
  if entries and kept[-1] is not entries[-1]:
    kept.append(entries[-1])
  return [{k: v for k, v in entry.items() if _is_finite(v)} for entry in kept]


def _json_lines(path: pathlib.Path) -> Iterator[dict]:
  if not path.is_file():
    return
  with open(path) as lines:
    for line in lines:
      try:
        entry = json.loads(line)
      except ValueError:
        continue
      if isinstance(entry, dict):
        yield entry


def _is_finite(value: Any) -> bool:
  return isinstance(value, (int, float)) and math.isfinite(value)


def write_media(
  folder: pathlib.Path,
  clip: Clip,
  sounds: Mapping[str, np.ndarray],
  *,
  sample_rate: int,
) -> dict[str, Any]:
  """Writes a clip's picture and one sound a row.

  Args:
    folder: of results.json; the files go to its `media` folder.
    clip: whose picture.
    sounds: float32 [samples, channels] by row.
    sample_rate: Hz.

  Returns:
    `video` and `audio` (by row), paths relative to the folder.
  """
  name = re.sub(r"[^\w.-]+", "_", clip.id)
  (folder / "media").mkdir(parents=True, exist_ok=True)
  video = pathlib.Path("media", f"{name}.mp4")
  _write_picture(folder / video, clip)
  audio = {}
  for row, sound in sounds.items():
    audio[row] = f"media/{name}.{row}.m4a"
    samples = np.clip(sound[: len(clip.audio)], -1, 1)
    media.encode_audio(folder / audio[row], samples, sample_rate)
  return {"video": str(video), "audio": audio}


def _write_picture(path: pathlib.Path, clip: Clip) -> None:
  """The record's own video where a browser can play it as it is."""
  info = media.probe(clip.video)
  plain = info.video_codec == "h264" and "mp4" in info.container
  fits = info.duration <= clip.seconds + _SLACK and not info.has_audio
  if plain and fits and not info.rotation:
    path.write_bytes(clip.video)
    return
  scale = min(1.0, _GALLERY_SIDE / min(info.height, info.width))
  even = lambda side: max(2, 2 * round(side * scale / 2))
  size = (even(info.height), even(info.width))
  video = media.read_video(clip.video, duration=clip.seconds, size=size)
  times = video.times - video.times[0]
  media.encode_video(video.frames, times, path=path)


def write(folder: pathlib.Path, results: Mapping[str, Any]) -> pathlib.Path:
  """Writes results.json, whole or not at all; NaN is not let through."""
  text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False)
  folder.mkdir(parents=True, exist_ok=True)
  part = folder / f"{FILE}.part"
  part.write_text(text + "\n", encoding="utf-8")
  os.replace(part, folder / FILE)
  return folder / FILE
