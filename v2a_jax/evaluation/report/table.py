"""The report's table: the runs, then the anchors; also as Markdown and CSV."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
from typing import Any

import markupsafe

from v2a_jax.evaluation.pictures import DEGRADED
from v2a_jax.evaluation.report import compare
from v2a_jax.evaluation.report.columns import Column
from v2a_jax.evaluation.report.differences import row_of
from v2a_jax.evaluation.report.markdown import escape
from v2a_jax.evaluation.schema import GENERATED, GROUND_TRUTH, SHUFFLED

COLOURS = 6  # of the style sheet
ROW_LABELS = {
  GROUND_TRUTH: "Ground truth",
  "codec": "Codec reconstruction",
  SHUFFLED: "Shuffled video",
  "word_times": "Word times given",
  "no_video": "Without a picture",
  "shuffled_transcript": "Words of another clip",
  "compressed_video": "Picture strongly compressed",
  "noisy_video": "Picture with noise",
  "slow_video": "Picture of 5 frames a second",
  "film_video": "Picture as of an old film",
  "shifted": "True sound, 120 ms late",
  "metronome": "Metronome",
  "silence": "Silence",
  "noise": "Noise",
}
# Anchors that the run's model generates: each run keeps its own.
_OF_THE_RUN = (
  SHUFFLED,
  *("word_times", "no_video", "shuffled_transcript"),
  *DEGRADED,
)


def rows(runs: list[dict], columns: Sequence[Column]) -> list[dict[str, Any]]:
  """Returns the generated rows, then the anchors, equal ones once."""
  best = compare.best_runs(columns, runs)
  table = []
  for i, run in enumerate(runs):
    row = row_of(run, GENERATED)
    if row:
      bold = {id_ for id_, index in best.items() if index == i}
      table.append(_row(run["name"], i % COLOURS, columns, row, bold))
  for name in _anchor_names(runs):
    own: dict[str, tuple[dict, dict]] = {}
    for run in runs:
      row = row_of(run, name)
      if row is not None:
        values = json.dumps(row["metrics"], sort_keys=True)
        key = run["name"] if name in _OF_THE_RUN else values
        own.setdefault(key, (run, row))
    for run, row in own.values():
      label = ROW_LABELS.get(name, name)
      label += f" · {run['name']}" if len(own) > 1 else ""
      table.append(_row(label, None, columns, row, set()))
  return table


def of_seeds(
  arms: Sequence[dict], columns: Sequence[Column], colours: Mapping[str, int]
) -> list[dict[str, Any]]:
  """Returns the generated rows of the models of arms of several seeds."""
  return [
    _row(run["name"], colours[arm["name"]], columns, row, set())
    for arm in arms
    for run in arm.get("models", ())
    if (row := row_of(run, GENERATED))
  ]


def _anchor_names(runs) -> list[str]:
  """Returns anchors in the order of `ROW_LABELS`, then any others."""
  names = [row["name"] for run in runs for row in run["rows"]]
  ordered = [name for name in ROW_LABELS if name in names]
  others = [n for n in dict.fromkeys(names) if n not in ROW_LABELS]
  return ordered + [name for name in others if name != GENERATED]


def _row(label, colour, columns, row, bold) -> dict[str, Any]:
  cells = []
  for column in columns:
    entry = row["metrics"].get(column.id) or {}
    cell = {part: entry.get(part) for part in ("value", "low", "high", "n")}
    cell["text"] = column.format(entry["value"]) if "value" in entry else ""
    cell["interval"] = column.format_interval(cell["low"], cell["high"])
    cells.append(cell | {"best": column.id in bold})
  counts = [cell["n"] for cell in cells if cell["n"] is not None]
  ends = sorted({min(counts), max(counts)}) if counts else []
  n = "\N{EN DASH}".join(map(str, ends))
  seeds = {(row["metrics"].get(c.id) or {}).get("seeds") for c in columns}
  if seeds := [count for count in seeds if count]:
    n = f"{seeds[0]} seeds \N{MULTIPLICATION SIGN} {n} clips"
  return {"label": label, "colour": colour, "n": n, "cells": cells}


def as_markdown(
  columns: Sequence[Column], table: list[dict]
) -> markupsafe.Markup:
  """Formats a table that `rows` returned as Markdown."""

  def line(cells):
    return "| " + " | ".join(cells) + " |"

  heads = [
    escape(" ".join(filter(None, [c.label, c.arrow, c.unit and f"({c.unit})"])))
    for c in columns
  ]
  lines = [
    line(["", "N", *heads]),
    "|---|---:|" + "---:|" * len(heads),
  ]
  for row in table:
    cells = [
      (f"**{escape(c['text'])}**" if c["best"] else str(escape(c["text"])))
      + (f" {escape(c['interval'])}" if c["interval"] else "")
      for c in row["cells"]
    ]
    lines.append(line([escape(row["label"]), row["n"], *cells]))
  return markupsafe.Markup("\n".join(lines) + "\n")


def as_csv(columns: Sequence[Column], table: list[dict]) -> str:
  """Formats a table as CSV: one line per row and metric, with every digit."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(["row", "metric", "unit", "value", "low", "high", "n"])
  for row in table:
    for column, cell in zip(columns, row["cells"]):
      if cell["text"]:
        numbers = [cell[part] for part in ("value", "low", "high", "n")]
        writer.writerow([row["label"], column.id, column.unit, *numbers])
  return out.getvalue()
