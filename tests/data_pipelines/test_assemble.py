"""Builds: order, counts, continuation after an interruption, one at a time."""

from concurrent import futures
import dataclasses
import hashlib
import json
import shutil
import threading
import time

import pytest

from data_pipelines import assemble as assemble_lib
from data_pipelines.assemble import OutputOptions, assemble
from data_pipelines.manifest import read_manifest
from data_pipelines.schema import DataError, SchemaError
from data_pipelines.tokenizer import Tokenizer
from data_pipelines.writer import BuildError, DatasetWriter, Outcome
from tests.data_pipelines.samples import (
  contents,
  plan_of,
  read,
  sound_record,
  write,
)

NUM = 7


class Interrupted(Exception):
  pass


@pytest.fixture(scope="module")
def records():
  splits = ["train", "val", "train", "train", "test", "val", "train"]
  return [sound_record(i, split=split) for i, split in enumerate(splits)]


def build(out, plan, make, *, log=lambda _: None, workers=1, **options):
  return assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=OutputOptions(workers=workers, **options),
    log=log,
  )


def stop_at(make, number, calls):
  """`make`, but its call of that number raises."""

  def interrupted(key):
    if len(calls) == number:
      raise Interrupted
    calls.append(key)
    return make(key)

  return interrupted


@pytest.mark.parametrize("number", [0, 1, 4, NUM - 1])
@pytest.mark.parametrize("shard_mb", [1e-4, 128])
def test_an_interrupted_build_ends_as_an_undisturbed_one(
  records, tmp_path, number, shard_mb
):
  plan, make = plan_of(records)
  whole = build(tmp_path / "whole", plan, make, shard_mb=shard_mb)
  calls, lines = [], []
  out = tmp_path / "ds"
  with pytest.raises(Interrupted):
    build(out, plan, stop_at(make, number, calls), shard_mb=shard_mb)
  assert not out.exists()
  again = build(
    out, plan, stop_at(make, -1, calls), shard_mb=shard_mb, log=lines.append
  )
  assert list(read(out).items()) == list(read(tmp_path / "whole").items())
  assert again["counts"] == whole["counts"]
  if shard_mb < 1:  # one record a shard: even the files are the same
    assert again == whole
    assert contents(out) == contents(tmp_path / "whole")
  # Leaving the writer closed its shards, so nothing was made twice.
  assert sorted(calls) == sorted(plan.keys)
  assert ("continuing" in lines[0]) == (number > 0)


def test_a_build_may_be_interrupted_again_and_again(records, tmp_path):
  plan, make = plan_of(records)
  whole = build(tmp_path / "whole", plan, make)
  for _ in range(NUM - 1):
    with pytest.raises(Interrupted):
      build(tmp_path / "ds", plan, stop_at(make, 1, []))
  assert build(tmp_path / "ds", plan, make)["counts"] == whole["counts"]
  assert read(tmp_path / "ds") == read(tmp_path / "whole")


@pytest.mark.parametrize("end", [b"", b"\xc3"])
def test_a_journal_that_is_cut_off_costs_only_its_last_line(
  end, records, tmp_path
):
  """As after a power cut; the entry that follows must not be lost with it."""
  plan, make = plan_of(records)
  out, calls = tmp_path / "ds", []
  with pytest.raises(Interrupted):
    build(out, plan, stop_at(make, 3, calls), shard_mb=1e-4)
  journal = tmp_path / "ds.building/journal.jsonl"
  journal.write_bytes(journal.read_bytes()[:-9] + end)
  (journal.parent / "val-00007.part").write_bytes(b"never closed")
  with pytest.raises(Interrupted):
    build(out, plan, stop_at(make, 5, calls), shard_mb=1e-4)
  build(out, plan, stop_at(make, -1, calls), shard_mb=1e-4)
  assert list(read(out)) == list(read(write(tmp_path / "whole", records)))
  assert max(map(calls.count, plan.keys)) == 2
  assert not list(out.glob("*.part"))
  assert len(calls) == NUM + 1


