"""Labellers out of process, and annotations from files."""

import json
import shlex
import sys

import pyarrow as pa
from pyarrow import parquet
import pytest

from data_pipelines.columns import records, store
from data_pipelines.columns.annotate import (
  AnnotateOptions,
  LabellerError,
  annotate,
)
from data_pipelines.columns.merge import merge
from data_pipelines.columns.values import ColumnError
from data_pipelines.columns.view import open_view
from data_pipelines.loader import make_loader
from data_pipelines.schema import ABSENT, PRESENT, UNKNOWN, DataError
from launch import cli
from tests.data_pipelines.samples import (
  clip_record,
  loader_config,
  sound_record,
  write,
)

# What a labeller needs besides its answer.
LABELLER = """
import json, os, sys, time
for number, line in enumerate(sys.stdin):
  request = json.loads(line)
  def answer(id=request["id"], **columns):
    print(json.dumps({"id": id, **columns}), flush=True)
  BODY
"""


@pytest.fixture
def dataset(tmp_path):
  rows = [sound_record(i, sha256=str(i)) for i in range(9)]
  return write(tmp_path / "ds", [*rows, clip_record(9, sha256="9")])


@pytest.fixture
def command(tmp_path):
  """Writes a labeller whose body is given; returns its command."""

  def make(body):
    file = tmp_path / "labeller.py"
    file.write_text(LABELLER.replace("BODY", body.replace("\n", "\n  ")))
    return shlex.join([sys.executable, str(file)])

  return make


def ask(dataset, command, **options):
  lines = []
  options = AnnotateOptions(**{"ahead": 3} | options)
  try:
    annotate(dataset, "x", command, options=options, log=lines.append)
  except LabellerError as error:
    assert "\n" not in str(error)
    lines.append(str(error))
  return lines


def answers(dataset):
  return {
    row["id"]: row for row in store.open_columns(dataset, "x").table.to_pylist()
  }


def test_every_clip_is_asked_about_once_with_its_media(dataset, command):
  body = """size = lambda path: os.path.getsize(path) if path else 0
answer(sound=size(request["audio"]), picture=size(request["video"]),
       caption=["a", request["caption"]], confidence=0.5, by="m@2")"""
  assert ask(dataset, command(body))[-1] == "10 clips answered"
  rows = answers(dataset)
  assert len(rows) == 10 and rows["clip9"]["picture"] > 100
  assert rows["sound003"]["picture"] == 0 < rows["sound003"]["sound"]
  assert rows["sound003"]["caption"] == ["a", "sound 3"]
  assert rows["sound003"]["by"] == "m@2"
  # Nothing is left to ask.
  assert ask(dataset, "not-started")[0].endswith("10 are answered")


def test_a_labeller_that_dies_loses_nothing_and_is_continued(dataset, command):
  dies = """if number == 4:
  sys.stderr.write("out of memory"); os.kill(os.getpid(), 9)
answer(score=number)"""
  said = ask(dataset, command(dies))
  assert "4 clips answered" in said
  assert "ended by signal 9" in said[-1] and "out of memory" in said[-1]
  assert "the same command goes on" in said[-1]
  assert len(answers(dataset)) == 4
  said = ask(dataset, command("answer(score=100)"))
  assert "of which 4 are answered" in said[0] and said[1] == "6 clips answered"
  scores = sorted(row["score"] for row in answers(dataset).values())
  assert scores == [0, 1, 2, 3, *[100] * 6]
  assert all(
    row["by"].startswith(sys.executable) for row in answers(dataset).values()
  )


def test_asking_again_goes_on_where_a_labeller_died(dataset, command):
  ask(dataset, command("answer(score=1)"))
  dies = """if number == 4: sys.exit(3)
answer(score=2)"""
  assert "4 clips answered" in ask(dataset, command(dies), again=True)
  said = ask(dataset, command("answer(score=3)"), again=True)
  assert "of which 4 are answered" in said[0] and said[1] == "6 clips answered"
  scores = sorted(row["score"] for row in answers(dataset).values())
  assert scores == [*[2] * 4, *[3] * 6]


