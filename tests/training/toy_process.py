"""Training of the toy experiment as a process of its own."""

import json
import pathlib
import signal
import subprocess
import sys

from tests.processes import ENVIRONMENT

MESH = dict(data=2, fsdp=2, tensor=2)
_SCRIPT = pathlib.Path(__file__).with_name("toy_training.py")


def start(workdir, **settings):
  """Starts `toy_training.py`; `settings` are those of its experiment."""
  settings = {"workdir": str(workdir), "mesh": MESH, **settings}
  return subprocess.Popen(
    [sys.executable, str(_SCRIPT), json.dumps(settings)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=ENVIRONMENT,
    # Tests that were started with nohup must not pass that on.
    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
  )


def read_until(process, words):
  """Reads lines until one starts with `words`; returns what was read."""
  lines = []
  for line in process.stdout:
    lines.append(line)
    if line.startswith(words):
      return lines
  raise AssertionError("".join(lines))