@pytest.mark.parametrize(
  "line", ["[]", "{}", '{"items": [{}]}', '{"items": 1}']
)
def test_a_journal_of_another_kind_is_named(line, records, tmp_path):
  plan, make = plan_of(records)
  with pytest.raises(Interrupted):
    build(tmp_path / "ds", plan, stop_at(make, 3, []))
  with open(tmp_path / "ds.building/journal.jsonl", "a") as journal:
    journal.write(line + "\n")
  with pytest.raises(
    BuildError, match="journal.jsonl .*; remove .*ds.building"
  ):
    build(tmp_path / "ds", plan, stop_at(make, -1, []))


def test_a_line_separator_in_a_caption_does_not_break_the_journal(tmp_path):
  caption = "one\u2028two\x85three\nfour"
  plan, make = plan_of([sound_record(i, caption=caption) for i in range(3)])
  calls = []
  with pytest.raises(Interrupted):
    build(tmp_path / "ds", plan, stop_at(make, 2, calls))
  build(tmp_path / "ds", plan, stop_at(make, -1, calls))
  assert calls == plan.keys
  assert {r["caption"] for r in read(tmp_path / "ds").values()} == {caption}


def test_other_settings_start_anew(records, tmp_path):
  plan, make = plan_of(records)
  with pytest.raises(Interrupted):
    build(tmp_path / "ds", plan, stop_at(make, 4, []))
  other, _ = plan_of(records, settings={"size": 2})
  calls, lines = [], []
  build(tmp_path / "ds", other, stop_at(make, -1, calls), log=lines.append)
  assert calls == plan.keys
  assert read_manifest(tmp_path / "ds")["settings"]["size"] == 2
  assert "was interrupted; it starts anew" in lines[0]


def test_a_record_of_an_interrupted_build_has_no_duplicate(tmp_path):
  records = [sound_record(i) for i in range(4)]
  plan, make = plan_of(records)

  def same_file(key):
    outcome, content = make(key)
    digest = "same" if key in ("sound000", "sound002") else key
    return dataclasses.replace(outcome, sha256=digest), content

  with pytest.raises(Interrupted):
    build(tmp_path / "ds", plan, stop_at(same_file, 2, []))
  manifest = build(tmp_path / "ds", plan, same_file)
  assert manifest["drops"] == {"duplicate": 1}
  assert list(read(tmp_path / "ds")) == ["sound000", "sound001", "sound003"]
  drops = (tmp_path / "ds/drops.csv").read_text().splitlines()
  assert drops[1] == "sound002,,,duplicate,same bytes as sound000"


def test_the_data_set_does_not_depend_on_the_workers(records, tmp_path):
  plan, make = plan_of(records)

  def slow(key):  # later items finish first
    time.sleep(0.02 * (NUM - plan.keys.index(key)))
    return make(key)

  build(tmp_path / "one", plan, make, workers=1, shard_mb=1e-4)
  build(tmp_path / "four", plan, slow, workers=4, shard_mb=1e-4)
  assert contents(tmp_path / "one") == contents(tmp_path / "four")


def test_two_builds_of_one_folder_do_not_meet(records, tmp_path):
  plan, make = plan_of(records)
  with DatasetWriter(tmp_path / "ds", fingerprint="x"):
    with pytest.raises(BuildError, match="ds is being built by an") as error:
      build(tmp_path / "ds", plan, make)
  assert "\n" not in str(error.value)
  build(tmp_path / "ds", plan, make)


def test_a_replaced_data_set_leaves_nothing_behind(records, tmp_path):
  out = tmp_path / "ds"
  write(out, records)
  plan, make = plan_of(records[:2])
  with pytest.raises(BuildError, match="--overwrite to replace it"):
    build(out, plan, make)
  assert len(read(out)) == NUM
  build(out, plan, make, overwrite=True)
  assert list(read(out)) == ["sound000", "sound001"]
  assert [path.name for path in tmp_path.iterdir()] == ["ds"]


