"""Writes a page about a data set, to look at and listen to.

It shows counts, drops, histograms, clips at random and the clips with faults,
in one HTML file that loads nothing from elsewhere. What the columns of the data
set say (columns/) is part of it: faults of all clips, limits of what is
admitted, overlaps with held-out clips. Clips can be kept or dropped by hand;
the page saves a file that `v2a data annotate --merge` reads. Beside it stand the
data set's Croissant metadata and its datasheet (croissant.py).
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
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines import croissant
from data_pipelines.clip_file import fit_size
from data_pipelines.columns import admit as admit_lib
from data_pipelines.columns import faults as faults_lib
from data_pipelines.columns import store
from data_pipelines.columns.records import Records, make_records, open_records
from data_pipelines.languages import language
from data_pipelines.manifest import read_manifest
from data_pipelines.places import DROPS, REPORT
from data_pipelines.schema import DataError
from data_pipelines.source import Source, open_source
from v2a_jax import media
from v2a_jax.basics.files import read_bytes, write_json, write_whole
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
# Rows of a table of values, and of overlaps.
_MOST_ROWS, _MOST_LEAKS = 30, 100


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
  admit: str = "",
) -> pathlib.Path:
  """Writes the page, by default `report.html` in the data set's folder.

  Args:
    dataset: folder of the data set.
    out: file to write.
    num: number of clips shown at random, and of clips with faults.
    seed: random seed of the clips shown and, in a large data set, measured.
    admit: expression whose limits and counts are shown; see columns/admit.py.

  Raises:
    DataError: the data set is missing or unusable.
    AdmitError: the expression cannot be followed.
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
  known = _records(dataset)
  columns = admit_lib.columns_of(dataset, known)
  expression = admit_lib.Expression(admit) if admit else None
  admitted = expression(columns, len(known)) if expression else None
  by_columns = faults_lib.find(dataset, known)
  progress = Progress(len(picked), "report", unit="clips")
  measured, texts = [], []
  for index in picked.tolist():
    record = source[index]
    measured.append(measure(index, record))
    own = [record["caption"], record["audio_caption"]]
    texts += [text for text in (*own, *record["other_captions"]) if text]
    progress.update()
  progress.close()
  suspicious = _suspicious(measured, by_columns, source, num)
  tables = _tables(known, texts)
  name = dataset.resolve().name
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  page = environment.get_template("dataset.html.j2").render(
    name=name,
    path=str(dataset),
    manifest=manifest,
    hours=clock(manifest["counts"]["seconds"]),
    measured=len(measured),
    drops=_read_drops(dataset / DROPS),
    histograms=_histograms(measured)
    + [_bars("Caption length", [len(t.split()) for t in texts], "words")],
    columns=_column_histograms(dataset, known, expression),
    tables=tables,
    admit=admit,
    admitted=admitted,
    by_columns={name: int(mask.sum()) for name, mask in by_columns.items()},
    leaks=_leaks(dataset, known),
    faults=Counter(f for m in measured for f in m.faults).most_common(),
    random=[_card(m, source) for m in measured[:num]],
    suspicious=[_card(m, source) for m in suspicious],
  )
  write_whole(out, page)
  _write_cards(out, dataset, manifest, tables, admitted, by_columns)
  return out


def _write_cards(out, dataset, manifest, tables, admitted, by_columns) -> None:
  """Writes Croissant metadata and the datasheet beside the page.

  Their names begin with the page's where that is not `report.html`. A datasheet
  that is there stays: people fill it in.
  """
  prefix = "" if out.name == REPORT else f"{out.stem}."
  name = dataset.resolve().name
  licences = tables["Licence"]
  write_json(
    out.parent / f"{prefix}{croissant.CROISSANT}",
    croissant.croissant(name, manifest, licences),
    ensure_ascii=False,
  )
  notes = [
    f"{int(m.sum()):,} clips: {fault}" for fault, m in by_columns.items()
  ]
  if admitted:
    notes.append(admitted.describe())
  sheet = out.parent / f"{prefix}{croissant.DATASHEET}"
  if not sheet.is_file():
    write_whole(
      sheet, croissant.datasheet(name, manifest, tables=tables, notes=notes)
    )


