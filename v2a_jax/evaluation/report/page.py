"""`v2a report`: results of evaluations as one page that opens anywhere.

The page holds its style, its script, its figures and, up to a size, its videos
and sounds; a content security policy in it forbids everything else, so it makes
no network requests. compare.py writes the verdict, table.py, figures.py and
gallery.py make the parts, templates/ holds the layout.
"""

from collections.abc import Mapping, Sequence
import datetime
import hashlib
import json
import os
import pathlib
import tempfile
from typing import Any
from urllib import parse

import jinja2
import markupsafe

from v2a_jax.basics import files
from v2a_jax.basics.paths import (
  as_path,
  check_readable,
  check_writable,
  find,
)
from v2a_jax.basics.text import clock, shares
from v2a_jax.evaluation.report import arms as arms_lib
from v2a_jax.evaluation.report import (
  compare,
  figures,
  markdown,
  series,
  slices,
  table,
  tradeoffs,
)
from v2a_jax.evaluation.report import gallery as gallery_lib
from v2a_jax.evaluation.report.columns import Column, columns_of
from v2a_jax.evaluation.schema import FILE, SCHEMA, is_finite

_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_CURVES = 12
# Names and prefixes of curves: the losses, their parts, then the machine.
_CURVE_ORDER = ("train/loss", "eval/loss", "eval_mean/loss", "eval_mean/")
_CURVE_ORDER += ("train/", "eval/", "perf/", "goodput/")
_REQUIRED = ("name", "checkpoint", "set", "identity", "metrics", "rows")
_REQUIRED += ("clips",)


def write_report(
  results_paths: Sequence[str | pathlib.Path],
  out: str | pathlib.Path,
  *,
  max_bytes: float = 23e6,
  max_clips: int = 24,
) -> pathlib.Path:
  """Writes a page, and beside it the same in Markdown and its table as CSV.

  Args:
    results_paths: results.json files, or folders that hold one or several.
    out: path of the page, with the suffix .html; the others have .md and .csv.
    max_bytes: size of the media in a page. Larger ones are made smaller
      (`gallery.fit`); where that is not enough, they go to a folder
      `<out>_media` beside the page.
    max_clips: largest number of clips in the gallery.

  Raises:
    ValueError: no results, a file that does not hold results or is damaged, or
      another suffix than .html.
    FileNotFoundError: a results file is missing.
  """
  out = as_path(out)
  if out.suffix.lower() not in (".html", ".htm"):
    raise ValueError(f"output must end in .html, not {out.name}")
  check_writable(out.parent)
  runs = load_runs(results_paths)
  try:
    page = _page(runs, max_clips)
  except (TypeError, KeyError, AttributeError, IndexError) as error:
    read = ", ".join(str(run["folder"] / FILE) for run in runs)
    raise ValueError(
      f"{read}: something is missing or of another type"
      f" ({type(error).__name__}: {error}); run `v2a eval` again"
    ) from error
  out.parent.mkdir(parents=True, exist_ok=True)
  gallery = page["gallery"]
  with tempfile.TemporaryDirectory() as small:
    page["smaller"] = gallery_lib.fit(gallery, max_bytes, pathlib.Path(small))
    embed = gallery_lib.embedded_size(gallery) <= max_bytes
    beside = None if embed else out.with_name(f"{out.stem}_media")
    gallery_lib.attach(gallery, beside)
  page["sources"] = [_sources(clip) for clip in gallery]
  page["media_folder"] = beside.name if beside else ""
  files.write_whole(out, _render("report.html.jinja", page))
  files.write_whole(out.with_suffix(".md"), _render("report.md.jinja", page))
  files.write_whole(out.with_suffix(".csv"), page["csv"])
  return out


