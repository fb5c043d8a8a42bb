"""Children end with the process that started them, however that ends."""

import signal
import subprocess
import sys
import time

import pytest

from tests.processes import ENVIRONMENT, all_end, is_running

POOL = """
from concurrent import futures
import multiprocessing, os, time
from v2a_jax.basics.parent import end_with_parent

def work(_):
  os.write(1, b"%d\\n" % os.getpid())  # In one piece: two write at once.
  time.sleep(100)

if __name__ == "__main__":
  spawn = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(2, spawn, end_with_parent) as pool:
    list(pool.map(work, range(2)))
"""
RUN = """
import os, signal, sys, time
from v2a_jax.basics.parent import stop_with_launcher
def save(*_):
  print("saved", flush=True)
  sys.exit()
signal.signal(signal.SIGTERM, save)
stop_with_launcher()
print(os.getpid(), flush=True)
time.sleep(100)
"""


LAUNCHER = """
import subprocess, sys, time
from v2a_jax.basics.parent import lifeline
with lifeline() as inherited:
  subprocess.Popen([sys.executable, sys.argv[1]], **inherited)
  time.sleep(100)
"""


def start(tmp_path, code, *arguments, **env):
  script = tmp_path / f"script{len(list(tmp_path.iterdir()))}.py"
  script.write_text(code)
  return subprocess.Popen(
    [sys.executable, script, *arguments],
    stdout=subprocess.PIPE,
    env=ENVIRONMENT | env,
  )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_a_pool_end_with_it(tmp_path, number):
  process = start(tmp_path, POOL)
  workers = [int(process.stdout.readline()) for _ in range(2)]
  process.send_signal(number)
  process.wait()
  assert all_end(workers)


def test_a_run_is_stopped_when_its_launcher_is_killed(tmp_path):
  run = tmp_path / "run.py"
  run.write_text(RUN)
  launcher = start(tmp_path, LAUNCHER, run)
  number = int(launcher.stdout.readline())
  time.sleep(0.5)
  assert is_running(number)
  launcher.kill()
  launcher.wait()
  assert launcher.stdout.read() == b"saved\n"  # Its handler of SIGTERM ran.
  assert all_end([number])


def test_a_job_that_only_inherited_the_environment_goes_on(tmp_path):
  """As one that a scheduler started after the launcher submitted it."""
  for stale in ("7:12345", "0:1", "x", ""):
    run = start(tmp_path, RUN, V2A_END_WITH=stale)
    assert run.stdout.readline()
    time.sleep(0.2)
    assert run.poll() is None
    run.kill()
    run.wait()
