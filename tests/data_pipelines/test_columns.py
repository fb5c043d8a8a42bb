"""Columns beside the shards: kept by record, chosen by, and read in training."""

import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.columns import (
  admit,
  arrow,
  listing,
  records,
  store,
  view,
)
from data_pipelines.columns.admit import AdmitError, Expression
from data_pipelines.columns.values import ColumnError
from data_pipelines.loader import make_loader
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.schema import ABSENT, PRESENT, UNKNOWN, DataError
from data_pipelines.source import open_source
from tests.data_pipelines.samples import loader_config, sound_record, write
from tests.processes import ENVIRONMENT
from v2a_jax.basics.settings import SettingError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  """20 sounds of the train split, 3 of test; 15 of them measured by `sound`."""
  rows = [
    sound_record(
      i,
      licence="CC0" if i % 2 else "CC BY",
      tags=["speech"] if i < 5 else [],
      sha256=f"{i:064x}",
    )
    for i in range(20)
  ]
  rows += [sound_record(30 + i, split="test") for i in range(3)]
  path = write(tmp_path_factory.mktemp("sets") / "ds", rows)
  records.make_records(path)
  with store.Journal(path, "sound") as journal:
    for i in range(15):
      row = dict(silence=i / 20, clipped=i % 2 == 0)
      journal.add(f"sound{i:03d}", f"{i:064x}", row)
    journal.finish()
  return path


def test_rows_go_on_after_an_interruption_and_replace_those_of_before(dataset):
  with store.Journal(dataset, "x") as journal:
    journal.add("a", "1", {"score": 1})
    journal.add("b", "1", {"error": "cannot be read"})
  path = pathlib.Path(dataset) / "columns" / "x.jsonl"
  path.write_text(path.read_text() + '{"id": "c", "sha')  # killed while writing
  with store.Journal(dataset, "x") as journal:
    assert journal.done == {records.key_of("a", "1")}
    journal.add("b", "1", {"score": 2.5})
    table = journal.finish()
  assert not path.exists()
  with store.Journal(dataset, "x") as journal:
    assert len(journal.done) == 2
    journal.add("a", "1", {"score": 7, "by": "human", "confidence": 1})
    table = journal.finish()
  rows = {row["id"]: row for row in table.to_pylist()}
  assert rows["a"]["score"] == 7 and rows["a"]["by"] == "human"
  assert rows["b"]["score"] == 2.5 and table.num_rows == 3
  # The same name with other bytes is another record.
  keys = np.array([records.key_of("a", s) for s in "12"], np.uint64)
  columns = store.open_columns(dataset, "x")
  assert columns.values("score", keys).to_pylist() == [7.0, None]


@pytest.mark.parametrize(
  "row,message",
  [
    ({"score": "high"}, "score is number in other rows of kinds, but text"),
    ({"other": {"a": 1}}, "other is dict, not a number"),
    ({"confidence": 2}, "confidence=2 is not in"),
    ({"Mixed Case": 1}, "'Mixed Case' is no name"),
    ({"sha256": "x"}, "names the record"),
    ({"score": float("inf")}, "not finite"),
    ({"caption": True}, "caption is yes or no, not text or texts"),
    ({"audio_caption": 5.0}, "audio_caption is number, not text or texts"),
    ({"transcript": ["a"]}, "transcript is texts, not text"),
    ({"speech": "maybe"}, "speech is text, not yes or no or number"),
    ({"music": 83}, r"music=83 is not in \[0, 1\]"),
    ({"by": 3}, "by is number, not text"),
    ({"words": "hello"}, "words are not JSON: 'hello'"),
    ({"words": ["a", "b"]}, "words is no list of objects"),
    ({"words": [{"text": "a"}]}, "needs 'word', a text"),
    ({"words": [{"word": 5}]}, "needs 'word', a text"),
    ({"words": [{"word": "a", "start": "0:01"}]}, "start of a word is no numb"),
    ({"words": [{"word": "a", "end": float("nan")}]}, "end of a word is no nu"),
  ],
)
def test_values_of_a_wrong_kind_are_refused_by_name(dataset, row, message):
  with store.Journal(dataset, "kinds") as journal:
    journal.add("a", "", {"score": 1.0})
    with pytest.raises(ColumnError, match=message):
      journal.add("b", "", row)


