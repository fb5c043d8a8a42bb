"""What code that a hostile file runs in the decoder can reach: nothing."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

from media_synthetic import numbered
import numpy as np
import pytest

from v2a_jax import media
from v2a_jax.media import confine, sandbox, wire

pytestmark = pytest.mark.skipif(
  set(sandbox.enforced()) != {"landlock", "seccomp"},
  reason="this kernel has no Landlock or no seccomp",
)


def _in_child(code: str, *arguments):
  """Evaluates an expression in the reading process; `a` are the arguments."""
  # In a dict, because the parent opens paths among the arguments themselves.
  return media.run_limited(eval, code, {"a": [str(x) for x in arguments]})


@pytest.fixture
def secret(tmp_path):
  path = tmp_path / "secret.txt"
  path.write_text("of another file")
  return path


@pytest.mark.parametrize(
  "code",
  [
    "open(a[0]).read()",
    "open(a[0], 'a')",
    "open(a[0] + '.new', 'w')",
    "open('/etc/passwd').read()",
    "open('/proc/self/environ').read()",
    "open('/proc/%d/environ' % __import__('os').getppid()).read()",
    "open('/proc/self/mem', 'r+b')",
    "__import__('os').listdir('/')",
    "__import__('os').unlink(a[0])",
    "__import__('os').rename(a[0], a[0] + '2')",
    "__import__('os').chmod(a[0], 0o777)",
    "__import__('os').chown(a[0], 0, 0)",
    "__import__('os').truncate(a[0], 0)",
    "__import__('os').utime(a[0])",
    "__import__('os').mkdir(a[0] + '.d')",
    "__import__('os').symlink('/', a[0] + '.l')",
    "__import__('os').setxattr(a[0], 'user.x', b'')",
  ],
)
def test_no_other_file_can_be_read_or_changed(secret, code):
  before = secret.stat()
  with pytest.raises(media.MediaError, match="PermissionError"):
    _in_child(code, secret)
  assert secret.read_text() == "of another file"
  after = secret.stat()
  assert (before.st_mode, before.st_mtime) == (after.st_mode, after.st_mtime)
  assert list(secret.parent.iterdir()) == [secret]


@pytest.mark.parametrize(
  "family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_network(family, kind):
  code = f"__import__('socket').socket({int(family)}, {int(kind)})"
  with pytest.raises(media.MediaError, match="PermissionError"):
    _in_child(code)


def test_a_local_listener_is_out_of_reach():
  with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
    code = (
      f"__import__('socket').create_connection({server.getsockname()!r}, 1)"
    )
    with pytest.raises(media.MediaError, match="PermissionError"):
      _in_child(code)


@pytest.mark.parametrize(
  "code",
  [
    "__import__('os').system('true') and 1/0",
    "__import__('os').fork()",
    "__import__('os').execv('/bin/true', ['true'])",
    "__import__('os').posix_spawn('/bin/true', ['true'], {})",
    "__import__('os').kill(__import__('os').getppid(), 0)",
    "__import__('os').pidfd_open(__import__('os').getppid())",
  ],
)
def test_no_program_and_no_other_process(code):
  with pytest.raises(
    media.MediaError, match="PermissionError|ZeroDivisionError"
  ):
    _in_child(code)


def test_no_environment(monkeypatch):
  monkeypatch.setenv("V2A_WATERMARK_KEY", "my own key")
  monkeypatch.setattr(sandbox, "_idle", [])  # a new child, with this variable
  assert _in_child("dict(__import__('os').environ)") == {}
  names = "b'V2A_WATERMARK_KEY'"
  assert _in_child(f"__import__('os').environb.get({names})") is None


def test_only_the_file_of_the_call_is_open(tmp_path):
  clip = media.encode_video(numbered(5), fps=5, path=tmp_path / "a.mp4")
  assert media.probe_limited(clip).fps == 5
  opened = (
    "[o.readlink('/proc/self/fd/%d' % n) for o in [__import__('os')]"
    " for n in range(64) if o.path.lexists('/proc/self/fd/%d' % n)]"
  )
  assert str(clip) not in _in_child(opened)
  with sandbox._opened((str(clip),), None) as files:
    with pytest.raises(OSError, match="Bad file descriptor"):
      os.write(files[str(clip)], b"x")


@pytest.mark.parametrize(
  ("missing", "enforced"),
  [
    ("c._restrict_files = lambda libc: False", ("seccomp",)),
    ("c._filter_calls = lambda libc, **_: False", ("landlock",)),
    ("c.confine = lambda: ()", ()),
  ],
)
def test_a_kernel_that_lacks_a_means_is_said_and_files_are_read(
  tmp_path, secret, monkeypatch, missing, enforced
):
  monkeypatch.setattr(
    sandbox,
    "_CHILD",
    f"from v2a_jax.media import confine as c; {missing}; {sandbox._CHILD}",
  )
  monkeypatch.setattr(sandbox, "_idle", [])
  clip = media.encode_video(numbered(5), fps=5, path=tmp_path / "a.mp4")
  assert media.probe_limited(clip).fps == 5
  (worker,) = sandbox._idle
  assert worker.enforced == enforced
  said = confine.describe(enforced)
  if enforced:
    with pytest.raises(media.MediaError, match="PermissionError"):
      _in_child("open(a[0]).read()", secret)
    assert "no other file" in said
    assert ("no network" in said) == ("seccomp" in enforced)
  else:
    assert "limits of work and memory only" in said
  worker.kill()


def test_threads_still_start():
  code = (
    "[t.start() or t.join() or t.is_alive() for t in"
    " [__import__('threading').Thread(target=int)]]"
  )
  assert _in_child(code) == [False]


def test_the_child_ends_with_a_parent_that_is_killed_while_it_works():
  code = (
    "import os, threading, time\n"
    "from v2a_jax import media\n"
    "print(media.run_limited(os.getpid), flush=True)\n"
    "end = lambda: (time.sleep(1), os.kill(os.getpid(), 9))\n"
    "threading.Thread(target=end).start()\n"
    "media.run_limited(time.sleep, 60)\n"
  )
  env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
  pid = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=env
  ).stdout.strip()
  for _ in range(100):
    try:
      state = pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2]
    except OSError:
      return
    if state == "Z":  # ended, not yet reaped
      return
    time.sleep(0.05)
  raise AssertionError(f"process {pid} lives on")


@pytest.mark.parametrize(
  "value",
  [
    None,
    {"a": [1, 2.5, True, "x", b"y"], "b": (None, float("inf"))},
    media.Video(frames=np.ones((2, 1, 1, 3), np.uint8), times=np.zeros(2)),
  ],
)
def test_results_are_sent_as_data(value):
  header, buffers = wire.encode(value)
  again = wire.decode(header, [bytearray(b) for b in buffers])
  assert repr(again) == repr(value)


@pytest.mark.parametrize(
  ("header", "buffers"),
  [
    (b"", []),
    (b"{}", []),
    (b'["os.system", "true"]', []),
    (b'["record", "MediaError", "a", "b", "c"]', []),
    (b'["record", "Video", 1]', []),
    (b'["array", "|O", [1]]', [bytearray(8)]),
    (b'["array", "<f4", [-1, -1]]', [bytearray(4)]),
    (b'["array", "<f4", [1000000000000]]', [bytearray(4)]),
    (b'["array", "|u1", [1]]', []),
    (b'["fraction", 1, 0]', []),
    (b"[" * 100_000, []),
    (b"1", [bytearray(1)]),
    (b"\xff", []),
  ],
)
def test_forged_messages_are_refused(header, buffers):
  with pytest.raises(wire.WireError):
    wire.decode(header, buffers)
