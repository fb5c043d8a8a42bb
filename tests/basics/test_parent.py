"""Children end with the process that started them, however that ends."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

POOL = """
from concurrent import futures
import multiprocessing, os, time
from v2a_jax.basics.parent import end_with_parent

def work(_):
  print(os.getpid(), flush=True)
  time.sleep(100)

if __name__ == "__main__":
  spawn = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(2, spawn, end_with_parent) as pool:
    list(pool.map(work, range(2)))
"""
RUN = """
import time
from v2a_jax.basics.parent import stop_with_launcher
stop_with_launcher()
print("started", flush=True)
time.sleep(100)
"""


def start(tmp_path, code, **env):
  script = tmp_path / "script.py"
  script.write_text(code)
  root = str(pathlib.Path(__file__).parents[2])
  path = os.pathsep.join([root, *sys.path])
  return subprocess.Popen(
    [sys.executable, script],
    stdout=subprocess.PIPE,
    env=os.environ | {"PYTHONPATH": path} | env,
  )


def is_running(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
  except (FileNotFoundError, ProcessLookupError):
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_a_pool_end_with_it(tmp_path, number):
  process = start(tmp_path, POOL)
  workers = [int(process.stdout.readline()) for _ in range(2)]
  process.send_signal(number)
  process.wait()
  deadline = time.monotonic() + 5
  while any(map(is_running, workers)):
    assert time.monotonic() < deadline, "workers live on"
    time.sleep(0.05)


def test_a_run_is_stopped_when_its_launcher_is_killed(tmp_path):
  launcher = subprocess.Popen(["sleep", "100"])
  run = start(tmp_path, RUN, V2A_END_WITH=str(launcher.pid))
  assert run.stdout.readline() == b"started\n"
  assert run.poll() is None
  launcher.kill()
  launcher.wait()
  assert run.wait(timeout=5) == -signal.SIGTERM
  # Nor does one begin whose launcher is gone already.
  late = start(tmp_path, RUN, V2A_END_WITH=str(launcher.pid))
  assert late.wait(timeout=10) == -signal.SIGTERM
