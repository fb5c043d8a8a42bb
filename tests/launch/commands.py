"""Ways to run `v2a` that the tests of several files share."""

import os
import pathlib
import subprocess
import sys

from launch import cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENV = {
  **os.environ,
  "JAX_PLATFORMS": "cpu",
  "PYTHONPATH": str(ROOT),  # Commands run in folders of their own.
}


def v2a(*args, cwd=ROOT, env=None) -> subprocess.CompletedProcess:
  """Runs the command in a process of its own."""
  return _run("-m", "launch.cli", *map(str, args), cwd=cwd, env=env)


def python(code: str, env=None) -> subprocess.CompletedProcess:
  """Runs code in a process of its own."""
  return _run("-c", code, env=env)


def _run(*args, cwd=ROOT, env=None) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, *args],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=ENV | (env or {}),
  )


def succeeds(capsys, *args) -> str:
  """Runs the command in this process; returns what it prints."""
  capsys.readouterr()
  code = cli.main([str(arg) for arg in args])
  shown = capsys.readouterr()
  assert code == 0, shown.err
  return shown.out


def refused(capsys, *args) -> str:
  """Returns the one line of a command that must fail and print nothing else."""
  capsys.readouterr()
  assert cli.main([str(arg) for arg in args]) == 2
  shown = capsys.readouterr()
  assert not shown.out
  assert shown.err.count("\n") == 1, shown.err
  assert shown.err.startswith("v2a")
  return shown.err
