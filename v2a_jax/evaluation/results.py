"""results.json: what was evaluated, on which clips, with which media.

The layout is described in docs/architecture.md.
"""

from collections.abc import Mapping, Sequence
import contextlib
import datetime
import functools
import hashlib
from importlib import metadata
import json
import math
import os
import pathlib
import subprocess
from typing import Any

import jax
import numpy as np

import data_pipelines
import v2a_jax
from v2a_jax import media
from v2a_jax.basics.files import sha256_of, write_json, write_whole
from v2a_jax.basics.paths import as_path
from v2a_jax.evaluation import folders, previews
from v2a_jax.evaluation.clips import Clip, Truth
from v2a_jax.evaluation.metrics.base import DIRECTIONS, Metric, RatioMetric
from v2a_jax.evaluation.reference import Reference
from v2a_jax.evaluation.schema import FILE, SCHEMA, is_finite
from v2a_jax.hearing.embeddings import Embedding, span

_PACKAGES = (
  "jax flax numpy scipy librosa mir_eval opencv-python-headless soxr av"
).split()
_CURVE_POINTS = 400
_GALLERY_SIDE = 360
_SLACK = 0.05


def describe_run(about: Mapping[str, Any]) -> dict[str, Any]:
  """Describes the system (see `systems.System`), its training and the code."""
  checkpoint = about["checkpoint"]
  now = datetime.datetime.now(datetime.UTC)
  return {
    "schema": SCHEMA,
    "kind": about["kind"],
    "name": about["name"],
    "created": now.isoformat(timespec="seconds"),
    "checkpoint": checkpoint,
    "config": about["config"],
    "sampler": about["sampler"],
    "code": code_identity(),
    "curve": read_curve(checkpoint.get("path") or ""),
  }


def describe_set(truth: Truth, clips: Sequence[Clip]) -> dict[str, Any]:
  """Describes the clips that were scored."""
  return {
    "path": truth.path,
    "split": truth.split,
    "n": len(clips),
    "seconds": round(float(sum(clip.seconds for clip in clips)), 3),
    "manifest_sha256": truth.digest,
  }


def describe_cost(
  size: Mapping[str, Any], clips: Sequence[Clip], seconds: Sequence[float]
) -> dict[str, Any]:
  """Describes what it takes to make a clip's sound.

  Args:
    size: `systems.System.size`.
    clips: the clips that were scored.
    seconds: what a clip of each batch took; the first of a process compiles,
      so it is their median, or the lesser of two.
  """
  device, *_ = devices = jax.devices()
  middle = np.quantile(seconds, 0.5, method="lower")
  return {
    "seconds_per_clip": round(float(middle), 4),
    "clip_seconds": round(float(np.mean([c.seconds for c in clips])), 3),
    "device": device.device_kind,
    "devices": len(devices),
    **size,
  }


def describe_metric(
  metric: Metric,
  *,
  network: Embedding | None,
  reference: Reference | None,
  facts: Mapping[str, str],
) -> dict[str, Any]:
  """Describes a metric and what identifies its variant.

  `identity` holds what must be equal for two values to be compared, besides
  what the `identity` of the whole run holds. `facts` are what else the value
  rests on, by name; also sentences of `about`.
  """
  identity = {"variant": metric.formula}
  if network:
    identity |= {
      "embedding": f"{network.id} {network.sha256}",
      "window": span(network),
    }
  if reference:
    facts = {"reference": reference.about} | dict(facts)
    identity["reference clips"] = reference.digest
  identity |= facts
  sentences = [f"{name.capitalize()}: {text}." for name, text in facts.items()]
  entry = {
    "label": metric.label,
    "unit": metric.unit,
    "higher_is_better": DIRECTIONS[metric.direction],
    "judges_timing": metric.judges_timing,
    "role": metric.role,
    "bounds": [end if np.isfinite(end) else None for end in metric.bounds],
    "variant": metric.formula,
    "about": " ".join([metric.about, *sentences]),
    "identity": identity,
  }
  if isinstance(metric, RatioMetric):
    entry["ratio"] = [dict(metric.numerator), dict(metric.denominator)]
  return entry


@functools.cache
def code_identity() -> dict[str, Any]:
  """Returns the code's commit ("" outside a checkout) and package versions."""
  versions = {}
  for name in ("v2a_jax", *_PACKAGES):
    with contextlib.suppress(metadata.PackageNotFoundError):
      versions[name] = metadata.version(name)
  return {"git": _commit(), "versions": versions}


@functools.cache
def code_digest() -> str:
  """Returns the sha256 of the sources that scores depend on."""
  packages = (v2a_jax, data_pipelines)
  return sources_digest(*(pathlib.Path(p.__file__).parent for p in packages))


def sources_digest(*folders: pathlib.Path) -> str:
  """Returns the sha256 of the Python files of folders and of their names."""
  digest = hashlib.sha256()
  for folder in folders:
    for path in sorted(folder.rglob("*.py")):
      name = path.relative_to(folder.parent).as_posix()
      digest.update(f"{name}\0{sha256_of(path)}\n".encode())
  return digest.hexdigest()


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
    `video`, "" without a picture, and `audio` (by row), paths relative to the
    folder.
  """
  name = f"media/{folders.plain(clip.id)}"
  (folder / name).parent.mkdir(parents=True, exist_ok=True)
  video = f"{name}.mp4" if clip.video else ""
  if video:
    _write_video(folder / video, clip)
  audio = {}
  for row, sound in sounds.items():
    audio[row] = f"{name}.{row}.m4a"
    samples = np.clip(sound[: len(clip.audio)], -1, 1)
    media.encode_audio(folder / audio[row], samples, sample_rate)
  return {"video": video, "audio": audio}


def sound_path(folder: pathlib.Path, id_: str) -> pathlib.Path:
  """Returns the file of a clip's sound in a folder."""
  return folder / f"{folders.plain(id_)}.flac"


def write_sound(
  path: pathlib.Path, sound: np.ndarray, *, sample_rate: int
) -> None:
  """Writes a sound as it was made, as FLAC of 24 bits."""
  path.parent.mkdir(parents=True, exist_ok=True)
  samples = np.clip(sound, -1, 1)
  write_whole(path, media.encode_flac(samples, sample_rate, bits=24))


def _write_video(path: pathlib.Path, clip: Clip) -> None:
  """Writes the record's video, as it is where a browser can play it."""
  info = media.probe_limited(clip.video)
  plain = info.video_codec == "h264" and "mp4" in info.container
  fits = info.duration <= clip.seconds + _SLACK and not info.has_audio
  if plain and fits and not info.rotation:
    write_whole(path, clip.video)
    return
  previews.write_video(
    clip.video, path, side=_GALLERY_SIDE, seconds=clip.seconds
  )


def write(folder: pathlib.Path, results: Mapping[str, Any]) -> pathlib.Path:
  """Writes results.json, whole or not at all, and returns its path.

  Raises:
    ValueError: a number is not finite, which JSON cannot express.
  """
  folder.mkdir(parents=True, exist_ok=True)
  write_json(folder / FILE, results, allow_nan=False, ensure_ascii=False)
  return folder / FILE