def test_an_overwriting_build_that_fails_keeps_the_old_data(records, tmp_path):
  out = tmp_path / "ds"
  write(out, records)
  before = contents(out)
  plan, make = plan_of(records[:3])
  with pytest.raises(Interrupted):
    build(out, plan, stop_at(make, 2, []), overwrite=True)
  assert contents(out) == before


def test_a_folder_that_cannot_be_made_is_one_line(records, tmp_path):
  (tmp_path / "file").write_text("")
  plan, make = plan_of(records)
  with pytest.raises(BuildError, match="cannot write to .*file") as error:
    build(tmp_path / "file" / "ds", plan, make)
  assert "\n" not in str(error.value)
  with pytest.raises(BuildError, match="file is a file; give another folder"):
    build(tmp_path / "file", plan, make)


def test_an_invalid_record_is_named_and_not_written(records, tmp_path):
  plan, _ = plan_of(records)
  bad = records[0] | {"duration": -1.0}
  make = lambda key: (Outcome(key=key, clips=[{}]), [bad])
  with pytest.raises(SchemaError, match="'sound000': duration must be a posit"):
    build(tmp_path / "ds", plan, make)
  assert not (tmp_path / "ds").exists()


def test_a_build_that_keeps_nothing_lists_the_reasons(records, tmp_path):
  plan, _ = plan_of(records)
  drops = [assemble_lib.drop("no video", "only sound")]
  make = lambda key: (Outcome(key=key, drops=drops), [])
  with pytest.raises(BuildError, match="7 no video; see .*drops.csv") as error:
    build(tmp_path / "ds", plan, make)
  path = str(error.value).partition("; see ")[2]
  with open(path) as file:
    assert len(file.readlines()) == 1 + NUM


def test_a_tokenizer_may_be_that_of_another_data_set(records, tmp_path):
  other = write(tmp_path / "other", [sound_record(0, caption="a bell rings")])
  model = Tokenizer.load(other).model
  out = tmp_path / "ds"
  write(out, records, tokenizer=other)
  assert Tokenizer.load(out).model == model
  facts = read_manifest(out)["tokenizer"]
  assert facts["sha256"] == hashlib.sha256(model).hexdigest()
  assert facts["vocab_size"] == Tokenizer(model).vocab_size
  with pytest.raises(DataError, match="no tokenizer at .*nowhere"):
    write(tmp_path / "x", records, tokenizer=tmp_path / "nowhere")
  assert not list(tmp_path.glob("x*"))


def test_results_come_in_order_with_few_under_way():
  running, most, lock = set(), [], threading.Lock()

  def work(item):
    with lock:
      running.add(item)
      most.append(len(running))
    time.sleep(0.002 * (item % 3))
    with lock:
      running.remove(item)
    return item * item

  submitted = []

  class Pool(futures.ThreadPoolExecutor):
    def submit(self, function, item):
      submitted.append(item)
      return super().submit(function, item)

  with Pool(3) as pool:
    results = []
    for result in assemble_lib.ordered_map(work, range(40), pool, ahead=5):
      assert len(submitted) - len(results) <= 5
      results.append(result)
  assert results == [i * i for i in range(40)]
  assert 1 < max(most) <= 3


def test_an_error_stops_the_items_that_follow():
  begun = []

  def work(item):
    begun.append(item)
    time.sleep(0.01)
    if item == 2:
      raise Interrupted
    return item

  with futures.ThreadPoolExecutor(1) as pool:
    with pytest.raises(Interrupted):
      list(assemble_lib.ordered_map(work, range(100), pool, ahead=4))
  assert max(begun) < 7


def clip(split, seconds, captioned=True):
  return dict(split=split, seconds=seconds, captioned=captioned)