def test_a_row_that_is_refused_leaves_no_column(dataset):
  with store.Journal(dataset, "kinds", fresh=True) as journal:
    with pytest.raises(ColumnError):
      journal.add("a", "", {"fine": 1, "Not Fine": 2})
    journal.add("a", "", {"fine": "text"})
    assert journal.finish(keep=False)["fine"].to_pylist() == ["text"]
  (pathlib.Path(dataset) / "columns" / "kinds.arrow").unlink()


@pytest.mark.parametrize(
  "line", ['{"id": ', "[]", '{"id": "a"}', '{"id": "a", "sha256": "", "x": {}}']
)
def test_a_damaged_journal_is_named(dataset, line):
  path = pathlib.Path(dataset) / "columns" / "damaged.jsonl"
  path.write_text(f"{line}\n")
  with pytest.raises(DataError, match="damaged.jsonl is damaged; remove it"):
    store.Journal(dataset, "damaged")
  path.unlink()


@pytest.mark.parametrize(
  "text,expected",
  [
    ("silence < 0.5", 10),
    ("silence < 0.5 and not clipped", 5),
    ("missing(silence)", 8),
    ("missing(silence) or sound.silence >= 0.5", 13),
    ("not silence < 0.5", 13),  # A comparison with nothing is false.
    ("-0.1 < silence <= 0.3 and licence != 'CC0'", 4),
    ("licence in ('CC0', 'x')", 10),
    ("'speech' in tags", 5),
    ("'speech' not in tags and split == 'train'", 15),
    ("silence not in (0.1,)", 14),
    ("abs(silence) > 0.3", 8),
    ("duration > 0.05", 23),
    ("True", 23),
  ],
)
def test_an_expression_admits(dataset, text, expected):
  found = admit.admitted(dataset, text)
  assert int(found.mask.sum()) == expected
  assert expected + sum(found.refused.values()) == 23


def test_refusals_are_counted_by_the_first_condition_that_fails(dataset):
  found = admit.admitted(dataset, "silence < 0.5 and not clipped")
  assert found.describe() == (
    "5 of 23 clips admitted; 13 fail silence < 0.5 (8 without a value); 5 fail"
    " not clipped"
  )


@pytest.mark.parametrize(
  "text,message",
  [
    ("silense < 1", "no column 'silense', did you mean silence?"),
    ("other.silence < 1", "no column 'other.silence'"),
    ("silence", "'silence' is a number, not yes or no"),
    ("silence < 'a'", "compares what cannot be compared: silence is a number"),
    ("1 < 2 < 'a'", "cannot be compared"),
    ("'a' in 'abc'", "cannot be compared"),
    ("1 in (1, 2)", "cannot be compared"),
    ("silence < 99999999999999999999999", "cannot be compared"),
    ("silence in (1, 99999999999999999999999)", "cannot be compared"),
    ("silence <", "is no expression"),
    ("__import__('os').system('x')", "is not allowed"),
    ("silence.real.imag > 1", "is not allowed"),
    ("(lambda: 1)()", "is not allowed"),
    ("[x for x in tags]", "is not allowed"),
    ("silence * 1e9 > 1", "is not allowed"),
    ("f'{silence}' == 'x'", "is not allowed"),
    ("not " * 600 + "clipped", "over 2000"),
    ("(" * 900 + "1" + ")" * 900, "is no expression"),
  ],
)
def test_what_is_no_expression_over_columns_is_one_line(dataset, text, message):
  with pytest.raises(AdmitError) as caught:
    admit.admitted(dataset, text)
  assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_of_two_sources_needs_its_source(dataset):
  with store.Journal(dataset, "second") as journal:
    journal.add("sound000", f"{0:064x}", {"silence": 0.9})
    journal.finish()
  try:
    with pytest.raises(AdmitError, match="write second.silence"):
      admit.admitted(dataset, "silence < 0.5")
    assert admit.admitted(dataset, "second.silence > 0.5").mask.sum() == 1
  finally:
    (pathlib.Path(dataset) / "columns" / "second.arrow").unlink()


def test_cuts_are_the_limits_of_single_columns():
  cuts = Expression("a < 1 and -2 <= b.c < 3 and abs(d) < 4 and e == 5").cuts()
  assert [(c.column, c.sign, c.value) for c in cuts] == [
    ("a", "<", 1.0),
    ("b.c", ">=", -2.0),
    ("b.c", "<", 3.0),
  ]


