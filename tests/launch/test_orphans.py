"""Commands that are killed: nothing that they have started lives on."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.data_pipelines.samples import sound_record, write
from tests.launch.commands import ROOT
from tests.processes import ENVIRONMENT, all_end, descendants

QUICK_START = """
import sys
from launch import quickstart
quickstart.run(sys.argv[1:])
"""
# What it starts holds none of its pipes, and has a child of its own.
LABELLER = "sh -c 'sleep 97 >&- 2>&- <&- & sleep 98 >&- 2>&- <&-'"


def start(*args, cwd=ROOT, **env):
  return subprocess.Popen(
    [sys.executable, *map(str, args)],
    cwd=cwd,
    env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | env,
    stdout=subprocess.DEVNULL,
  )


def killed(process, count, *, with_words="", number=signal.SIGKILL) -> bool:
  """Kills a process when it has started others; says whether these end.

  Args:
    process: what is killed.
    count: number of processes, started by it or by those, that are waited for.
    with_words: what the command line of one of them has in it.
    number: signal that it gets.
  """
  deadline = time.monotonic() + 60
  while True:
    others = descendants(process.pid)
    if len(others) >= count and any(with_words in line(o) for o in others):
      break
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.05)
  process.send_signal(number)
  process.wait()
  ended = all_end(others)
  for other in others if not ended else ():
    os.kill(other, signal.SIGKILL)
  return ended


def line(pid: int) -> str:
  try:
    with open(f"/proc/{pid}/cmdline") as file:
      return file.read().replace("\0", " ")
  except OSError:
    return ""


@pytest.fixture
def annotation(tmp_path):
  """Arguments of `v2a` that start a labeller which never answers."""
  data = write(tmp_path / "ds", [sound_record(0)])
  return ["data", "annotate", data, "--name", "x", "--command", LABELLER]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_labeller_ends_with_the_command_that_asks_it(annotation, number):
  process = start("-m", "launch.cli", *annotation)
  assert killed(process, 4, with_words="sleep 98", number=number)


def test_steps_of_the_quick_start_end_with_it(annotation):
  process = start("-c", QUICK_START, *annotation)
  assert killed(process, 5, with_words="sleep 98")


def test_workers_that_render_end_with_the_command(tmp_path):
  process = start(
    *("-m", "launch.cli", "data", "scenes", "-o", tmp_path / "scenes"),
    *("--num", 400, "--workers", 2),
  )
  assert killed(process, 2, with_words="spawn_main")


def test_pip_ends_with_the_command_that_fetches_by_it(tmp_path):
  with socket.create_server(("127.0.0.1", 0)) as silent:
    process = start(
      *("-m", "launch.cli", "weights", "fetch", "aisfx"),
      V2A_CACHE=str(tmp_path),
      V2A_WEIGHTS="",
      PIP_CONFIG_FILE=os.devnull,
      PIP_INDEX_URL=f"http://127.0.0.1:{silent.getsockname()[1]}/simple",
    )
    assert killed(process, 1, with_words="pip download")
