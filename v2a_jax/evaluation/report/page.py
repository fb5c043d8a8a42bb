"""`v2a report`: results of evaluations as one page that opens anywhere.

The page holds its style, its script, its figures and, up to a size, its videos
and sounds; a content security policy in it forbids everything else, so it makes
no network requests. loading.py reads the results, compare.py writes the verdict,
the other files make a part each, templates/ holds the layout.
"""

from collections.abc import Sequence
import datetime
import json
import pathlib
import tempfile
from typing import Any
from urllib import parse

import jinja2
import markupsafe

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, check_writable
from v2a_jax.evaluation.report import arms as arms_lib
from v2a_jax.evaluation.report import (
  compare,
  facts,
  figures,
  loading,
  markdown,
  series,
  slices,
  table,
  tradeoffs,
  training,
)
from v2a_jax.evaluation.report import gallery as gallery_lib
from v2a_jax.evaluation.report.columns import Column, columns_of
from v2a_jax.evaluation.schema import FILE, is_finite

_TEMPLATES = pathlib.Path(__file__).parent / "templates"


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
  runs = loading.load_runs(results_paths)
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
      {
        "name": arm["name"],
        "colour": colours[arm["name"]],
        "about": facts.lede(arm),
      }
      for arm in arms
    ],
    "written": datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
    "runs": [facts.of_run(colours[run["arm"]], run) for run in runs],
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
    "curves": training.plots(runs, colours),
    "differences": facts.config_differences([arm["config"] for arm in arms]),
    "gallery": gallery_lib.collect(
      arms, columns, labels=table.ROW_LABELS, max_clips=max_clips
    ),
    "gallery_order": gallery_lib.order_by(arms, columns),
    "num_clips": len({c["id"] for run in runs for c in run["clips"]}),
    "failures": [
      {"run": run["name"], "id": f.get("id", ""), "reason": f.get("reason", "")}
      for run in runs
      for f in run["failures"]
    ],
  }


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
