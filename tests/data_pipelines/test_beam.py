"""Builds by Apache Beam: the pool's bytes, continued after an interruption."""

from concurrent import futures
import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest

from data_pipelines import writer
from data_pipelines.assemble import OutputOptions, assemble
from data_pipelines.beam import BeamOptions, parts_place
from data_pipelines.build import build_folder
from data_pipelines.clips import ClipOptions
from data_pipelines.shard import BuildError
from data_pipelines.source import open_source
from tests.data_pipelines.samples import (
  contents,
  plan_of,
  sound_record,
  write_clip,
)
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.settings import SettingError

HOLD = """
import sys
from v2a_jax.basics import claim
with claim.held(sys.argv[1], lease_seconds=1.0):
  print("held", flush=True)
  sys.stdin.read()
"""
DIRECT = BeamOptions(runner="DirectRunner", chunk=2)


@pytest.fixture
def beam():
  return pytest.importorskip(
    "apache_beam", reason="pip install 'v2a_jax[beam]'"
  )


@pytest.fixture
def clips(tmp_path):
  """Clips of two stretches and of one, copies of one, and a broken file."""
  root = tmp_path / "clips"
  write_clip(root / "a.mp4")
  write_clip(root / "b.mp4", seconds=2.0, flash=0.75)
  write_clip(root / "sub/c.mp4", size=(320, 480), flash=0.25)
  (root / "d.mp4").write_bytes((root / "a.mp4").read_bytes())
  with tarfile.open(root / "packed.tar", "w") as archive:
    for name in ("a.mp4", "sub/c.mp4"):
      archive.add(root / name, name)
  (root / "sub/c.mp4").unlink()
  (root / "broken.mp4").write_bytes(b"not a clip" * 9)
  (root / "table.csv").write_text(
    "file,caption\nclips/a.mp4,a dog\nc.mp4,rain\n"
  )
  return root


def build(root, out, **settings):
  return build_folder(
    root,
    out=out,
    captions_csv=root / "table.csv",
    options=ClipOptions(max_seconds=1.0),
    output=OutputOptions(shard_mb=0.01),
    log=lambda _: None,
    **settings,
  )


def test_a_pipeline_writes_the_bytes_of_the_pool(beam, clips, tmp_path):
  manifest = build(clips, tmp_path / "pool")
  assert build(clips, tmp_path / "beam", beam=DIRECT) == manifest
  assert manifest["drops"] == {"duplicate": 2, "unreadable": 1}
  assert len(manifest["shards"]) > 1
  assert contents(tmp_path / "beam") == contents(tmp_path / "pool")
  assert not parts_place(tmp_path / "beam").exists()


def make(key, *, by_key, broken, marks):
  """Makes a record; leaves a mark for each time that it does."""
  (pathlib.Path(marks) / f"{key}-{len(os.listdir(marks))}").touch()
  if key == broken:
    raise RuntimeError(f"{key} cannot be made")
  return by_key(key)


def by_name(key):
  index = int(key.removeprefix("sound"))
  return plan_of([sound_record(index)])[1](key)


def assemble_sounds(out, marks, *, broken="", **settings):
  plan, _ = plan_of([sound_record(i) for i in range(6)])
  return assemble(
    plan,
    out=out,
    make=functools.partial(make, by_key=by_name, broken=broken, marks=marks),
    pool=futures.ThreadPoolExecutor,
    output=OutputOptions(workers=1),
    log=lambda _: None,
    **settings,
  )


def test_a_pipeline_that_failed_makes_only_what_is_missing(beam, tmp_path):
  marks, out = tmp_path / "marks", tmp_path / "ds"
  marks.mkdir()
  with pytest.raises(BuildError, match="sound005 cannot be made") as error:
    assemble_sounds(out, str(marks), broken="sound005", beam=DIRECT)
  assert "\n" not in str(error.value) and "same command" in str(error.value)
  assert not out.exists()
  done = {p.name for p in parts_place(out).iterdir()}
  for mark in marks.iterdir():
    mark.unlink()
  assemble_sounds(out, str(marks), beam=DIRECT)
  made = {mark.name.partition("-")[0] for mark in marks.iterdir()}
  assert len(made) == 6 - 2 * len(done) and "sound005" in made
  assemble_sounds(tmp_path / "pool", str(marks))
  assert contents(out) == contents(tmp_path / "pool")


@pytest.mark.parametrize("chunk", [2, 3])
def test_a_build_that_stops_while_shards_are_written_doubles_no_record(
  chunk, beam, tmp_path, monkeypatch
):
  """Continued with chunks of the same size or another."""
  marks, out = tmp_path / "marks", tmp_path / "ds"
  marks.mkdir()
  add, added = writer.DatasetWriter.add, []

  def stop(self, outcome, records):
    if len(added) == 3:
      raise KeyboardInterrupt
    added.append(outcome)
    add(self, outcome, records)

  with monkeypatch.context() as patch:
    patch.setattr(writer.DatasetWriter, "add", stop)
    with pytest.raises(KeyboardInterrupt):
      assemble_sounds(out, str(marks), beam=DIRECT)
  again = dataclasses.replace(DIRECT, chunk=chunk)
  manifest = assemble_sounds(out, str(marks), beam=again)
  ids = [record["id"] for record in open_source(out, "all")]
  assert sorted(ids) == [f"sound{i:03d}" for i in range(6)]
  assert manifest["counts"]["clips_kept"] == 6
  assert not parts_place(out).exists()


@pytest.mark.parametrize(
  "options,said",
  [
    ("'", 'beam_options="\'": No closing quotation'),
    ("--direct_num_workers=many", "invalid int value: 'many'"),
  ],
)
def test_options_that_are_none_are_one_line(beam, options, said, tmp_path):
  marks, out = tmp_path / "marks", tmp_path / "ds"
  marks.mkdir()
  with pytest.raises((SettingError, BuildError)) as error:
    chosen = BeamOptions(runner="DirectRunner", beam_options=options)
    assemble_sounds(out, str(marks), beam=chosen)
  assert said in str(error.value) and "\n" not in str(error.value)
  assert not parts_place(out).exists()  # Nothing was made.


def test_parts_may_be_on_an_object_store(
  beam, store_url, tmp_path, monkeypatch
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  marks = tmp_path / "marks"
  marks.mkdir()
  remote = f"{store_url}/beam"
  assemble_sounds(remote, str(marks), beam=DIRECT)
  assemble_sounds(tmp_path / "pool", str(marks))
  stored = as_path(remote)
  for name, data in contents(tmp_path / "pool").items():
    assert (stored / name).read_bytes() == data
  assert not any(parts_place(remote).iterdir())


def test_two_machines_do_not_build_in_one_folder_of_a_store(
  s3_url, tmp_path, monkeypatch
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  remote = f"{s3_url}/twice"
  holder = subprocess.Popen(
    [sys.executable, "-c", HOLD, f"{remote}.building"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  with holder:
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(
      BuildError, match="is being written by process"
    ) as error:
      assemble_sounds(remote, str(tmp_path))
    holder.communicate()
  assert "twice" in str(error.value) and "\n" not in str(error.value)


def test_without_beam_the_package_is_named(clips, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(BuildError, match=r"pip install 'v2a_jax\[beam\]'"):
    build(clips, tmp_path / "ds", beam=DIRECT)
