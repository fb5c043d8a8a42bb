"""results.json: what was evaluated, on which clips, with which media.

The layout is described in docs/architecture.md.
"""

from collections.abc import Mapping, Sequence
import contextlib
import datetime
from importlib import metadata
import json
import math
import os
import pathlib
import re
import subprocess
from typing import Any

import numpy as np

from data_pipelines.manifest import MANIFEST
from v2a_jax import media
from v2a_jax.basics.files import sha256_of, write_json, write_whole
from v2a_jax.basics.paths import as_path
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.embeddings import Embedding, span
from v2a_jax.evaluation.metrics.base import DIRECTIONS, Metric
from v2a_jax.evaluation.rows import Tracker
from v2a_jax.evaluation.schema import FILE, SCHEMA, is_finite

_PACKAGES = (
  "jax flax numpy scipy librosa mir_eval opencv-python-headless soxr av"
).split()
_CURVE_POINTS = 400
_GALLERY_SIDE = 360
_SLACK = 0.05


def describe_run(
  tracker: Tracker, overrides: Mapping[str, Any] | None
) -> dict[str, Any]:
  """Describes the model, its training and the code."""
  about = tracker.describe()
  checkpoint = about["checkpoint"]
  now = datetime.datetime.now(datetime.UTC)
  return {
    "schema": SCHEMA,
    "name": about["name"],
    "created": now.isoformat(timespec="seconds"),
    "checkpoint": checkpoint,
    "config": about["config"],
    "sampler": _overridden(about["sampler"], overrides or {}),
    "code": code_identity(),
    "curve": read_curve(checkpoint.get("path") or ""),
  }


def _overridden(settings, overrides) -> dict[str, Any]:
  """Returns settings with overrides; sections such as guidance are merged."""
  changed = dict(settings)
  for key, value in overrides.items():
    section = isinstance(changed.get(key), dict)
    changed[key] = changed[key] | dict(value) if section else value
  return changed


def describe_set(
  path: str | os.PathLike, split: str, clips: Sequence[Clip]
) -> dict[str, Any]:
  """Describes the clips that were scored."""
  return {
    "path": str(path),
    "split": split,
    "n": len(clips),
    "seconds": float(sum(clip.seconds for clip in clips)),
    "manifest_sha256": sha256_of(as_path(path) / MANIFEST),
  }


def describe_metric(
  metric: Metric,
  *,
  network: Embedding | None,
  source_rate: int,
  facts: Mapping[str, str],
) -> dict[str, Any]:
  """Describes a metric and what identifies its variant.

  `facts` are what else its value rests on, by name; also sentences of `about`.
  `source_rate` of the sounds before embedding is in Hz.
  """
  identity = {}
  if network:
    identity = {
      "embedding": f"{network.id} {network.sha256[:12]}",
      "window": span(network),
      "source_rate": f"{source_rate} Hz",
    }
  identity |= facts
  sentences = [f"{name.capitalize()}: {text}." for name, text in facts.items()]
  entry = {
    "label": metric.label,
    "unit": metric.unit,
    "higher_is_better": DIRECTIONS[metric.direction],
    "judges_timing": metric.judges_timing,
    "about": " ".join([metric.about, *sentences]),
  }
  return entry | ({"identity": identity} if identity else {})


def code_identity() -> dict[str, Any]:
  """Returns the code's commit ("" outside a checkout) and package versions."""
  versions = {}
  for name in ("v2a_jax", *_PACKAGES):
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return {"git": _commit(), "versions": versions}


def _commit() -> str:
  folder = pathlib.Path(__file__).parent
  try:
    described = subprocess.run(
      ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
      cwd=folder,
      capture_output=True,
      text=True,
      timeout=20,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return described.stdout.strip() if described.returncode == 0 else ""


def read_curve(workdir: str | os.PathLike) -> list[dict[str, float]]:
  """Reads the training curves of a workdir, at most 401 points of each.

  Lines that cannot be read (the last one of a killed run) are skipped. A path
  that is not a workdir has no curve.
  """
  path = as_path(workdir) / "metrics.jsonl"
  entries = []
  lines = path.read_text().splitlines() if path.is_file() else []
  for line in lines:
    with contextlib.suppress(ValueError):
      entries.append(json.loads(line))
  entries = [e for e in entries if isinstance(e, dict) and "step" in e]
  curve = [{} for _ in entries]
  for name in dict.fromkeys(name for entry in entries for name in entry):
    places = [
      i for i, entry in enumerate(entries) if is_finite(entry.get(name))
    ]
    stride = max(1, math.ceil(len(places) / _CURVE_POINTS))
    for i in places if name == "step" else {*places[::stride], *places[-1:]}:
      curve[i][name] = entries[i][name]
  return [row for row in curve if row.keys() > {"step"}]


def write_media(
  folder: pathlib.Path,
  clip: Clip,
  sounds: Mapping[str, np.ndarray],
  *,
  sample_rate: int,
) -> dict[str, Any]:
  """Writes a clip's video and the sound of each row, to `media` in the folder.

  Returns:
    `video` and `audio` (by row), paths relative to the folder.
  """
  name = re.sub(r"[^\w.-]+", "_", clip.id)
  (folder / "media").mkdir(parents=True, exist_ok=True)
  video = pathlib.Path("media", f"{name}.mp4")
  _write_video(folder / video, clip)
  audio = {}
  for row, sound in sounds.items():
    audio[row] = f"media/{name}.{row}.m4a"
    samples = np.clip(sound[: len(clip.audio)], -1, 1)
    media.encode_audio(folder / audio[row], samples, sample_rate)
  return {"video": str(video), "audio": audio}


def _write_video(path: pathlib.Path, clip: Clip) -> None:
  """Writes the record's video, as it is where a browser can play it."""
  info = media.probe_limited(clip.video)
  plain = info.video_codec == "h264" and "mp4" in info.container
  fits = info.duration <= clip.seconds + _SLACK and not info.has_audio
  if plain and fits and not info.rotation:
    write_whole(path, clip.video)
    return
  scale = min(1.0, _GALLERY_SIDE / min(info.height, info.width))
  even = lambda side: max(2, 2 * round(side * scale / 2))
  size = (even(info.height), even(info.width))
  read = media.limited(media.read_video)
  video = read(clip.video, duration=clip.seconds, size=size)
  times = video.times - video.times[0]
  media.encode_video(video.frames, times, path=path)


def write(folder: pathlib.Path, results: Mapping[str, Any]) -> pathlib.Path:
  """Writes results.json, whole or not at all, and returns its path.

  Raises:
    ValueError: a number is not finite, which JSON cannot express.
  """
  folder.mkdir(parents=True, exist_ok=True)
  write_json(folder / FILE, results, allow_nan=False, ensure_ascii=False)
  return folder / FILE
