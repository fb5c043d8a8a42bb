"""What is written comes back: shards, splits, indices, and damage by name."""

from concurrent import futures
import json
import pickle
import re

import numpy as np
import pytest

from data_pipelines import manifest as manifest_lib
from data_pipelines import schema
from data_pipelines.manifest import find_manifest, fingerprint, read_manifest
from data_pipelines.schema import SCHEMA_VERSION, DataError
from data_pipelines.source import Concatenated, open_source
from tests.data_pipelines.samples import flip_byte, read, sound_record, write

SPLITS = ["train", "test", "train", "val", "train", "test", "train"]


@pytest.fixture(scope="module")
def records():
  return [sound_record(i, split=split) for i, split in enumerate(SPLITS)]


@pytest.fixture(scope="module")
def path(records, tmp_path_factory):
  return write(tmp_path_factory.mktemp("sets") / "ds", records, shard_mb=1e-4)


def ids(source):
  return [record["id"] for record in source]


def of(records, *splits):
  return [r["id"] for split in splits for r in records if r["split"] == split]


def random_text(rng, length):
  """Text of many scripts, with quotes, controls and line breaks."""
  ranges = [(1, 128), (0xA0, 0x250), (0x4E00, 0x4F00), (0x1F300, 0x1F400)]
  picks = [ranges[i] for i in rng.integers(0, len(ranges), length)]
  return "".join(chr(rng.integers(*pick)) for pick in picks)


@pytest.mark.parametrize("seed", range(3))
def test_any_record_comes_back_as_it_was(tmp_path, seed):
  rng = np.random.default_rng(seed)
  text = lambda: random_text(rng, int(rng.integers(0, 40)))
  records = [
    schema.make_record(
      id=f"r{i}",
      duration=float(np.float32(rng.uniform(0.01, 1e4))),
      video=rng.bytes(rng.integers(1, 2000)),
      audio=rng.bytes(rng.integers(0, 2000)),
      features=rng.bytes(rng.integers(0, 50)),
      words=[{"word": text(), "start": rng.random(), "end": None}],
      events=[{"time": rng.random(), "kind": text(), "on_screen": True}] * 2,
      tags=[text(), "speech"],
      split=str(rng.choice(schema.SPLITS)),
      **{
        field: text()
        for field in schema.TEXT_FIELDS
        if field not in ("id", "split")
      },
    )
    for i in range(12)
  ]
  path = write(tmp_path / "ds", records)
  assert read(path) == {record["id"]: record for record in records}


def test_a_split_holds_its_records_in_the_order_of_writing(path, records):
  for split in schema.SPLITS:
    assert ids(open_source(path, split)) == of(records, split)
  assert ids(open_source(path, "all")) == of(records, "train", "val", "test")


def test_shards_are_closed_at_their_size(records, tmp_path):
  size = max(len(record["audio"]) for record in records)
  # Room for two records and a bit: a shard is closed with its third.
  out = write(tmp_path / "ds", records, shard_mb=2.6 * size / 2**20)
  shards = read_manifest(out)["shards"]
  counts = [s["records"] for s in shards if s["split"] == "train"]
  assert sum(counts) == 4 and len(counts) > 1
  names = [shard["file"] for shard in shards]
  pattern = r"v2a-(train|val|test)\.array_record-(\d{5})-of-(\d{5})"
  for name, shard in zip(names, shards):
    split, number, total = re.fullmatch(pattern, name).groups()
    of_split = [s for s in shards if s["split"] == split]
    assert shard["split"] == split and int(total) == len(of_split)
    assert of_split[int(number)] is shard


def test_an_index_is_that_of_a_list(path, records):
  source = open_source(path, "all")
  expected = of(records, "train", "val", "test")
  assert len(source) == len(expected)
  for index in range(-len(expected), len(expected)):
    assert source[index]["id"] == expected[index]
  for index in (len(expected), -len(expected) - 1):
    with pytest.raises(IndexError):
      source[index]


def test_a_source_is_shared_by_threads_and_processes(path):
  source = open_source(path, "all")
  indices = list(range(len(source))) * 8
  with futures.ThreadPoolExecutor(8) as pool:
    together = list(pool.map(source.__getitem__, indices))
  assert together == [source[index] for index in indices]
  copy = pickle.loads(pickle.dumps(source))
  assert list(copy) == list(source) and repr(copy) == repr(source)


def test_several_sources_are_one(path, records, tmp_path):
  other = write(tmp_path / "other", [sound_record(9), sound_record(8)])
  sources = [open_source(path, "test"), open_source(other)]
  sources.append(open_source(path, "val"))
  together = Concatenated(sources)
  expected = [*of(records, "test"), "sound009", "sound008", *of(records, "val")]
  assert ids(together) == expected and len(together) == len(expected)
  for index in range(-len(expected), len(expected)):
    source, number = together.locate(index)
    assert together[index] == source[number]
    assert together[index]["id"] == expected[index]
  assert together.name(3) == f"{other}: record 1 of 'train'"
  with pytest.raises(IndexError):
    together[len(expected)]