def test_training_reads_what_is_admitted_with_its_annotations(tmp_path):
  rows = [sound_record(i, sha256=str(i), caption="") for i in range(8)]
  rows[0] |= {"transcript": "spoken here"}
  path = write(tmp_path / "ds", rows)
  records.make_records(path)
  with store.Journal(path, "model") as journal:
    for i in range(8):
      said = {
        "audio_caption": [f"first {i}", f"second {i}"],
        "words": [{"word": "hey", "start": 0.02}],
        "speech": i / 10,
        "music": False,
        "confidence": 0.5,
        "by": "m@1",
      }
      journal.add(f"sound{i:03d}", str(i), said)
    journal.finish()
  with store.Journal(path, "human") as journal:
    row = {"caption": "seen", "by": "human"}
    journal.add("sound003", "3", row | {"words": [{"word": "ho"}]})
    journal.finish()
  opened, line = view.open_view(
    path, "train", admit="speech >= 0.3", annotations=("human", "model")
  )
  assert "5 of 8 clips admitted; 3 fail speech >= 0.3" in line
  opened = pickle.loads(pickle.dumps(opened))
  record = opened[0]
  assert record["id"] == "sound003"
  assert record["other_captions"] == ["seen", "first 3", "second 3"]
  assert record["words"] == [{"word": "hey", "start": 0.02}]  # The surer one.
  unsure, _ = view.open_view(path, "train", annotations=("model",), least=0.6)
  assert unsure[3] == open_source(path)[3]
  whole, _ = view.open_view(path, "train", annotations=("model",))
  assert whole[0]["transcript"] == "spoken here" and not whole[0]["words"]
  config = loader_config(
    path, admit="speech >= 0.5", annotations=("human", "model"), shuffle=False
  )
  with make_loader(config) as loader:
    batch = next(loader)
    assert loader.num_examples == 3 and loader.admitted[0].startswith(path)
  np.testing.assert_array_equal(
    batch["presence"], [[PRESENT, ABSENT, UNKNOWN]] * 4
  )
  assert batch["transcript_timed"].all() and batch["prompt_mask"].any(1).all()


def test_words_are_a_list_of_objects_or_none(dataset):
  with store.Journal(dataset, "spoken") as journal:
    journal.add("a", "", {"words": []})
    journal.add("b", "", {"words": [{"word": "hi", "start": 0, "end": None}]})
    journal.add("c", "", {"words": '[{"word": "ho"}]'})
    found = [json.loads(w) for w in journal.finish()["words"].to_pylist()]
  hi = [{"word": "hi", "start": 0, "end": None}]
  assert sorted(found, key=str) == sorted([[], hi, [{"word": "ho"}]], key=str)
  (pathlib.Path(dataset) / "columns" / "spoken.arrow").unlink()


def test_columns_of_another_hand_that_do_not_fit_are_named(tmp_path):
  path = write(tmp_path / "ds", [sound_record(0), sound_record(1)])
  keys = pa.array(records.open_records(path).keys, pa.uint64())
  sorted_keys = keys.sort()

  def lay(**columns):
    arrow.write(
      tmp_path / "ds/columns/mine.arrow",
      pa.table({"key": sorted_keys, **columns}),
    )

  lay(caption=[1.0, 2.0])
  with pytest.raises(DataError, match="mine.arrow: caption is number, not te"):
    view.open_view(path, "train", annotations=("mine",))
  lay(words=['[{"text": "a"}]', None])
  config = loader_config(path, annotations=("mine",), shuffle=False)
  with make_loader(config) as loader:
    next(loader)
    assert len(loader.bad) == 1  # And not the end of training.
  lay(score=pa.array([1, 2], pa.int8()), when=pa.array([1, 2], pa.date32()))
  (score, when) = [*listing.lines(path)][-2:]
  assert "1.5" in score and "2 texts, such as '1970-01-02'" in when
  with pytest.raises(ColumnError, match="mine.arrow: score is int8"):
    store.Journal(path, "mine")


