"""Writes a page about a data set, to look at and listen to.

It shows counts, drops, histograms, clips at random and the clips with faults,
in one HTML file that loads nothing from elsewhere.
"""

import base64
from collections import Counter
from collections.abc import Sequence
import csv
import dataclasses
import io
import math
import os
import pathlib
from typing import Any

import jinja2
import numpy as np

from data_pipelines.clip_file import fit_size
from data_pipelines.manifest import read_manifest
from data_pipelines.source import Source, open_source
from data_pipelines.writer import DROPS, REPORT
from v2a_jax import media
from v2a_jax.basics.files import read_bytes, write_whole
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.progress import Progress
from v2a_jax.basics.settings import SettingError
from v2a_jax.basics.text import clock

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_SILENT_DBFS = -60.0
_CLIPPED = 0.999
_CLIPPED_SHARE = 1e-3
_SHORT_SECONDS = 1.0
# Enough for a histogram; small data sets are measured whole.
_MAX_MEASURED = 2000
_PREVIEW_SIDE = 160
_PREVIEW_FPS = 12.5
_PREVIEW_RATE = 24_000
_PREVIEW_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class ClipStats:
  """Measurements of one record.

  Attributes:
    index: index of the record in its source.
    fps: average frames a second; 0 without video.
    peak: largest sample in dBFS; -inf for silence, None without sound.
    level: RMS of the samples in dBFS; -inf for silence, None without sound.
    faults: reasons to look at the clip, such as "silent".
  """

  index: int
  id: str
  seconds: float
  fps: float
  peak: float | None
  level: float | None
  faults: tuple[str, ...]


def write_report(
  dataset: str | os.PathLike,
  *,
  out: str | os.PathLike | None = None,
  num: int = 20,
  seed: int = 0,
) -> pathlib.Path:
  """Writes the page, by default `report.html` in the data set's folder.

  Args:
    dataset: folder of the data set.
    out: file to write.
    num: number of clips shown at random, and of clips with faults.
    seed: random seed of the clips shown and, in a large data set, measured.

  Raises:
    DataError: the data set is missing or unusable.
    SettingError: `num` is below 0.
  """
  if num < 0:
    raise SettingError(f"num={num} is not in [0, inf)")
  dataset = as_path(dataset)
  out = as_path(out) if out else dataset / REPORT
  manifest = read_manifest(dataset)
  source = open_source(dataset, "all")
  rng = np.random.default_rng(seed)
  picked = rng.permutation(len(source))[:_MAX_MEASURED]
  progress = Progress(len(picked), "report", unit="clips")
  measured = []
  for index in picked.tolist():
    measured.append(measure(index, source[index]))
    progress.update()
  progress.close()
  suspicious = [m for m in measured if m.faults]
  suspicious.sort(key=lambda m: (-len(m.faults), m.id))
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  page = environment.get_template("dataset.html.j2").render(
    name=dataset.resolve().name,
    manifest=manifest,
    hours=clock(manifest["counts"]["seconds"]),
    measured=len(measured),
    drops=_read_drops(dataset / DROPS),
    histograms=_histograms(measured),
    faults=Counter(f for m in measured for f in m.faults).most_common(),
    random=[_card(m, source) for m in measured[:num]],
    suspicious=[_card(m, source) for m in suspicious[:num]],
  )
  write_whole(out, page)
  return out


def measure(index: int, record: dict[str, Any]) -> ClipStats:
  """Measures levels, frame rate and faults of one record."""
  faults = []
  fps, peak, level = 0.0, None, None
  try:
    if record["video"]:
      fps = media.probe(record["video"]).fps
    if record["audio"]:
      samples, _ = media.decode_flac(record["audio"])
      power = np.mean(np.square(samples, dtype=np.float64))
      peak, level = _dbfs(np.abs(samples).max()), _dbfs(math.sqrt(power))
      if peak < _SILENT_DBFS:
        faults.append("silent")
      elif np.mean(np.abs(samples) >= _CLIPPED) > _CLIPPED_SHARE:
        faults.append("clipped")
  except media.MediaError as error:
    faults.append(f"cannot be decoded: {error.reason}")
  if record["duration"] < _SHORT_SECONDS:
    faults.append("short")
  if not record["caption"] and not record["audio_caption"]:
    faults.append("no caption")
  if not record["video"]:
    faults.append("no picture")
  if not record["audio"]:
    faults.append("no sound")
  name, seconds = record["id"], record["duration"]
  return ClipStats(index, name, seconds, fps, peak, level, tuple(faults))


def histogram(
  values: Sequence[float], *, bins: int = 24, unit: str
) -> list[tuple[str, int, float]]:
  """Counts the finite values in bins of equal width, one if all are equal.

  Returns:
    (range as text, count, height relative to the highest bar) of each bin.
  """
  values = [value for value in values if math.isfinite(value)]
  if not values:
    return []
  counts, edges = np.histogram(values, bins=bins if len(set(values)) > 1 else 1)
  return [
    (f"{low:.3g} to {high:.3g} {unit}", int(n), float(n / counts.max()))
    for n, low, high in zip(counts, edges, edges[1:])
  ]


def _histograms(measured: Sequence[ClipStats]) -> list[dict[str, Any]]:
  columns = (
    ("Duration", "s", [m.seconds for m in measured]),
    ("Frame rate", "fps", [m.fps for m in measured if m.fps]),
    ("Level (RMS)", "dBFS", [m.level for m in measured if m.level is not None]),
    ("Peak", "dBFS", [m.peak for m in measured if m.peak is not None]),
  )
  return [
    {"title": title, "unit": unit, "bars": histogram(values, unit=unit)}
    for title, unit, values in columns
  ]


def _card(stats: ClipStats, source: Source) -> dict[str, Any]:
  """Returns what the page shows of one clip, with a small copy to play."""
  record = source[stats.index]
  try:
    kind, data = _preview(record)
  except media.MediaError:
    kind, data = "", b""
  return {
    "record": {k: v for k, v in record.items() if isinstance(v, str)},
    "stats": stats,
    "tags": record["tags"],
    "kind": kind,
    "data": base64.b64encode(data).decode(),
  }


def _preview(record: dict[str, Any]) -> tuple[str, bytes]:
  """Returns media type and bytes of a small copy."""
  samples = None
  if record["audio"]:
    samples = media.limited(media.read_audio)(
      record["audio"], sample_rate=_PREVIEW_RATE, duration=_PREVIEW_SECONDS
    ).samples
  if not record["video"]:
    return "audio/flac", media.encode_flac(samples, _PREVIEW_RATE)
  info = media.probe_limited(record["video"])
  video = media.limited(media.read_video)(
    record["video"],
    duration=_PREVIEW_SECONDS,
    max_fps=_PREVIEW_FPS,
    size=fit_size(info, _PREVIEW_SIDE),
  )
  return "video/mp4", media.encode_video(
    video.frames, video.times, audio=samples, sample_rate=_PREVIEW_RATE, crf=28
  )


def _read_drops(path: pathlib.Path) -> list[dict[str, str]]:
  if not path.is_file():
    return []
  text = read_bytes(path).decode()
  return list(csv.DictReader(io.StringIO(text, newline="")))


def _dbfs(amplitude: float) -> float:
  return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
