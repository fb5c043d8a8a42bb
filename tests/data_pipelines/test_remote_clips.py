"""Clips that a build reads from object stores."""

import contextlib
import os
import socket
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from data_pipelines import build
from data_pipelines.archives import file_of
from data_pipelines.clips import ClipOptions
from data_pipelines.schema import DataError
from tests.data_pipelines.samples import FILE_RATE, click, read, write_clip
from v2a_jax import media
from v2a_jax.basics.paths import as_path

ALL = ClipOptions(val_fraction=0, test_fraction=0, allow_audio_only=True)


@pytest.fixture
def folder(tmp_path):
  """A film, a sound, what is not read, and an archive with a sound."""
  folder = tmp_path / "clips"
  (folder / "sub").mkdir(parents=True)
  write_clip(folder / "sub/film.mp4", size=(16, 16))
  media.write_wav(folder / "sound.wav", click(0.5, 0.2), FILE_RATE)
  (folder / "sub/read.me").write_text("no clip")
  (folder / ".hidden.wav").write_bytes(b"no clip")
  with tarfile.open(folder / "more.tar", "w") as tar:
    media.write_wav(tmp_path / "17.wav", click(0.6, 0.3), FILE_RATE)
    tar.add(folder / "sub/film.mp4", "first.mp4")
    tar.add(tmp_path / "17.wav", "17.wav")
    (tmp_path / "17.txt").write_text("a click")
    tar.add(tmp_path / "17.txt", "17.txt")
  return folder


def upload(folder, url):
  for path in folder.rglob("*"):
    if path.is_file():
      (as_path(url) / path.relative_to(folder).as_posix()).upload(path)


def made(folder, out, log=lambda line: None):
  return build.build_folder(folder, out=out, options=ALL, log=log)


def same(found, expected):
  assert found.keys() == expected.keys()
  for name, record in expected.items():
    for field, value in record.items():
      assert np.array_equal(found[name][field], value), (name, field)


def test_a_folder_on_a_store_gives_the_records_of_a_local_one(
  folder, store_url, tmp_path
):
  upload(folder, store_url)
  lines = []
  made(store_url, tmp_path / "remote", log=lines.append)
  made(folder, tmp_path / "local")
  expected = read(tmp_path / "local")
  assert len(expected) == 3  # first.mp4 is film.mp4 once more.
  same(read(tmp_path / "remote"), expected)
  assert "2 media files and 1 archives (1 others ignored: 1 .me)" in lines[0]

  # The same build is done; a changed object makes it read again.
  lines.clear()
  made(store_url, tmp_path / "remote", log=lines.append)
  assert "is already built" in " ".join(lines)
  media.write_wav(folder / "sound.wav", click(0.5, 0.4), FILE_RATE)
  upload(folder, store_url)
  made(store_url, tmp_path / "remote")
  made(folder, tmp_path / "local")
  same(read(tmp_path / "remote"), read(tmp_path / "local"))


def test_a_copy_is_gone_after_use(folder, s3_url, tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
  (tmp_path / "scratch").mkdir()
  upload(folder, s3_url)
  with file_of(as_path(s3_url), "sound.wav", {}) as path:
    assert path.read_bytes() == (folder / "sound.wav").read_bytes()
  assert not any((tmp_path / "scratch").iterdir())


def test_an_object_that_is_removed_meanwhile_is_a_drop(
  folder, s3_url, tmp_path
):
  upload(folder, s3_url)
  gone = as_path(s3_url) / "sound.wav"
  remove = lambda line: gone.unlink(missing_ok=True)
  made(s3_url, tmp_path / "ds", log=remove)
  assert set(read(tmp_path / "ds")) == {"more.tar__first", "more.tar__17"}


@pytest.fixture
def server(object_stores):
  """An S3 server in a process of its own, and its address."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  server = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-p", str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  with server:
    while server.poll() is None:
      with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        break
      time.sleep(0.1)
    yield server, f"http://127.0.0.1:{port}"
    server.kill()


def test_a_store_that_stops_ends_the_build_and_drops_nothing(
  folder, server, tmp_path
):
  import s3fs

  server, address = server
  store = s3fs.S3FileSystem(endpoint_url=address, skip_instance_cache=True)
  store.mkdir("stops")
  store.put(str(folder), "stops/clips", recursive=True)
  command = "-m launch.cli data build s3://stops/clips --workers=1 -o".split()
  build = subprocess.Popen(
    [sys.executable, *command, str(tmp_path / "ds")],
    env=os.environ | {"AWS_ENDPOINT_URL": address},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  with build:
    assert "media files" in build.stdout.readline()
    server.kill()
    _, errors = build.communicate(timeout=60)
  assert build.returncode == 2
  (line,) = errors.splitlines()
  assert "s3://stops/clips" in line and "does not answer" in line
  assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize(
  ("url", "says"),
  [
    ("s3://v2a-tests/nothing-here", "no folder"),
    ("s3://no-such-bucket/clips", "there is no bucket s3://no-such-bucket"),
  ],
)
def test_where_nothing_is_that_is_said(url, says, object_stores, tmp_path):
  with pytest.raises((DataError, OSError), match=says) as error:
    made(url, tmp_path / "ds")
  assert "\n" not in str(error.value)
