"""Children end with the process that started them, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.processes import ENVIRONMENT, all_end, is_running
from v2a_jax.basics import parent

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
# Is killed when it has started that many processes for its session.
SESSION = """
import os, signal, subprocess, sys
from v2a_jax.basics import parent
left = int(sys.argv[1])
class Popen(subprocess.Popen):
  def __init__(self, *args, **options):
    global left
    super().__init__(*args, **options)
    print(self.pid, flush=True)
    left -= 1
    if not left:
      os.kill(os.getpid(), signal.SIGKILL)
subprocess.Popen = Popen
with parent.session(["sleep", "97"], stdout=subprocess.DEVNULL):
  pass
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


@pytest.mark.parametrize("started", [1, 2])
def test_a_session_ends_however_early_its_process_is_killed(tmp_path, started):
  process = start(tmp_path, SESSION, str(started))
  pids = [int(line) for line in process.stdout]
  assert process.wait() == -signal.SIGKILL and len(pids) == started
  ended = all_end(pids)
  for pid in () if ended else filter(is_running, pids):
    os.kill(pid, signal.SIGKILL)
  assert ended


def test_a_session_is_killed_with_all_that_it_has_started():
  command = ["sh", "-c", "sleep 97 & echo $! $$; wait"]
  with parent.session(command, stdout=subprocess.PIPE) as process:
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert all(map(is_running, pids))
  assert all_end(pids) and process.returncode == -signal.SIGKILL


def test_a_program_that_is_not_there_is_an_error_at_once():
  with pytest.raises(FileNotFoundError):
    parent.run(["/no/such/program"])