TALKS = """while number == 2:
  print("working", flush=True)
  time.sleep(0.05)
answer(score=1)"""


@pytest.mark.parametrize(
  "hangs", ["time.sleep(999) if number == 2 else answer(score=1)", TALKS]
)
def test_a_labeller_that_hangs_is_stopped(hangs, dataset, command):
  said = ask(dataset, command(hangs), timeout=1.0)
  assert "gave no answer for 1 s and was stopped" in said[-1]
  assert len(answers(dataset)) == 2


def test_a_number_without_end_is_refused_like_others(dataset, command):
  said = ask(dataset, command("answer(score=10**400 if number == 3 else 1)"))
  assert "9 clips answered" in said
  assert any("sound003: score=1000" in line for line in said)


def test_answers_that_nobody_asked_for_are_counted_and_not_used(
  dataset, command
):
  strange = """answer(score=1)
if number == 1:
  answer(score=2)
  answer("nobody", score=3)
  print("loading model ...", flush=True)
  print(json.dumps([1]), flush=True)"""
  said = ask(dataset, command(strange))
  assert said[1] == "10 clips answered"
  assert "not used: 1 second answers, the first: 'sound001'" in said
  assert (
    "not used: 1 answers for clips not asked about, the first: 'nobody'" in said
  )
  assert any("2 lines that are no answers" in line for line in said)
  assert {row["score"] for row in answers(dataset).values()} == {1.0}


def test_answers_of_a_wrong_kind_and_errors_are_asked_for_again(
  dataset, command
):
  wrong = """if number == 0: answer(score=1)
elif number == 1: answer(score="high")
elif number == 2: answer(confidence=7)
elif number == 3: answer(error="no sound in it")
elif number == 4: answer(caption=True)
else: answer(score=2, by=None)"""
  said = ask(dataset, command(wrong))
  assert said[1] == "7 clips answered, of which 1 with an error"
  assert "3 answers of a wrong kind" in said[2] and "score is number" in said[2]
  rows = answers(dataset)
  assert rows["sound003"]["error"] == "no sound in it"
  assert all(row["by"].startswith(sys.executable) for row in rows.values())
  said = ask(dataset, command("answer(score=3)"))
  assert said[1] == "4 clips answered"
  assert answers(dataset)["sound003"]["score"] == 3


def test_the_rate_and_the_number_are_limited(dataset, command):
  import time

  start = time.monotonic()
  said = ask(dataset, command("answer(score=1)"), per_minute=120, limit=3)
  assert said[1] == "3 clips answered" and time.monotonic() - start >= 1.0


def test_what_cannot_be_started_is_one_line(dataset, capsys):
  assert "cannot be started" in ask(dataset, "no-such-program-at-all")[-1]
  assert "cannot be started" in ask(dataset, "'unclosed")[-1]
  assert "cannot be started: '': it is empty" in ask(dataset, "")[-1]
  assert cli.main(["data", "annotate", dataset, "--labeller", "voise"]) == 2
  assert "did you mean voice?" in capsys.readouterr().err
  assert cli.main(["data", "annotate", dataset]) == 2
  assert "give one of --labeller" in capsys.readouterr().err