def test_what_admits_nothing_or_fits_no_more_is_said(tmp_path):
  path = write(tmp_path / "ds", [sound_record(0)])
  listed = tmp_path / "ds" / "columns" / "records.arrow"
  earlier = listed.read_bytes()
  listed.unlink()  # As in a data set of an earlier version.
  with pytest.raises(DataError, match="has no columns: run `v2a data columns"):
    view.open_view(path, "train", admit="duration > 0")
  records.make_records(path)
  assert listed.read_bytes() == earlier
  with pytest.raises(DataError, match="1 fail duration > 9; no clip is left"):
    view.open_view(path, "train", admit="duration > 9")
  with pytest.raises(DataError, match="has no columns 'x'"):
    view.open_view(path, "train", annotations=("x",))
  listed.with_name("mine.arrow").write_bytes(b"said by somebody")
  write(path, [sound_record(0), sound_record(1)], overwrite=True)
  assert len(records.open_records(path)) == 2
  assert listed.with_name("mine.arrow").read_bytes() == b"said by somebody"
  listed.write_bytes(earlier)
  with pytest.raises(DataError, match="was built since its columns"):
    view.open_view(path, "train", admit="duration > 0")
  assert len(records.make_records(path)) == 2
  with pytest.raises((AdmitError, SettingError), match="is no expression"):
    LoaderConfig(paths=(path,), admit="duration >")


def test_a_million_rows_are_found_and_chosen_quickly(tmp_path):
  """Flat in memory: the columns are mapped, and keys are searched, not hashed."""
  count = 1_000_000
  keys = np.arange(count, dtype=np.uint64) * 7
  table = pa.table({"key": keys, "silence": np.arange(count) / count})
  columns = store.Columns("x", table)
  wanted = keys[::-1] + (np.arange(count) % 2).astype(np.uint64)
  values = columns.values("silence", wanted)
  found = Expression("silence < 0.5")(lambda _: values, count)
  assert int(found.mask.sum()) == 250_000
  assert found.without == {"silence < 0.5": 500_000}


FINISHES = """
import pathlib, sys
from data_pipelines.columns import store

def megabytes():
  text = pathlib.Path("/proc/self/status").read_text()
  return int(text.partition("VmHWM:")[2].split()[0]) / 1024

for name, count in (("few", 5_000), ("many", 20_000)):
  with store.Journal(sys.argv[1], name) as journal:
    for i in range(count):
      text = f"{i:08d}" * 500
      journal.add(f"clip{i}", "", {"sound": text, "by": "x"})
    journal.finish()
  print(megabytes())
"""


def test_rows_of_any_number_are_sorted_in_little_memory(tmp_path):
  """Those of an interrupted run and of an earlier file, too."""
  run = subprocess.run(
    [sys.executable, "-c", FINISHES, tmp_path],
    capture_output=True,
    env=ENVIRONMENT,
    text=True,
  )
  assert run.returncode == 0, run.stderr
  few, many = map(float, run.stdout.split())
  assert many - few < 20  # Of 60 MB more text.
  with store.Journal(tmp_path, "many") as journal:
    assert len(journal.done) == 20_000
    for i in range(0, 20_000, 4):
      journal.add(f"clip{i}", "", {"sound": "new", "more": i})
      journal.add(f"clip{i}", "", {"sound": "newer"})
    table = journal.finish()
  names = sorted(path.name for path in (tmp_path / "columns").iterdir())
  assert names == ["few.arrow", "many.arrow"]
  assert table.num_rows == 25_000
  assert (np.diff(table["key"].to_numpy().astype(float)) >= 0).all()
  columns = store.open_columns(tmp_path, "many")
  keys = np.array([records.key_of(f"clip{i}", "") for i in range(8)], np.uint64)
  sounds = columns.values("sound", keys).to_pylist()
  assert sounds[:2] == ["newer", "00000001" * 500] and sounds[4] == "newer"
  first, end = columns.rows(keys)
  assert (end - first).tolist() == [2, 1, 1, 1, 2, 1, 1, 1]
  row = columns.table.slice(first[4], 1).to_pylist()[0]
  assert row["id"] == "clip4" and row["sound"] == "new" and row["more"] == 4


def test_the_list_of_records_says_what_they_have(dataset):
  table = records.open_records(dataset).table
  row = table.slice(0, 1).to_pylist()[0]
  assert row["captions"] == 1 and row["sound"] and not row["picture"]
  assert [r["split"] for r in table.slice(20, 3).to_pylist()] == ["test"] * 3
  for index, record in enumerate(open_source(dataset, "all")):
    assert table["id"][index].as_py() == record["id"]
  assert json.dumps(row["tags"]) == '["speech"]'
