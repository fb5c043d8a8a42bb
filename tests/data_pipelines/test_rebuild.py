"""Data sets that are brought up to date: only what is new is decoded."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from data_pipelines import build
from data_pipelines.assemble import OutputOptions
from data_pipelines.clips import ClipOptions
from data_pipelines.columns import store
from data_pipelines.writer import BuildError
from tests.data_pipelines.samples import (
  contents,
  flip_byte,
  read,
  write_clip,
)
from tests.launch.commands import ENV, v2a


@pytest.fixture
def folder(tmp_path):
  """Three clips, one of two stretches, one that is too short, one unreadable."""
  root = tmp_path / "clips"
  write_clip(root / "a.mp4")
  write_clip(root / "sub/b.mp4", size=(320, 480), flash=0.25)
  write_clip(root / "long.mp4", seconds=2.0, flash=0.75)
  write_clip(root / "short.mp4", seconds=0.05, flash=0.0)
  (root / "bad.mp4").write_bytes(b"not a clip" * 9)
  table(root, "a.mp4,a dog", "b.mp4,rain")
  return root


OPTIONS = ClipOptions(max_seconds=1.0)
FLAGS = ("--max_seconds=1",)


def table(root, *rows):
  (root / "captions.csv").write_text("\n".join(["file,caption", *rows, ""]))


def build_again(root, out, *, options=OPTIONS, limit=None, **output):
  """Builds in this process; returns the manifest and (taken over, decoded)."""
  lines = []
  manifest = build.build_folder(
    root,
    out=out,
    captions_csv=root / "captions.csv",
    limit=limit,
    options=options,
    output=OutputOptions(**output),
    log=lines.append,
  )
  return manifest, counts("\n".join(lines))


def counts(text):
  found = re.search(r"(\d+) clips were taken over.* (\d+) were decoded", text)
  return found and tuple(map(int, found.groups()))


def assert_as_new(root, out, tmp_path):
  """The data set has the bytes of one that is built at once."""
  build_again(root, tmp_path / "fresh")
  assert contents(out) == contents(tmp_path / "fresh")
  shutil.rmtree(tmp_path / "fresh")


def test_the_command_decodes_what_is_new_and_nothing_else(folder, tmp_path):
  out = tmp_path / "ds"
  flags = (folder, "--captions", folder / "captions.csv", "-o", out, *FLAGS)
  first = v2a("data", "build", *flags)
  assert first.returncode == 0, first.stderr
  assert counts(first.stdout) is None
  table(folder, "a.mp4,a large dog", "b.mp4,rain", "long.mp4,sea")
  again = v2a("data", "build", *flags)
  assert counts(again.stdout) == (4, 0), again.stdout + again.stderr
  assert read(out)["a"]["caption"] == "a large dog"
  write_clip(folder / "c.mp4", flash=0.1)
  write_clip(folder / "a.mp4", flash=0.9)
  (folder / "long.mp4").unlink()
  third = v2a("data", "build", *flags)
  assert counts(third.stdout) == (1, 2), third.stdout + third.stderr
  assert sorted(read(out)) == ["a", "c", "sub__b"]
  assert_as_new(folder, out, tmp_path)


def test_moved_and_renamed_files_are_known_by_their_bytes(folder, tmp_path):
  build_again(folder, tmp_path / "ds")
  (folder / "sub/b.mp4").rename(folder / "rain.mp4")
  os.utime(folder / "a.mp4", (1, 1))
  shutil.copy(folder / "long.mp4", folder / "same.mp4")
  manifest, changed = build_again(folder, tmp_path / "ds")
  assert changed == (4, 0) and manifest["drops"]["duplicate"] == 1
  (folder / "long.mp4").unlink()  # The copy takes its place.
  assert build_again(folder, tmp_path / "ds")[1] == (4, 0)
  assert_as_new(folder, tmp_path / "ds", tmp_path)


def test_a_stretch_that_is_new_is_decoded(folder, tmp_path):
  build_again(folder, tmp_path / "ds")
  (folder / "captions.csv").write_text(
    "file,caption,start,end\nlong.mp4,one,0,1\nlong.mp4,two,1.5,2\n"
  )
  assert build_again(folder, tmp_path / "ds")[1] == (3, 1)
  assert_as_new(folder, tmp_path / "ds", tmp_path)


def test_damaged_records_and_lists_are_read_from_the_files(folder, tmp_path):
  out = tmp_path / "ds"
  manifest, _ = build_again(folder, out, shard_mb=1e-3)
  flip_byte(out / manifest["shards"][0]["file"])
  table(folder, "a.mp4,other")
  _, (taken, decoded) = build_again(folder, out, shard_mb=1e-3)
  assert taken + decoded == 4 and decoded >= 1
  read(out)
  flip_byte(out / "readings.jsonl")
  table(folder, "a.mp4,another")
  assert build_again(folder, out)[1] == (0, 4)
  assert_as_new(folder, out, tmp_path)


def test_another_folder_or_setting_is_refused(folder, tmp_path):
  out = tmp_path / "ds"
  build_again(folder, out)
  before = contents(out)
  shutil.copytree(folder, tmp_path / "other")
  table(tmp_path / "other", "a.mp4,another dog")
  with pytest.raises(BuildError, match="other files or settings.*--overwrite"):
    build_again(tmp_path / "other", out)
  options = ClipOptions(max_seconds=1.0, short_side=16)
  with pytest.raises(BuildError, match="short_side was 256, is 16"):
    build_again(folder, out, options=options)
  assert contents(out) == before
  assert build_again(tmp_path / "other", out, overwrite=True)[1] == (4, 0)
  assert build_again(folder, out, options=options, overwrite=True)[1] == (0, 4)


def test_a_data_set_on_a_store_is_brought_up_to_date(
  folder, tmp_path, s3_url, monkeypatch
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  build_again(folder, f"{s3_url}/ds")
  table(folder, "a.mp4,another")
  manifest, changed = build_again(folder, f"{s3_url}/ds")
  assert changed == (4, 0)
  assert manifest == build_again(folder, tmp_path / "fresh")[0]


def test_a_limit_can_be_raised_and_only_new_files_are_decoded(folder, tmp_path):
  out = tmp_path / "ds"
  build_again(folder, out, limit=1)
  assert build_again(folder, out, limit=3)[1] == (1, 2)
  assert build_again(folder, out)[1] == (3, 1)
  assert_as_new(folder, out, tmp_path)


def test_a_lower_limit_throws_nothing_away(folder, tmp_path):
  out = tmp_path / "ds"
  build_again(folder, out, limit=3)
  with pytest.raises(BuildError, match="--limit was 3, is 1.*--overwrite"):
    build_again(folder, out, limit=1)
  build_again(folder, out)
  before = contents(out)
  with pytest.raises(BuildError, match="--limit was not given, is 3"):
    build_again(folder, out, limit=3)
  assert contents(out) == before


def test_what_an_interrupted_build_has_read_is_taken_over(folder, tmp_path):
  """Killed without warning; then a caption is corrected."""
  script = textwrap.dedent("""
    import os, signal, sys
    from data_pipelines import build, writer
    from data_pipelines.assemble import OutputOptions
    from data_pipelines.clips import ClipOptions
    close = writer.DatasetWriter._close_shard
    def kill(self, split):
      close(self, split)
      if len(self._shards) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    writer.DatasetWriter._close_shard = kill
    build.build_folder(
      sys.argv[1],
      out=sys.argv[2],
      options=ClipOptions(max_seconds=1.0),
      output=OutputOptions(shard_mb=1e-3),
    )
  """)
  out = tmp_path / "ds"
  command = [sys.executable, "-c", script, str(folder), str(out)]
  assert subprocess.run(command, check=False, env=ENV).returncode < 0
  table(folder, "a.mp4,corrected")
  assert build_again(folder, out)[1] == (3, 1)
  assert_as_new(folder, out, tmp_path)


@pytest.mark.parametrize("renames", [1, 2])
def test_an_interrupted_exchange_loses_neither_data_set(
  renames, folder, tmp_path
):
  """As at a crash after the first of two renames, or after both."""
  out, backup = tmp_path / "ds", tmp_path / "ds.old"
  build_again(folder, out)
  shutil.copytree(out, backup)  # A user's own, under a likely name.
  (out / "notes.txt").write_text("mine")
  (out / "columns/mine.arrow").write_bytes(b"mine")
  out.rename(tmp_path / ".ds.replaced")
  table(folder, "a.mp4,other")
  if renames == 2:
    build_again(folder, tmp_path / "new")
    (tmp_path / "new").rename(out)
  manifest, _ = build_again(folder, out)
  assert manifest["counts"]["clips_kept"] == 4
  assert read(out)["a"]["caption"] == "other"
  assert (out / "notes.txt").read_text() == "mine"
  assert (out / "columns/mine.arrow").read_bytes() == b"mine"
  assert not (tmp_path / ".ds.replaced").exists() and backup.is_dir()


def test_who_said_captions_is_forgotten_with_them(folder, tmp_path):
  out = tmp_path / "ds"
  build_again(folder, out)
  assert store.sources(out) == ["provenance"]
  build.build_folder(folder, out=out, options=OPTIONS)
  assert store.sources(out) == []
