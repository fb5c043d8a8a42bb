"""The report's table: a row a run, then the anchors; also as Markdown and CSV."""

import csv
import io
import json
from typing import Any

from v2a_jax.evaluation.report import compare

COLOURS = 6  # of the style sheet
ROW_LABELS = {
  "ground_truth": "Ground truth",
  "codec": "Codec reconstruction",
  "shuffled_video": "Shuffled video",
  "silence": "Silence",
  "noise": "Noise",
}
# Anchors that a run's model has a part in: each run keeps its own.
_OF_THE_RUN = ("shuffled_video",)


def rows(runs: list[dict], metrics) -> list[dict[str, Any]]:
  """Generated rows first, then the anchors, equal ones once."""
  best = {metric.id: compare.best_run(metric, runs) for metric in metrics}
  found = []
  for i, run in enumerate(runs):
    row = compare.row_of(run, compare.GENERATED)
    if row:
      bold = {name for name, index in best.items() if index == i}
      colour = i % COLOURS
      found.append(_row(run["name"], colour, metrics, row, bold))
  for name in _anchor_names(runs):
    own: dict[str, tuple[dict, dict]] = {}
    for run in runs:
      row = compare.row_of(run, name)
      if row is not None:
        values = json.dumps(row["metrics"], sort_keys=True)
        key = run["name"] if name in _OF_THE_RUN else values
        own.setdefault(key, (run, row))
    for run, row in own.values():
      label = ROW_LABELS.get(name, name)
      label += f" · {run['name']}" if len(own) > 1 else ""
      found.append(_row(label, None, metrics, row, set()))
  return found


def _anchor_names(runs) -> list[str]:
  """Anchors in the order of `ROW_LABELS`, then others as they come."""
  names = [row["name"] for run in runs for row in run["rows"]]
  known = [name for name in ROW_LABELS if name in names]
  others = [n for n in dict.fromkeys(names) if n not in ROW_LABELS]
  return known + [name for name in others if name != compare.GENERATED]


def _row(label, colour, metrics, row, bold) -> dict[str, Any]:
  cells = []
  for metric in metrics:
    entry = row["metrics"].get(metric.id) or {}
    low, high = entry.get("low"), entry.get("high")
    cells.append(
      {
        "value": entry.get("value"),
        "low": low,
        "high": high,
        "n": entry.get("n"),
        "text": metric.format(entry["value"]) if "value" in entry else "",
        "interval": metric.interval(low, high),
        "best": metric.id in bold,
      }
    )
  counts = [cell["n"] for cell in cells if cell["n"] is not None]
  ends = sorted({min(counts), max(counts)}) if counts else []
  n = "\N{EN DASH}".join(map(str, ends))
  return {"label": label, "colour": colour, "n": n, "cells": cells}


def as_markdown(metrics, table) -> str:
  def line(cells):
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

  heads = [
    f"{m.label} {_arrow(m)}" + (f" ({m.unit})" if m.unit else "")
    for m in metrics
  ]
  lines = [
    line(["", "N", *heads]),
    "|---|---:|" + "---:|" * len(heads),
  ]
  for row in table:
    cells = [
      (f"**{c['text']}**" if c["best"] else c["text"])
      + (f" {c['interval']}" if c["interval"] else "")
      for c in row["cells"]
    ]
    lines.append(line([row["label"], row["n"], *cells]))
  return "\n".join(lines) + "\n"


def _arrow(metric) -> str:
  return (
    "\N{UPWARDS ARROW}" if metric.higher_is_better else "\N{DOWNWARDS ARROW}"
  )


def as_csv(metrics, table) -> str:
  """One line a row and metric, with every digit."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(["row", "metric", "unit", "value", "low", "high", "n"])
  for row in table:
    for metric, cell in zip(metrics, row["cells"]):
      if cell["text"]:
        numbers = [cell[part] for part in ("value", "low", "high", "n")]
        writer.writerow([row["label"], metric.id, metric.unit, *numbers])
  return out.getvalue()