def test_counts_add_up():
  drop = assemble_lib.drop
  outcomes = [
    Outcome(key="a", clips=[clip("train", 1.5), clip("train", 2.0, False)]),
    Outcome(key="b", drops=[drop("unreadable", "x")]),
    Outcome(
      key="c",
      clips=[clip("test", 0.25)],
      drops=[drop("too short", "y", start=1.0, end=1.1)],
      notes=["silent", "re-encoded"],
    ),
    Outcome(key="d", drops=[drop("no audio", "z")], notes=["silent"]),
    Outcome(key="e", drops=[drop("unreadable", "x"), drop("other", "w")]),
    Outcome(key="f", clips=[clip("val", 1.0)], notes=["re-encoded"]),
  ]
  counts = assemble_lib.count(outcomes)
  assert counts == {
    "counts": {
      "items_seen": 6,
      "items_kept": 3,
      "items_dropped": 3,
      "clips_kept": 4,
      "clips_dropped": 1,
      "clips_without_caption": 1,
      "seconds": 4.75,
    },
    "notes": {"re-encoded": 2, "silent": 1},
    "splits": {"train": 2, "val": 1, "test": 1},
    "drops": {"unreadable": 2, "no audio": 1},
    "clip_drops": {"too short": 1},
  }
  # A split is listed in the order of the pipeline, a reason by its count.
  assert list(counts["splits"]) == ["train", "val", "test"]
  assert list(counts["drops"]) == ["unreadable", "no audio"]


def test_the_summary_names_what_was_lost_and_where_it_is_listed():
  counts = dict(
    items_seen=12,
    items_kept=9,
    items_dropped=3,
    clips_kept=20,
    clips_dropped=2,
    clips_without_caption=4,
    seconds=3725.0,
  )
  manifest = {
    "counts": counts,
    "splits": {"train": 18, "test": 2},
    "drops": {"unreadable": 2, "no audio": 1},
    "clip_drops": {"too short": 2},
    "notes": {"silent": 1},
    "rows_unmatched": 5,
    "shards": [{"bytes": 3 << 20}, {"bytes": 1 << 19}],
    "tokenizer": {"vocab_size": 600},
  }
  text = "\n".join(assemble_lib.summary(manifest, "data/x", "files"))
  for words in (
    "12 files = 9 kept + 3 dropped",
    "20 clips (train 18, test 2), 1:02:05 in all, 4 without caption",
    "dropped files: 2 unreadable, 1 no audio",
    "dropped parts: 2 too short; see data/x/drops.csv",
    "1 silent",
    "5 rows of captions were not used; see data/x/unmatched.csv",
    "data/x: 2 shards, 3.5 MiB, vocabulary 600",
  ):
    assert words in text
  clean = manifest | {"drops": {}, "clip_drops": {}, "notes": {}}
  clean["rows_unmatched"] = 0
  lines = assemble_lib.summary(clean, "data/x", "files")
  assert len(lines) == 3 and "drops.csv" not in "\n".join(lines)


def test_the_manifest_is_what_stands_in_the_folder(records, tmp_path):
  plan, make = plan_of(records, facts={"extra": [1, 2]})
  manifest = build(tmp_path / "ds", plan, make, shard_mb=1e-4)
  stored = json.loads((tmp_path / "ds/manifest.json").read_text("utf-8"))
  assert stored == json.loads(json.dumps(manifest))
  assert stored["extra"] == [1, 2]
  for shard in stored["shards"]:
    data = (tmp_path / "ds" / shard["file"]).read_bytes()
    assert shard["bytes"] == len(data)
    assert shard["sha256"] == hashlib.sha256(data).hexdigest()
  assert sum(s["records"] for s in stored["shards"]) == NUM


def test_a_finished_build_is_not_made_again(records, tmp_path):
  plan, make = plan_of(records)
  first = build(tmp_path / "ds", plan, make)
  lines = []
  again = build(tmp_path / "ds", plan, stop_at(make, 0, []), log=lines.append)
  assert again == json.loads(json.dumps(first))
  assert "already built" in lines[0]
  # The same content, copied elsewhere, is the same build.
  shutil.copytree(tmp_path / "ds", tmp_path / "copy")
  build(tmp_path / "copy", plan, stop_at(make, 0, []))