def test_a_table_is_merged_with_who_and_how_sure(dataset, tmp_path):
  table = tmp_path / "more.csv"
  table.write_text(
    "file,text_en,by,confidence,keep\n"
    "sound001.wav,a bell,ann,0.9,yes\n"
    "sound001.wav,a small bell,bob,0.4,\n"
    "sound002,a gong,,,no\n"
    "nowhere.wav,x,ann,1,yes\n"
  )
  lines = []
  columns = {"audio_caption": "text_en"}
  merge(dataset, table, columns=columns, by="crowd", log=lines.append)
  assert lines[0] == "1 names are of no clip: nowhere.wav"
  assert "2 of 10 clips have annotations 'more'" in lines[1]
  opened, _ = open_view(dataset, "train", annotations=("more",))
  assert opened[1]["other_captions"] == ["a bell", "a small bell"]
  sure, _ = open_view(dataset, "train", annotations=("more",), least=0.5)
  assert sure[1]["other_captions"] == ["a bell"]
  rows = store.open_columns(dataset, "more").table.to_pylist()
  assert {row["by"] for row in rows} == {"ann", "bob", "crowd"}
  kept, line = open_view(dataset, "train", admit="missing(keep) or keep")
  assert len(kept) == 9 and "1 fail missing(keep) or keep" in line
  # A second merge replaces the rows of its clips, not those of others.
  table.write_text(
    json.dumps({"id": "sound001", "sha256": "1", "audio_caption": ["x", "y"]})
  )
  with pytest.raises(
    ValueError, match="audio_caption is text in other rows of more"
  ):
    merge(dataset, table, log=lines.append)
  table.write_text(
    '{"id": "sound001", "audio_caption": "x", "sha256": "1"}\n{"id": "sound003", "audio_caption": "y", "sha256": "other"}'
  )
  merge(dataset, table, log=lines.append)
  assert lines[-2] == "1 names are of no clip: sound003 (of other bytes)"
  rows = store.open_columns(dataset, "more").table.to_pylist()
  captions = {row["id"]: row["audio_caption"] for row in rows}
  assert captions == {"sound001": "x", "sound002": "a gong"}


@pytest.mark.parametrize(
  "text",
  [
    "id,captions\nsound001,one\nsound001,two\n",
    "id,caption_1,Caption 2\nsound001,one,two\n",
    "id,caption,captions\nsound001,one,two\n",
    '{"file": "sound001.wav", "captions": ["one", "two"]}',
    "id,sha256,caption\nsound001,,one\nsound001,,two\n",
  ],
)
def test_no_caption_of_several_that_are_merged_is_lost(dataset, tmp_path, text):
  (tmp_path / "more.csv").write_text(text)
  merge(dataset, tmp_path / "more.csv", log=lambda _: None)
  opened, _ = open_view(dataset, "train", annotations=("more",))
  assert opened[1]["other_captions"] == ["one", "two"]


SAID = {
  "id": "sound001",
  "words": [{"word": "hey", "start": 0.02, "end": 0.05}, {"word": "you"}],
  "caption": "1984",
  "music": False,
}


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_the_answers_of_a_labeller_can_be_merged(dataset, tmp_path, form):
  """The contract's own form, and what other programs make of it."""
  table = tmp_path / f"said.{form}"
  if form == "jsonl":
    table.write_text(json.dumps(SAID) + "\n")
  elif form == "parquet":
    parquet.write_table(pa.Table.from_pylist([SAID]), table)
  else:
    words = json.dumps(SAID["words"]).replace('"', '""')
    table.write_text(
      f'id,words,caption,music,by\nsound001,"{words}",1984,false,7\n'
    )
  merge(dataset, table, log=lambda _: None)
  config = loader_config(
    dataset, annotations=("said",), shuffle=False, transcript_length=8
  )
  with make_loader(config) as loader:
    batch = next(loader)
  assert batch["transcript_mask"].any(1).tolist() == [False, True, False, False]
  assert batch["presence"][1].tolist() == [PRESENT, ABSENT, UNKNOWN]
  opened, _ = open_view(dataset, "train", annotations=("said",))
  assert "1984" in opened[1]["other_captions"]
  assert opened[1]["words"][0] == SAID["words"][0]


@pytest.mark.parametrize(
  "row,why",
  [
    ({"words": ["a", "b"]}, "words is no list of objects"),
    ({"speech": "maybe"}, "speech is text, not yes or no or number"),
  ],
)
def test_a_table_of_a_wrong_kind_is_refused_with_its_clip(
  dataset, tmp_path, row, why
):
  good = json.dumps({"id": "sound000", "caption": "a bell"})
  bad = json.dumps({"id": "sound001", **row})
  (tmp_path / "x.jsonl").write_text(f"{good}\n{bad}\n")
  with pytest.raises(ColumnError, match=f"sound001: {why}"):
    merge(dataset, tmp_path / "x.jsonl", log=lambda _: None)
  # No half of it is left for what writes under the same name next.
  assert ask(dataset, "not-started")[0].endswith("which 0 are answered")


