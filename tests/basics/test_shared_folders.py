"""What processes share: the cache, claims on folders, files that grow."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from v2a_jax.basics import cache, claim, growing, paths


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
  return tmp_path / "cache"


def test_a_local_file_is_not_copied(tmp_path):
  (tmp_path / "x").touch()
  assert cache.fetch(tmp_path / "x") == tmp_path / "x"


def test_a_file_is_copied_once_and_again_when_it_changed(store_url):
  remote = paths.as_path(store_url) / "weights.bin"
  remote.write_bytes(b"one")
  first = cache.fetch(remote)
  assert first.read_bytes() == b"one" and first.name == "weights.bin"
  inode = first.stat().st_ino
  assert cache.fetch(remote).stat().st_ino == inode
  remote.write_bytes(b"other")
  assert cache.fetch(remote).read_bytes() == b"other"


def test_a_file_of_another_size_or_digest_is_not_kept(s3_url, own_cache):
  remote = paths.as_path(s3_url) / "shard"
  remote.write_bytes(b"12345")
  with pytest.raises(OSError, match="shard has 5 bytes, not 7: it is cut off"):
    cache.fetch(remote, size=7)
  with pytest.raises(OSError, match="shard has another sha256"):
    cache.fetch(remote, sha256="0" * 64)
  kept = [p for p in own_cache.rglob("*") if p.is_file() and p.name != "lock"]
  assert not kept


def test_threads_copy_a_file_once(s3_url):
  remote = paths.as_path(s3_url) / "big"
  remote.write_bytes(os.urandom(1 << 20))
  inodes = set()
  fetch = lambda: inodes.add(cache.fetch(remote).stat().st_ino)
  threads = [threading.Thread(target=fetch) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(inodes) == 1


def test_the_cache_is_local(monkeypatch):
  monkeypatch.setenv(cache.VARIABLE, "gs://bucket/cache")
  with pytest.raises(paths.PathError, match="V2A_CACHE.* must be on this mach"):
    cache.root()


HOLD = """
import sys, time
from v2a_jax.basics import claim
with claim.held(sys.argv[1], lease_seconds=1.0):
  print("held", flush=True)
  time.sleep(60)
"""


def hold(folder) -> subprocess.Popen:
  """Starts a process that writes to a folder, and waits until it does."""
  child = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
  )
  assert child.stdout.readline() == "held\n"
  return child


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_folder_has_one_writer(where, tmp_path, s3_url):
  folder = tmp_path / "run" if where == "local" else s3_url
  child = hold(folder)
  words = f"is being written by process {child.pid} on"
  with pytest.raises(claim.ClaimedError, match=words):
    with claim.held(folder, lease_seconds=1.0):
      pass
  child.kill()
  child.wait()
  start = time.monotonic()
  with claim.held(folder, lease_seconds=30.0):  # Its process is gone.
    assert time.monotonic() - start < 5
  left = [path.name for path in paths.as_path(folder).iterdir()]
  assert left == (["lock"] if where == "local" else [])


def test_a_claim_of_another_machine_is_taken_over_if_it_is_silent(s3_url):
  file = paths.as_path(s3_url) / claim.CLAIM
  file.write_text(json.dumps({"id": "a", "host": "elsewhere", "process": 7}))
  with claim.held(s3_url, lease_seconds=0.4):
    assert json.loads(file.read_text())["process"] == os.getpid()


def test_a_claim_that_was_taken_over_ends_its_process(s3_url):
  child = hold(s3_url)
  taken = {"id": "b", "host": "elsewhere", "process": 7}
  (paths.as_path(s3_url) / claim.CLAIM).write_text(json.dumps(taken))
  assert child.wait(timeout=10) == 75


def test_a_growing_file_on_a_store(s3_url):
  path = paths.as_path(s3_url) / "metrics.jsonl"
  path.write_text("0\n")
  file = growing.open_append(path, seconds=60.0)
  file.write("1\n")
  for _ in range(100):
    if path.read_text() == "0\n1\n":
      break
    time.sleep(0.05)
  file.write("2\n")
  time.sleep(0.1)
  assert path.read_text() == "0\n1\n"  # Not before its time.
  file.close()
  assert path.read_text() == "0\n1\n2\n"