def _records(dataset) -> Records:
  """Returns the list of records, which is made if it does not fit."""
  try:
    return open_records(dataset)
  except DataError:
    return make_records(dataset, keep=False)


def _suspicious(measured, by_columns, source: Source, num: int):
  """Returns the clips with the most faults, by measuring and by columns."""
  found = {m.index: m for m in measured if m.faults}
  for name, mask in by_columns.items():
    for index in np.flatnonzero(mask).tolist():
      stats = found.get(index) or ClipStats(index, "", 0.0, 0.0, None, None, ())
      if name not in stats.faults:
        more = (*stats.faults, name)
        found[index] = dataclasses.replace(stats, faults=more)
  worst = sorted(found.values(), key=lambda m: (-len(m.faults), m.id, m.index))
  return [
    m
    if m.id
    else dataclasses.replace(measure(m.index, source[m.index]), faults=m.faults)
    for m in worst[:num]
  ]


def _tables(known: Records, texts: Sequence[str]) -> dict[str, dict[str, int]]:
  """Counts values of the records, and languages of the measured captions."""
  table = known.table
  found = {}
  for title, column in (
    *(("Tag", "tags"), ("Licence", "licence"), ("Label", "label")),
    ("Captions a clip", "captions"),
  ):
    values = table[column]
    if column == "tags":
      values = pc.list_flatten(values)
    counts = pc.value_counts(values).to_pylist()
    counts.sort(key=lambda entry: (-entry["counts"], str(entry["values"])))
    found[title] = {str(e["values"]): e["counts"] for e in counts[:_MOST_ROWS]}
  languages = Counter(language(text) or "too short to tell" for text in texts)
  found["Language of captions"] = dict(languages.most_common(_MOST_ROWS))
  return {k: v for k, v in found.items() if v or k == "Licence"}


def _leaks(dataset, known: Records) -> list[dict[str, str]]:
  """Returns clips that are copies of held-out ones, and which those are."""
  if "copies" not in store.sources(dataset):
    return []
  columns = store.open_columns(dataset, "copies")
  if "leak_of" not in columns.names:
    return []
  of = columns.values("leak_of", known.keys)
  places = np.flatnonzero(pc.is_valid(of).to_numpy())[:_MOST_LEAKS]
  ids = known.table["id"]
  return [{"id": ids[i].as_py(), "of": of[i].as_py()} for i in places.tolist()]


def _column_histograms(dataset, known: Records, expression):
  """Returns a histogram of each column of numbers, with the limits set for it.

  They are those of `expression`, or without one those of the faults.
  """
  cuts: dict[str, list[float]] = {}
  texts = faults_lib.FAULTS.values()
  read = [expression] if expression else map(admit_lib.Expression, texts)
  for cut in (cut for e in read for cut in e.cuts()):
    cuts.setdefault(cut.column.rpartition(".")[2], []).append(cut.value)
  found = []
  for name in store.sources(dataset):
    columns = store.open_columns(dataset, name)
    for column in columns.names:
      values = columns.values(column, known.keys)
      if pa.types.is_floating(values.type):
        values = values.drop_null().to_numpy()
        own = _bars(f"{name}.{column}", values.tolist(), "")
        low, high = values.min(initial=math.inf), values.max(initial=-math.inf)
        own["cuts"] = [
          ((cut - low) / (high - low), f"{cut:g}")
          for cut in cuts.get(column, ())
          if low < cut < high
        ]
        found.append(own)
  return found


def measure(index: int, record: dict[str, Any]) -> ClipStats:
  """Measures levels, frame rate and faults of one record."""
  faults = []
  fps, peak, level = 0.0, None, None
  try:
    if record["video"]:
      fps = media.probe_limited(record["video"]).fps
    if record["audio"]:
      samples, _ = media.limited(media.decode_flac)(record["audio"])
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
  return [_bars(title, values, unit) for title, unit, values in columns]


def _bars(title: str, values: Sequence[float], unit: str) -> dict[str, Any]:
  bars = histogram(values, unit=unit)
  return {"title": title, "unit": unit, "bars": bars, "cuts": []}


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