def load_runs(paths: Sequence[str | pathlib.Path]) -> list[dict]:
  """Reads results and adds their `folder` and the name of their `arm`.

  Arms of equal names get another one, with the parts of their folders that
  differ, in a sweep its run's overrides. The name of a run is that of its arm,
  with its seed where others of the arm are there.

  Raises:
    ValueError: no paths, or a file that does not hold results of this schema.
    FileNotFoundError: a file is missing.
  """
  if not paths:
    raise ValueError("report: no results given; name one or more results.json")
  files = [file for path in paths for file in _files(as_path(path))]
  runs = [_load(file) | {"folder": file.parent} for file in files]
  groups = arms_lib.groups(runs)
  names = [group[0]["name"] for group in groups]
  for name in set(names):
    same = [group for group, own in zip(groups, names) if own == name]
    parts = _apart([arms_lib.folder_of(group) for group in same])
    for group, part in zip(same, parts):
      arm = f"{name} ({part})" if len(same) > 1 else name
      for run in group:
        several = len(group) > 1
        seed = f", seed {run['config']['seed']}" if several else ""
        run |= {"arm": arm, "name": arm + seed}
  return runs


def _apart(folders: Sequence[pathlib.Path]) -> list[str]:
  """Names folders by their parts that not all have; by numbers if equal."""
  rows = [folder.parts for folder in folders]
  first = os.path.commonprefix(rows)
  ends = [row[len(first) :][::-1] for row in rows]
  last = len(os.path.commonprefix(ends))
  found = ["/".join(end[last:][::-1]) for end in ends]
  if len(set(found)) < len(found) or not all(found):
    return [str(i + 1) for i in range(len(folders))]
  return found


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  """Lists the results of a path: itself, in it, or in folders below."""
  check_readable(path)
  own = path / FILE if path.is_dir() else path
  if own.exists():
    return [own]
  if below := find(path, FILE):
    return below
  raise FileNotFoundError(f"{own}: no such file; write it with `v2a eval`")


def _load(path: pathlib.Path) -> dict:
  run = files.read_json(path)
  if run.get("schema") != SCHEMA:
    raise ValueError(
      f"{path}: results of schema {run.get('schema')}, not {SCHEMA}; run `v2a eval` again"
    )
  missing = [name for name in _REQUIRED if name not in run]
  if missing:
    raise ValueError(f"{path}: lacks {missing}; run `v2a eval` again")
  optional = {"config": {}, "sampler": {}, "code": {}, "curve": []}
  return optional | {"failures": []} | run


def _page(runs: list[dict], max_clips: int) -> dict[str, Any]:
  """Returns everything that the templates name."""
  columns = columns_of(runs)
  arms = arms_lib.arms_of(runs, columns)
  colours = {arm["name"]: i % table.COLOURS for i, arm in enumerate(arms)}
  rows = table.rows(arms, columns)
  seeds = table.of_seeds(arms, columns, colours)
  return {
    "title": " vs ".join(colours),
    "arms": [
      {"name": arm["name"], "colour": colours[arm["name"]], "about": _lede(arm)}
      for arm in arms
    ],
    "written": datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
    "runs": [_facts(colours[run["arm"]], run) for run in runs],
    "columns": columns,
    "verdict": compare.verdict(arms, columns),
    "limits": compare.limits(arms, columns),
    "table": rows,
    "seeds": seeds,
    "seeds_markdown": table.as_markdown(columns, seeds),
    "markdown": table.as_markdown(columns, rows),
    "csv": table.as_csv(columns, rows + seeds),
    "intervals": _interval_plots(columns, rows),
    "slices": slices.slices(arms, columns, colours=table.COLOURS),
    "series": series.plots(arms, columns, colours=table.COLOURS),
    "tradeoffs": tradeoffs.plots(arms, columns, colours=table.COLOURS),
    "curves": _curves(runs, colours),
    "differences": config_differences([arm["config"] for arm in arms]),
    "gallery": gallery_lib.collect(
      arms, columns, labels=table.ROW_LABELS, max_clips=max_clips
    ),
    "gallery_order": _order(arms, columns),
    "num_clips": len({c["id"] for run in runs for c in run["clips"]}),
    "failures": [
      {"run": run["name"], "id": f.get("id", ""), "reason": f.get("reason", "")}
      for run in runs
      for f in run["failures"]
    ],
  }


