"""Which code a sweep is planned with: commit, changed files, the changes."""

import subprocess
from typing import Any

from launch.config import PACKAGED


def identity() -> tuple[dict[str, Any], str]:
  """Reads the state of the checkout.

  Returns:
    (`commit`, "" outside a checkout, and `changed`, the files that differ from
    it or are new; the changes as a patch, without new files).
  """
  commit = _git("rev-parse", "HEAD").strip()
  if not commit:
    return {"commit": "", "changed": []}, ""
  changed = [line[3:] for line in _git("status", "--porcelain").splitlines()]
  patch = _git("diff", "HEAD", "--binary") if changed else ""
  return {"commit": commit, "changed": changed}, patch


def describe(code: dict[str, Any]) -> str:
  """Returns `code a1b2c3d, 2 files changed`."""
  if not code["commit"]:
    return "code not in a git checkout"
  count = len(code["changed"])
  changed = f", {count} file{'s' * (count > 1)} changed (code.patch)"
  return f"code {code['commit'][:7]}{changed if count else ''}"


def _git(*words: str) -> str:
  """Runs git; returns "" where it is not there or knows no checkout."""
  try:
    done = subprocess.run(
      ["git", *words],
      cwd=PACKAGED,
      capture_output=True,
      text=True,
      errors="replace",
      timeout=60,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ""
  return done.stdout if done.returncode == 0 else ""
