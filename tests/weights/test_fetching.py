"""Fetching from a server on this machine: cut off, wrong, unlicensed."""

import dataclasses
import hashlib
import http.server
import json
import os
import re
import threading

import numpy as np
import pytest

from v2a_jax.basics import progress
from v2a_jax.weights import catalog, fetching, registry

SIZE = 300_000
DATA = np.random.default_rng(0).bytes(SIZE)


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.contents` with ranges, as far as `server.cut` bytes."""

  protocol_version = "HTTP/1.1"

  def do_GET(self):
    server, data = self.server, self.server.contents.get(self.path)
    asked = self.headers.get("Range")
    server.asked.append(asked)
    if data is None:
      self.send_error(404)
      return
    start = 0
    if asked and self.headers.get("If-Range", server.tag) == server.tag:
      start = int(asked.removeprefix("bytes=").rstrip("-"))
    if start >= len(data):
      self.send_response(416)
      self.send_header("Content-Range", f"bytes */{len(data)}")
      self.send_header("Content-Length", "0")
      self.end_headers()
      return
    self.send_response(206 if start else 200)
    if start:
      place = f"bytes {start}-{len(data) - 1}/{len(data)}"
      self.send_header("Content-Range", place)
    self.send_header("Content-Length", str(len(data) - start))
    if server.tag:
      self.send_header("ETag", server.tag)
    self.end_headers()
    self.wfile.write(data[start : start + server.cut])
    self.close_connection = True

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
    running.contents = {"/a.pth": DATA, "/b.pth": DATA[::-1]}
    running.asked, running.cut, running.tag = [], SIZE, '"1"'
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()


@pytest.fixture
def entries(server, tmp_path, monkeypatch):
  """Two entries and a set of both, an empty cache and no search path."""
  for name, data in (("a", DATA), ("b", DATA[::-1])):
    entry = registry.Weights(
      name=name,
      file=f"{name}.pth",
      md5=hashlib.md5(data).hexdigest(),
      url=f"http://127.0.0.1:{server.server_port}/{name}.pth",
      licence="MIT",
      about="noise",
    )
    monkeypatch.setitem(catalog.WEIGHTS, name, entry)
  monkeypatch.setitem(catalog.SETS, "both", ("a", "b"))
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv(registry.PATH_VARIABLE, raising=False)
  return lambda name, **changes: monkeypatch.setitem(
    catalog.WEIGHTS,
    name,
    dataclasses.replace(catalog.WEIGHTS[name], **changes),
  )


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_with_a_record(entries):
  (path,) = fetching.fetch("a")
  assert path.read_bytes() == DATA and path == registry.find("a")
  assert names(path.parent) == ["a.pth", "a.pth.json"]
  record = json.loads((path.parent / "a.pth.json").read_text())
  assert record["sha256"] == hashlib.sha256(DATA).hexdigest()
  assert record["published"] == f"md5 {hashlib.md5(DATA).hexdigest()}"
  assert record["licence"] == "MIT" and record["url"].endswith("/a.pth")


def test_a_set_brings_what_is_lacking(entries, server):
  fetching.fetch("b")
  assert registry.lacking(registry.listing())["both"] == ["a"]
  paths = fetching.fetch("both")
  assert [path.read_bytes() for path in paths] == [DATA, DATA[::-1]]
  assert len(server.asked) == 2
  assert registry.lacking(registry.listing())["both"] == []


def test_a_connection_that_is_cut_is_continued_at_once(entries, server):
  server.cut = 100_001
  (path,) = fetching.fetch("a")
  assert path.read_bytes() == DATA
  assert server.asked == [None, "bytes=100001-", "bytes=200002-"]


def stop_after(server, count):
  """Answers no more than `count` bytes in all, then nothing."""
  server.cut = count
  contents, first = server.contents, server.contents["/a.pth"]

  class Once(dict):
    def get(self, path):
      found, server.contents = contents.get(path), {}
      return found

  server.contents = Once()
  return lambda: setattr(server, "contents", {**contents, "/a.pth": first})


def test_a_long_download_says_how_far_it_is(
  entries, server, monkeypatch, capsys
):
  """A line every 20 s in a log; here with every piece that comes."""
  monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
  data = server.contents["/a.pth"] = DATA * 10
  server.cut = len(data)
  entries("a", md5=hashlib.md5(data).hexdigest())
  fetching.fetch("a")
  lines = capsys.readouterr().err.splitlines()
  shares = [
    re.match(r"a.pth: (\d)/3 MB \((\d+)%\), .*/s, .* left$", line)
    for line in lines
  ]
  assert len(lines) >= 3 and all(shares)
  assert [int(share[2]) for share in shares] == sorted(
    int(s[2]) for s in shares
  )


def test_a_later_attempt_goes_on_where_the_first_ended(entries, server):
  again = stop_after(server, 1000)
  with pytest.raises(OSError, match="404.*; 1,000 bytes are kept") as caught:
    fetching.fetch("a")
  assert "\n" not in str(caught.value)
  assert "a.pth" not in names(registry.cache_dir())
  again()
  server.asked.clear()
  server.cut = SIZE
  (path,) = fetching.fetch("a")
  assert path.read_bytes() == DATA and server.asked == ["bytes=1000-"]
  assert names(path.parent) == ["a.pth", "a.pth.json"]


def test_parts_of_two_versions_are_not_joined(entries, server):
  entries("a", md5="")  # Nothing would tell that the whole is wrong.
  again = stop_after(server, 1000)
  with pytest.raises(OSError):
    fetching.fetch("a")
  again()
  server.contents["/a.pth"], server.tag = DATA[::-1], '"2"'
  server.cut = SIZE
  (path,) = fetching.fetch("a")
  assert path.read_bytes() == DATA[::-1]


def test_without_version_or_digest_a_cut_file_is_begun_anew(entries, server):
  entries("a", md5="")
  server.tag = ""
  again = stop_after(server, 1000)
  with pytest.raises(OSError):
    fetching.fetch("a")
  again()
  server.asked.clear()
  server.cut = SIZE
  assert fetching.fetch("a")[0].read_bytes() == DATA
  assert server.asked == [None]


def test_a_whole_part_of_an_interrupted_run_is_taken(entries, server):
  folder = registry.cache_dir()
  folder.mkdir(parents=True)
  (folder / ".a.pth.part").write_bytes(DATA)
  (path,) = fetching.fetch("a")
  assert path.read_bytes() == DATA
  assert server.asked == [f"bytes={SIZE}-"]


@pytest.mark.parametrize("excess", [b"", b"more"])
def test_another_file_is_named_and_not_kept(entries, server, excess):
  server.contents["/a.pth"] = DATA[::-1] + excess
  whose = "" if excess else "that of b, "
  with pytest.raises(
    registry.WrongWeightsError, match=f"{whose}but the a weights have"
  ) as caught:
    fetching.fetch("a")
  message = str(caught.value)
  assert message.endswith("nothing was kept") and "\n" not in message
  assert not registry.cache_dir().exists()


def test_a_file_without_a_published_digest_is_held_to_its_record(entries):
  entries("a", md5="")
  (path,) = fetching.fetch("a")
  assert registry.find("a") == path
  path.write_bytes(DATA[:-1])
  with pytest.raises(registry.WrongWeightsError, match="sha256 is"):
    registry.find("a")


def test_a_restricted_licence_has_to_be_accepted(entries, server):
  entries("b", licence="CC-BY-NC-4.0")
  with pytest.raises(fetching.LicenceError) as caught:
    fetching.fetch("both", accept=["MIT"])
  message = str(caught.value)
  assert "not for commercial use" in message and "\n" not in message
  assert message.endswith("add --accept_licence CC-BY-NC-4.0")
  assert not server.asked and not registry.cache_dir().exists()
  paths = fetching.fetch("both", accept=["CC-BY-NC-4.0"])
  assert len(paths) == 2
  # What is here was accepted when it was fetched.
  assert fetching.fetch("both") == paths


def test_without_a_connection_one_line_says_what_is_lacking(entries):
  entries("b", url="http://127.0.0.1:1/b.pth")
  with pytest.raises(OSError) as caught:
    fetching.fetch("both")
  message = str(caught.value)
  assert "weights 'b' could not be fetched from http://127.0.0.1:1" in message
  assert "; download b.pth by other means and set V2A_WEIGHTS" in message
  assert "\n" not in message
  assert registry.find("a").read_bytes() == DATA


def test_files_go_where_they_are_told(entries, tmp_path):
  (path,) = fetching.fetch("a", out=tmp_path / "mine")
  assert path == tmp_path / "mine" / "a.pth" and path.read_bytes() == DATA
  assert not registry.cache_dir().exists()


def test_two_processes_do_not_write_one_file(entries):
  """A lock of this process stands for that of another."""
  import fcntl

  folder = registry.cache_dir()
  folder.mkdir(parents=True)
  with open(folder / ".a.pth.part", "ab") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="another process is writing"):
      fetching.fetch("a")


@pytest.mark.parametrize("name", [".a.pth.part", ".a.pth.part.version"])
def test_a_pipe_in_place_of_a_part_is_refused(name, entries):
  folder = registry.cache_dir()
  folder.mkdir(parents=True)
  os.mkfifo(folder / name)
  with pytest.raises(OSError, match=f"{name} is not a regular file"):
    fetching.fetch("a")