def _order(runs: list[dict], columns: Sequence[Column]) -> str:
  """Returns the label of the metric that orders the gallery, "" for none."""
  column = gallery_lib.order_by(runs, columns)
  return column.label if column else ""


def _lede(arm: dict) -> str:
  """Says how an arm was trained, or what its sounds are."""
  if not arm["config"]:
    return f"sounds of {arm['checkpoint'].get('path', '?')}"
  models = arm.get("models", ())
  text = f"{len(models)} training seeds, the first " if models else ""
  return f"{text}trained {_trained(arm['checkpoint'])}"


def _facts(colour: int, run: dict) -> dict[str, Any]:
  short = lambda digest: (digest or "")[:12]
  listed = lambda values: ", ".join(f"{k} {v}" for k, v in values.items())
  checkpoint, config, clips = run["checkpoint"], run["config"], run["set"]
  canonical = json.dumps(config, sort_keys=True, default=str).encode()
  facts = [
    ("Trained", config and _trained(checkpoint)),
    ("Time", _time(run["curve"])),
    ("Checkpoint" if config else "Sounds", f"{checkpoint.get('path', '?')}"),
    ("Weights" if config else "Digest", short(checkpoint.get("sha256"))),
    ("Config", config and hashlib.sha256(canonical).hexdigest()[:12]),
    ("Sampler", listed(run["sampler"])),
    ("Cost", _cost(run.get("cost"))),
    (
      "Set",
      f"{clips.get('path', '?')}{_split(clips)}: "
      f"{clips.get('n', '?')} clips, together {clips.get('seconds', '?')} s",
    ),
    ("Judged at", run.get("identity", {}).get("judged at")),
    ("Unmatched files", _unmatched(run)),
    ("Set manifest", short(clips.get("manifest_sha256"))),
    ("Code", short(run["code"].get("git"))),
    ("Versions", listed(run["code"].get("versions", {}))),
    ("Evaluated", _evaluated(run)),
  ]
  return {
    "name": run["name"],
    "colour": colour,
    "facts": [(label, text) for label, text in facts if text],
  }


def _cost(cost: dict | None) -> str:
  """Says how long a clip takes, on what, by how large a model."""
  if not cost:
    return ""
  return (
    f"{cost['seconds_per_clip']:.3g} s for a clip of"
    f" {cost['clip_seconds']:.3g} s, on {cost['devices']} {cost['device']};"
    f" {cost['parameters']:,} parameters, {cost['precision']}"
  )


def _split(clips: dict) -> str:
  return f", split {clips['split']}" if clips.get("split") else ""


def _unmatched(run: dict) -> str:
  """Counts files of either side that match nothing, with the first names."""
  words = {
    "without_output": "without a sound",
    "without_truth": "without a clip",
  }
  parts = [
    f"{side['count']} {words.get(name, name)} ({', '.join(side['names'][:3])})"
    for name, side in (run.get("unmatched") or {}).items()
    if side["count"]
  ]
  return "; ".join(parts)


def _trained(checkpoint: dict) -> str:
  parts = []
  if checkpoint.get("train_seconds") is not None:
    parts.append(f"for {clock(checkpoint['train_seconds'])}")
  if checkpoint.get("step") is not None:
    parts.append(f"{checkpoint['step']:,} steps")
  if checkpoint.get("clips_seen") is not None:
    parts.append(f"{checkpoint['clips_seen']:,} clips seen")
  return ", ".join(parts) or "not recorded"


def _time(curve: Sequence[dict]) -> str:
  """Says what the time of training went into, all starts together."""
  total = "goodput/total_seconds"
  row = next((row for row in reversed(curve) if row.get(total)), None)
  if row is None:
    return ""
  suffix = "_seconds"
  seconds = {
    name.removeprefix("goodput/").removesuffix(suffix): value
    for name, value in row.items()
    if name.startswith("goodput/") and name.endswith(suffix) and name != total
  }
  text = shares(seconds, row[total])
  starts, again = row.get("goodput/starts"), row.get("goodput/steps_again")
  if starts:
    text += f"; {starts:.0f} start{'s' * (starts > 1)}"
  return text + (f", {again:.0f} steps done again" if again else "")


