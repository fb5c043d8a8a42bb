"""A static page on a sweep, for a screen on the wall."""

from collections.abc import Mapping, Sequence
import datetime
import pathlib
from typing import Any

import jinja2

from launch.sweep import plan as plan_lib
from launch.sweep import status
from v2a_jax.basics import files

_TEMPLATE = pathlib.Path(__file__).parents[1] / "templates" / "sweep.html.j2"


def write(
  plan: plan_lib.Plan, rows: Sequence[Mapping[str, Any]], path: pathlib.Path
) -> None:
  """Writes the page, which loads itself again every minute.

  Args:
    plan: the sweep.
    rows: rows of `status.rows`.
    path: file to write.
  """
  now = datetime.datetime.now().astimezone()
  template = jinja2.Template(_TEMPLATE.read_text(), autoescape=True)
  text = template.render(
    title=plan_lib.header(plan),
    columns=list(status.COLUMNS.values()),
    rows=[
      {
        "kind": row["state"].partition(" ")[0].lower().replace("'", ""),
        "percent": row["percent"] or 0,
        "cells": [status.cell(row, key) for key in status.COLUMNS],
        "notes": status.notes(row),
      }
      for row in rows
    ],
    summary=status.summary(plan, rows),
    written=now.isoformat(sep=" ", timespec="seconds"),
  )
  files.write_whole(path, text)