def test_a_split_that_is_not_there_is_answered_with_those_that_are(path):
  with pytest.raises(DataError, match="it has train, val, test, all") as error:
    open_source(path, "tset")
  assert str(error.value).endswith("did you mean test?")


def test_an_altered_shard_is_never_read_as_something_else(
  path, records, tmp_path
):
  """Without a digest, what is read is either right or refused by name."""
  out = write(tmp_path / "ds", records, shard_mb=1e-4)
  (shard,) = (tmp_path / "ds").glob("v2a-val*")
  data, good = shard.read_bytes(), open_source(path, "val")[0]
  refused = 0
  for place in range(40, data.rindex(b"sound 3") + 40, 29):
    shard.write_bytes(data)
    flip_byte(shard, place)
    with pytest.raises(DataError, match="is altered; copy it again"):
      open_source(out, "val", verify=True)
    try:
      assert open_source(out, "val")[0] == good
    except DataError as error:
      assert f"{out}: record 0 of 'val'" in str(error)
      assert "\n" not in str(error)
      refused += 1
  assert refused
  # Other splits are not concerned.
  assert ids(open_source(out, "test", verify=True)) == of(records, "test")


@pytest.mark.parametrize("change", ["cut", "longer", "gone"])
def test_a_shard_of_another_size_is_refused_when_it_is_opened(
  records, tmp_path, change
):
  out = write(tmp_path / "ds", records, shard_mb=1e-4)
  shard = sorted((tmp_path / "ds").glob("v2a-test*"))[-1]
  data = shard.read_bytes()
  shard.unlink()
  if change != "gone":
    shard.write_bytes(data[:-1] if change == "cut" else data + b"\0")
  with pytest.raises(DataError) as error:
    open_source(out, "test")
  message = str(error.value)
  assert message.startswith(str(shard)) and "\n" not in message
  assert "build the data set again" in message
  if change == "cut":
    assert f"{len(data) - 1:,} bytes" in message and f"{len(data):,}" in message


@pytest.mark.parametrize(
  "text,words",
  [
    (None, "has no manifest.json, so it is no finished data set"),
    ("", "manifest.json is damaged"),
    ('{"schema_version": ', "manifest.json is damaged"),
    ("[1, 2]", "manifest.json is damaged"),
    ('{"splits": {}}', "manifest.json is damaged"),
    ('{"schema_version": 99}', f"99, this code reads {SCHEMA_VERSION}"),
  ],
)
def test_a_manifest_that_cannot_be_used_is_one_line(tmp_path, text, words):
  if text is not None:
    (tmp_path / "manifest.json").write_text(text)
  for use in (read_manifest, open_source):
    with pytest.raises(DataError) as error:
      use(tmp_path)
    assert words in str(error.value) and str(tmp_path) in str(error.value)
    assert "build" in str(error.value) and "\n" not in str(error.value)
  assert find_manifest(tmp_path) is None


def test_no_data_set_says_how_one_is_made(tmp_path):
  with pytest.raises(DataError, match="no data set at .*v2a data scenes"):
    read_manifest(tmp_path / "nowhere")
  assert find_manifest(tmp_path / "nowhere") is None


def test_a_fingerprint_is_of_the_values_alone():
  settings = {"a": 1, "b": [1, 2], "c": {"d": None, "e": "é"}}
  mark = fingerprint(settings)
  assert mark == fingerprint(dict(reversed(settings.items())))
  assert mark == fingerprint(json.loads(json.dumps(settings)))
  assert re.fullmatch("[0-9a-f]{64}", mark)
  changed = [{"a": 2}, {"a": "1"}, {"b": [2, 1]}, {"c": {}}, {"f": 0}]
  marks = {fingerprint(settings | change) for change in changed}
  assert len(marks | {mark}) == len(changed) + 1


def test_the_manifest_of_a_finished_build_is_found(path):
  assert find_manifest(path) == read_manifest(path)
  assert manifest_lib.MANIFEST == "manifest.json"


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
def test_no_module_of_the_working_folder_is_imported(
  records, tmp_path, key, monkeypatch
):
  out = write(tmp_path / "ds", records)
  (tmp_path / "mine.py").write_text("open('ran', 'w')\n")
  features = (tmp_path / "ds" / "features.json").read_text()
  own = '"pythonClassName": "tensorflow_datasets.core.features.scalar.Scalar"'
  assert own in features
  forged = features.replace(own, f'"{key}": "mine.Feature"', 1)
  (tmp_path / "ds" / "features.json").write_text(forged)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend("")
  with pytest.raises(DataError, match="names 'mine.Feature', which is no"):
    open_source(out)[0]
  assert not (tmp_path / "ran").exists()