def _evaluated(run: dict) -> str:
  text = str(run.get("created", "")).replace("T", " ")[:16]
  if run.get("wall_seconds") is not None:
    text += f", in {clock(run['wall_seconds'])}"
  return text


def _interval_plots(columns: Sequence[Column], rows) -> list[dict[str, Any]]:
  plots = []
  for i, column in enumerate(columns):
    marks = [
      figures.Mark(
        row["label"], row["colour"], cell["value"], cell["low"], cell["high"]
      )
      for row in rows
      for cell in [row["cells"][i]]
      if is_finite(cell["value"])
    ]
    # A value that is the same for all rows needs no figure.
    if len({x for m in marks for x in (m.value, m.low, m.high)}) > 1:
      svg = markupsafe.Markup(figures.intervals_svg(column, marks))
      plots.append({"column": column, "svg": svg})
  return plots


def _curves(
  runs: list[dict], colours: Mapping[str, int]
) -> list[dict[str, Any]]:
  """Draws what training logged, one plot per name with all runs."""
  lines: dict[str, list[figures.Curve]] = {}
  for run in runs:
    points: dict[str, list[tuple[float, float]]] = {}
    for entry in run["curve"]:
      if not is_finite(entry.get("step")):
        continue
      for name, value in entry.items():
        if is_finite(value) and "/" in name:
          points.setdefault(name, []).append((entry["step"], value))
    for name, pairs in points.items():
      curve = figures.Curve.of(run["name"], colours[run["arm"]], pairs)
      lines.setdefault(name, []).append(curve)

  def rank(name):
    for key in (name, name.partition("/")[0] + "/"):
      if key in _CURVE_ORDER:
        return _CURVE_ORDER.index(key), name
    return len(_CURVE_ORDER), name

  return [
    {
      "name": name,
      "svg": markupsafe.Markup(
        figures.curves_svg(f"{name} over training steps", lines[name])
      ),
    }
    for name in sorted(lines, key=rank)[:_CURVES]
  ]


def config_differences(configs: Sequence[dict]) -> list[tuple[str, list[str]]]:
  """Returns dotted keys whose values differ, with the value in each config."""
  flat = [_flatten(config) for config in configs]
  names = dict.fromkeys(name for config in flat for name in config)
  out = []
  for name in sorted(names):
    texts = [
      json.dumps(c[name], default=str) if name in c else "\N{EN DASH}"
      for c in flat
    ]
    # Sounds of other systems have no config, and so no other value.
    if len({text for text, of in zip(texts, flat) if of}) > 1:
      out.append((name, texts))
  return out


def _flatten(config: dict, prefix: str = "") -> dict[str, Any]:
  out = {}
  for name, value in config.items():
    nested = isinstance(value, dict) and value
    key = f"{prefix}{name}"
    out |= _flatten(value, f"{key}.") if nested else {key: value}
  return out


def _sources(clip: gallery_lib.Clip) -> dict[str, Any]:
  """Returns what the player needs; relative addresses are quoted."""
  tracks = [parse.quote(t.url, safe="/:;,+=") for t in clip.tracks]
  video = parse.quote(clip.video_url, safe="/:;,+=")
  return {"video": video, "duration": clip.duration, "tracks": tracks}


def _render(template: str, page: dict[str, Any]) -> str:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=template.endswith(".html.jinja"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    finalize=markdown.escape if template.endswith(".md.jinja") else None,
  )
  environment.filters["code"] = markdown.code
  environment.filters["script"] = _script_json
  parts = {
    name: markupsafe.Markup((_TEMPLATES / name).read_text(encoding="utf-8"))
    for name in ("report.css", "report.js")
  }
  return environment.get_template(template).render(
    **page, style=parts["report.css"], script=parts["report.js"]
  )


def _script_json(value: Any) -> markupsafe.Markup:
  """Writes JSON that cannot break out of its script element."""
  text = json.dumps(value, ensure_ascii=True)
  for character in "<>&":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return markupsafe.Markup(text)