VTT = """WEBVTT

1
00:00:00.500 --> 00:00:01.500 align:start
<c.yellow>hello</c> there &amp; you

00:00:10.200 --> 00:00:10.800
later
"""
SRT = "1\r\n00:00:00,500 --> 00:00:01,500\r\n{\\an8}one two\r\n\r\n"
WHISPER = {
  "text": "a b",
  "segments": [
    {
      "start": 0.0,
      "end": 1.0,
      "text": " a b",
      "words": [
        {"word": " a", "start": 0.1, "end": 0.2, "probability": 0.9},
        {"word": " b", "start": 0.4, "end": 0.5, "probability": 0.7},
      ],
    }
  ],
}


def test_subtitles_and_whisper_give_timed_words(tmp_path):
  rows = [
    clip_record(i, seconds=2.0, id=id, transcript="")
    for i, id in enumerate(
      ("talk_t00000000", "talk_t00010000", "sub__b", "c", "silent")
    )
  ]
  dataset = write(tmp_path / "ds", rows)
  folder = tmp_path / "words"
  (folder / "sub").mkdir(parents=True)
  (folder / "talk.en.vtt").write_text(VTT)
  (folder / "sub" / "b.srt").write_text(SRT)
  (folder / "c.json").write_text(json.dumps(WHISPER))
  merge(dataset, folder, name="asr", by="whisper@3", log=lambda _: None)
  opened, _ = open_view(dataset, "train", annotations=("asr",))
  found = {record["id"]: record for record in opened}
  assert found["talk_t00000000"]["transcript"] == "hello there & you"
  assert found["talk_t00000000"]["words"][1] == {
    "word": "there", "start": 0.75, "end": 1.0,
  }  # fmt: skip
  assert found["talk_t00010000"]["words"] == [
    {"word": "later", "start": 0.2, "end": 0.8}
  ]
  assert found["sub__b"]["transcript"] == "one two"
  assert found["c"]["words"][1] == {"word": "b", "start": 0.4, "end": 0.5}
  assert found["silent"]["transcript"] == ""
  table = {
    r["id"]: r for r in store.open_columns(dataset, "asr").table.to_pylist()
  }
  assert table["c"]["confidence"] == pytest.approx(0.8)
  assert table["c"]["by"] == "whisper@3"


@pytest.mark.parametrize(
  "name,text,message",
  [
    ("x.vtt", "WEBVTT\n\n00:00 --> soon\nhi\n", "is not subtitles"),
    ("x.json", '{"segments": [{"start": 0}]}', "is not Whisper's JSON"),
    ("x.json", '{"segments": ' + "[" * 100_000, "cannot read .*x.json"),
    ("x.csv", "caption,other\na,b\n", "no column names the clips"),
    ("x.csv", "id,caption\nnothing,b\n", "nothing in"),
    ("x.csv", "id,caption,audio_caption\nx,a, b,c\n", "line 2: 4 cells in 3"),
    ("x.csv", 'id,caption\nx,"open\ny,c\n', "line 2: a quote"),
  ],
)
def test_files_that_say_nothing_are_named(tmp_path, name, text, message):
  dataset = write(tmp_path / "ds", [sound_record(0, id="x")])
  records.make_records(dataset)
  (tmp_path / name).write_text(text)
  with pytest.raises(DataError, match=message):
    merge(dataset, tmp_path / name, log=lambda _: None)
  assert store.sources(dataset) == []


def test_a_missing_file_is_named(dataset, tmp_path):
  with pytest.raises(DataError, match="no annotations at"):
    merge(dataset, tmp_path / "none.csv", log=lambda _: None)
