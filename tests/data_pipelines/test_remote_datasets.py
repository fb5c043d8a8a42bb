"""Data sets on object stores: built there, read through copies, reported on."""

import pickle

import pytest

from data_pipelines import report
from data_pipelines.loader import make_loader
from data_pipelines.manifest import MANIFEST, read_manifest
from data_pipelines.schema import DataError
from data_pipelines.shard import BuildError
from data_pipelines.source import open_source
from tests.data_pipelines.samples import (
  assert_same,
  clip_record,
  film_config,
  write,
)
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.store import StoreError

NUM = 6


@pytest.fixture(scope="module")
def records():
  return [clip_record(i, seconds=1.0) for i in range(NUM)]


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
  """Folder of the copies of shards."""
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "files"


def read(path):
  with make_loader(film_config(path)) as loader:
    return [next(loader) for _ in range(4)]


def shards_in(copies):
  return sorted(path.name for path in copies.rglob("*array_record*"))


def test_batches_are_those_of_the_local_data_set(
  store_url, records, tmp_path, copies
):
  local = write(tmp_path / "ds", records, shard_mb=0.002)
  remote = f"{store_url}/ds"
  assert write(remote, records, shard_mb=0.002) == remote
  names = sorted(path.name for path in (tmp_path / "ds").iterdir())
  assert sorted(as_path(remote).sizes()) == names
  ours, theirs = read_manifest(local), read_manifest(remote)
  assert ours == theirs and len(ours["shards"]) > 2
  assert not list((tmp_path / "cache" / "builds").iterdir())
  assert_same(read(local), read(remote))
  wanted = [s["file"] for s in ours["shards"] if s["split"] == "train"]
  assert shards_in(copies) == wanted


def test_a_shard_is_copied_when_it_is_first_read(s3_url, records, copies):
  path = write(f"{s3_url}/ds", records, shard_mb=0.002)
  source = pickle.loads(pickle.dumps(open_source(path, "all")))
  assert len(source) == NUM and shards_in(copies) == []
  first = source[0]
  assert len(shards_in(copies)) == 1
  source[NUM - 1]
  assert len(shards_in(copies)) == 2
  for name in (p.name for p in as_path(path).iterdir()):
    if "array_record" in name:
      (as_path(path) / name).unlink()
  again = pickle.loads(pickle.dumps(source))  # As another process opens it.
  assert again[0] == first


def test_a_shard_that_is_cut_off_or_altered_is_refused(s3_url, records):
  path = as_path(write(f"{s3_url}/ds", records))
  shard = path / read_manifest(path)["shards"][0]["file"]
  content = shard.read_bytes()
  shard.write_bytes(content[:-1])
  with pytest.raises(DataError, match=f"{shard} has .* cut off or altered"):
    open_source(path)
  shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  with pytest.raises(DataError, match=f"{shard} has another sha256"):
    open_source(path)[0]
  shard.unlink()
  with pytest.raises(DataError, match=f"{shard}: No such file"):
    open_source(path)


def test_a_build_that_is_done_is_not_repeated_or_replaced(s3_url, records):
  path = write(f"{s3_url}/ds", records)
  assert write(path, records) == path
  with pytest.raises(BuildError, match="is a data set built from other files"):
    write(path, records[:2])
  (as_path(path) / "report.html").write_text("old")
  write(path, records[:2], overwrite=True)
  assert read_manifest(path)["counts"]["clips_kept"] == 2
  assert "report.html" not in as_path(path).sizes()


def test_without_its_manifest_it_is_no_data_set(s3_url, records):
  path = write(f"{s3_url}/ds", records)
  (as_path(path) / MANIFEST).unlink()
  with pytest.raises(DataError, match=f"{path} has no {MANIFEST}"):
    open_source(path)
  with pytest.raises(BuildError, match="exists and is no data set"):
    write(path, records)


def test_a_report_is_written_into_the_data_set(store_url, records):
  path = write(f"{store_url}/ds", records)
  page = report.write_report(path, num=1)
  assert str(page) == f"{path}/report.html"
  assert "<html" in page.read_text()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_does_not_exist_is_named(object_stores, scheme, records):
  words = f"there is no bucket {scheme}://absent"
  with pytest.raises(StoreError, match=words):
    read(f"{scheme}://absent/ds")
  with pytest.raises(StoreError, match=words):
    write(f"{scheme}://absent/ds", records)
