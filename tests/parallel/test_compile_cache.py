"""Compiled programs: kept where only their user can write, and found again."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import json, logging, sys
logging.basicConfig(stream=sys.stderr, format="%(message)s")
import jax
hits = []
jax.monitoring.register_event_listener(
  lambda event, **_: hits.append(event.endswith("/cache_hits")))
from v2a_jax.parallel import compile_cache
folder = compile_cache.enable()
jax.jit(lambda x: x * 3 + 1)(1.0)
print(json.dumps([folder, sum(hits)]))
"""


def run(home, **env):
  """Compiles in a process of its own: (folder, cache hits, warnings)."""
  env = {
    **{k: v for k, v in os.environ.items() if not k.endswith("CACHE_DIR")},
    "HOME": str(home),
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "PYTHONPATH": str(ROOT),
    "V2A_COMPILE_CACHE": "",
    **env,
  }
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  return *json.loads(done.stdout), done.stderr


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
  folder = tmp_path / ".cache" / "v2a_jax" / "xla"
  first, second = run(tmp_path), run(tmp_path)
  assert first[:2] == (str(folder), 0), first[2]
  assert second[0] == str(folder) and second[1] >= 1
  assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_is_not_used(mode, tmp_path):
  shared = tmp_path / "shared"
  shared.mkdir()
  shared.chmod(mode)
  folder, hits, warnings = run(tmp_path, V2A_COMPILE_CACHE=str(shared))
  assert (folder, hits) == (None, 0) and not list(shared.iterdir())
  (line,) = warnings.splitlines()
  assert f"{shared} can be written by others (mode {mode:04o})" in line
  assert "V2A_COMPILE_CACHE" in line


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a folder away")
def test_a_folder_of_another_user_is_not_used(tmp_path):
  foreign = tmp_path / "foreign"
  foreign.mkdir(mode=0o700)
  os.chown(foreign, 12345, 12345)
  folder, _, warnings = run(tmp_path, V2A_COMPILE_CACHE=str(foreign))
  assert folder is None and "belongs to another user (id 12345)" in warnings


def test_it_can_be_off(tmp_path):
  assert run(tmp_path, V2A_COMPILE_CACHE="off") == (None, 0, "")
  assert not (tmp_path / ".cache").exists()
