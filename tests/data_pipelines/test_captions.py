"""Tables of captions as people have them, matched to files."""

import csv
import io
import json
import os

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest

from data_pipelines import caption_rows, captions
from data_pipelines.schema import DataError

FILES = ["a/dog.mp4", "a/cat.mp4", "b/cat.mp4", "b/bird.webm"]


def read(tmp_path, text, **settings):
  path = tmp_path / "captions.csv"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return captions.read_captions(path, FILES, **settings)


def test_columns_are_detected_and_reported(tmp_path):
  table = read(
    tmp_path,
    "Video Path;Prompt;license;category;label;notes\n"
    "a/dog.mp4;A dog;CC0;animal;;x\n",
  )
  assert table.describe() == (
    "columns: file = Video Path, caption = Prompt, label = label else "
    "category, licence = license (ignored: notes)"
  )
  (row,) = table.rows["a/dog.mp4"]
  assert (row.caption, row.licence, row.label) == ("A dog", "CC0", "animal")
  assert row.line == 2


def test_rows_without_a_file_are_listed_with_the_reason(tmp_path):
  table = read(
    tmp_path,
    "file,caption,start,end\n"
    "a/fish.mp4,F,,\n"
    "cat,C,,\n"
    "dog,one,,\ndog,two,,\n"
    "bird,B,two,\nbird,B,3,2\nbird,B,0:01.5,3\nbird,B,3,4\n,X,,\n",
  )
  reasons = {line: reason for line, _, reason in table.unmatched}
  assert reasons[2] == "no such file"
  assert reasons[3].startswith("2 files have this name")
  assert reasons[6] == "start is not a time: 'two'"
  assert reasons[7] == "end 2 s is not after start 3 s"
  assert reasons[10] == "no file name"
  times = [(row.start, row.end) for row in table.rows["b/bird.webm"]]
  assert times == [(1.5, 3.0), (3.0, 4.0)]
  assert len(table.unmatched) + 4 == 9


def test_overrides(tmp_path):
  text = "name,text\ndog,hello there\n"
  plain = read(tmp_path, text).rows["a/dog.mp4"][0]
  assert plain.caption == "hello there"
  spoken = read(tmp_path, text, columns={"transcript": "text"})
  (row,) = spoken.rows["a/dog.mp4"]
  assert (row.caption, row.transcript) == ("", "hello there")


@pytest.mark.parametrize(
  "text, settings, words",
  [
    ("", {}, "is empty"),
    ("caption\nx\n", {}, "no column of file names"),
    (b"file,caption\n\x81\xfe,x\n", {}, "CSV file in UTF-8"),
    ("file,caption\na,x\n".encode("utf-16-le"), {}, "CSV file in UTF-8"),
    ("file,caption,caption\na,x,y\n", {}, "two columns are called caption"),
    ('{"file": "a"}\n[1]\n', {}, "row 2 is not a JSON object"),
    ('{"file": "a"\n', {}, "one JSON object a line"),
    (b"PAR1" + bytes(90) + b"PAR1", {}, "cannot read"),
    ("file,caption,split\ndog,one, two,test\n", {}, "line 2: 4 cells in 3"),
    ("file,caption,label\ndog,one, two,x\n", {}, "line 2: 4 cells in 3"),
    ("file,caption,caption_2\ndog,o\ncat,a, b,c\n", {}, "line 3: 4 cells"),
    ("file,tags,caption\ndog,speech, music,x\n", {}, "line 2: 4 cells in 3"),
    ("file,notes,caption\ndog,a, b,x\n", {}, "line 2: 4 cells in 3"),
    ('file,caption\nbird,x\ndog,"open\ncat,x\n', {}, "line 3: a quote"),
    ('file,caption\ndog,"open\ncat,"x"\nbird,y\n', {}, "line 2: a quote"),
    ('sep=;\nfile;caption\ndog;"open\ncat;x\n', {}, "line 3: a quote"),
    ('file,caption\ndog,"a" b\n', {}, "line 2: a quote"),
    ("a,b\nx,y\n", {}, "--columns file=NAME"),
    ("file,split\ndog,middle\n", {}, "line 2: split is 'middle'"),
    ("file,x\n", {"columns": {"captoin": "x"}}, "cannot take 'captoin'"),
    ("file,x\n", {"columns": {"caption": "y"}}, "columns are file, x"),
    ('file,caption\ndog,"' + "x" * 200_000 + '"\n', {}, "field limit"),
  ],
)
def test_errors(tmp_path, text, settings, words):
  with pytest.raises(DataError) as error:
    read(tmp_path, text, **settings)
  assert words in str(error.value) and "captions.csv" in str(error.value)
  assert "\n" not in str(error.value)


def test_quotes_line_breaks_and_a_byte_order_mark(tmp_path):
  text = '\ufefffile,caption,split,tags\ndog,"a, ""b""\nc",VALID,"[speech|x]"\n'
  (row,) = read(tmp_path, text).rows["a/dog.mp4"]
  assert row.caption == 'a, "b"\nc'
  assert (row.split, row.tags) == ("val", ("speech", "x"))


def test_missing_file(tmp_path):
  with pytest.raises(DataError, match="no captions file"):
    captions.read_captions(tmp_path / "none.csv", FILES)


def test_several_captions_of_a_file_are_kept(tmp_path):
  table = read(tmp_path, "file,caption\ndog,one\ndog,two\ndog.mp4,three\n")
  (row,) = table.rows["a/dog.mp4"]
  assert (row.caption, row.other_captions) == ("one", ("two", "three"))
  table = read(
    tmp_path, "file,caption_1,caption_2,caption_3\ndog,one,,two\nbird,,b,b\n"
  )
  (dog,), (bird,) = table.rows["a/dog.mp4"], table.rows["b/bird.webm"]
  assert (dog.caption, dog.other_captions) == ("one", ("two",))
  assert (bird.caption, bird.other_captions) == ("b", ())


def test_a_row_that_says_nothing_new_is_listed(tmp_path):
  table = read(tmp_path, "file,caption\ndog,one\ndog,one\ndog.mp4,\n")
  assert [(line, name) for line, name, _ in table.unmatched] == [
    (3, "dog"),
    (4, "dog.mp4"),
  ]


@pytest.mark.parametrize(
  "text",
  [
    '[{"file": "dog", "captions": ["one", "two", "three"]}]',
    '{"file": "dog", "audio_caption": ["one", "two"], "captions": "three"}',
    '{"file": "dog", "caption": "one", "captions": ["one", "two", "three"]}',
    "file,Captions\ndog,one\ndog,two\ndog,three\n",
    "file,title,Caption 1,Caption 2,Caption 3\ndog,T,one,two,three\n",
    "file,audio_caption_1,audio_caption_2,prompts\ndog,one,two,three\n",
    "file,text1,text2,text3\ndog,one,two,three\n",
  ],
)
def test_no_caption_of_several_is_lost(tmp_path, text):
  (row,) = read(tmp_path, text).rows["a/dog.mp4"]
  found = [row.caption, row.audio_caption, *row.other_captions]
  assert sorted(filter(None, found)) == ["one", "three", "two"]


def test_lists_of_other_facts_are_kept_whole(tmp_path):
  row = {"file": "dog", "labels": ["bark", "growl"], "speech": ["hi", "you"]}
  (row,) = read(tmp_path, json.dumps([row])).rows["a/dog.mp4"]
  assert (row.label, row.transcript) == ("bark, growl", "hi you")


@pytest.mark.parametrize(
  "text",
  [
    "file,caption\ndog,a bark, far away\n",
    "file,split,start,end,caption\ndog,,0,2,a bark, far away\n",
    "file,caption,,\ndog,a bark, far away,\n",
    'file, caption\ndog, "a bark, far away"\n',
    'file,caption,label\ndog,"a bark, far away" , "x" \nbird,y,z\n',
    "sep=;\r\nfile;caption\r\ndog;a bark, far away\r\n",
    "\ufefffile\tcaption\ndog\ta bark, far away\n",
    "dog.mp4;a bark, far away\nfish.mp4;fish\n",
    '{"file": "dog", "caption": "a bark, far away", "x": null}\n\n',
    '[{"file": "dog", "caption": ["a bark, far away"]}]',
    "# clips of mine\nfile,caption\ndog,a bark, far away\n",
    "file\tcaption\ndog\ta bark, far away\n".encode("utf-16"),
  ],
)
def test_tables_as_people_have_them(tmp_path, text):
  (row,) = read(tmp_path, text).rows["a/dog.mp4"]
  assert row.caption == "a bark, far away"


def test_what_was_guessed_is_said(tmp_path):
  notes = lambda text: "; ".join(read(tmp_path, text).notes)
  said = notes("file,caption\nfish,x\ndog,a, b\nbird,c, d\n")
  assert said.startswith("rows with too many cells: 2, the first in line 3;")
  assert "no line names the columns" in notes("dog.mp4,x\n")
  assert "Windows-1252" in notes(b"file,caption\ndog,caf\xe9\n")
  assert "suffix than in the folder: 1, such as DOG.wav for a/dog.mp4" in (
    notes("file\nDOG.wav\n")
  )
  assert "folder: 1, such as DOG for a/dog.mp4" in notes("DOG,x\nfish,y\n")
  assert notes("file,caption\ndog,a\n") == ""
  assert notes('file,caption\ndog,"a\n\nwet, bird"\n') == ""
  said = notes('file,caption\ndog,"a\nbird.webm,b"\nfish,x\n')
  assert "the first in line 3 with bird.webm; is a quote before it" in said


def test_parquet(tmp_path):
  captions_of = {"dog": ["x", "y"], "bird": []}
  columns = {
    "file": list(captions_of),
    "caption": list(captions_of.values()),
    "tags": [None, ["a b"]],
  }
  parquet.write_table(pa.table(columns), tmp_path / "captions.parquet")
  table = captions.read_captions(tmp_path / "captions.parquet", FILES)
  (dog,), (bird,) = table.rows["a/dog.mp4"], table.rows["b/bird.webm"]
  assert (dog.caption, dog.other_captions, dog.tags) == ("x", ("y",), ())
  assert (bird.caption, bird.tags) == ("", ("a b",))


def test_of_two_tables_the_first_goes_first(tmp_path):
  def table(name, text):
    (tmp_path / name).write_text(text)
    return captions.read_captions(tmp_path / name, FILES)

  joined = captions.combine(
    {
      "a": table(
        "a", "file,caption,start,end,split\ndog,A,0,2,train\ndog,B,2,3,\n"
      ),
      "b": table("b", "file,caption,licence\ndog,C,CC0\nbird,D,CC1\nfish,E,\n"),
      "c": table("c", "file,caption,start,end,split\ndog,F,4,5,test\n"),
    }
  )
  rows = joined.rows["a/dog.mp4"]
  assert [(r.caption, r.other_captions, r.licence) for r in rows] == [
    ("A", ("C",), "CC0"),
    ("B", ("C",), "CC0"),
  ]
  assert joined.rows["b/bird.webm"][0].caption == "D"
  reasons = {reason for _, _, reason in joined.unmatched}
  assert "no such file, in b" in reasons
  assert any(r.endswith("puts the file in train, in c") for r in reasons)


@pytest.mark.parametrize(
  "name", ["cafe\u0301.mp4", "caf\xe9.MP4", "CAF\xc9", "caf\xe9.wav"]
)
def test_names_in_another_spelling(tmp_path, name):
  path = tmp_path / "table.csv"
  path.write_text(f"file,caption\n{name},x\ncaffe,y\n")
  table = captions.read_captions(path, ["caf\xe9.mp4", "b.mp4"])
  assert list(table.rows) == ["caf\xe9.mp4"]
  assert table.unmatched[0][2].endswith("did you mean caf\xe9.mp4?")


def test_a_name_of_two_files_in_other_case_is_not_guessed(tmp_path):
  path = tmp_path / "table.csv"
  path.write_text("file,caption\nDoG.mp4,x\n")
  table = captions.read_captions(path, ["dog.mp4", "Dog.mp4"])
  assert not table.rows and "2 files" in table.unmatched[0][2]


def test_a_line_number_is_where_the_row_ends_in_an_editor(tmp_path):
  text = 'file,caption\r\ndog,"a\r\nb"\r\nbird,B\r\nfish,F\r\n'
  table = read(tmp_path, text)
  assert table.rows["a/dog.mp4"][0].line == 3
  assert table.rows["b/bird.webm"][0].line == 4
  assert table.unmatched == [(5, "fish", "no such file")]


@pytest.mark.parametrize("delimiter", ",;\t|")
def test_any_delimiter_gives_the_same_rows(tmp_path, delimiter):
  header = ["Clip", "Audio-Caption", "SPLIT", "Start Time", "notes"]
  lines = [
    ["dog", f"a, b; c | d{delimiter}e", "test", "0.5", "n"],
    ["bird", "", "", "", ""],
  ]
  file = io.StringIO()
  csv.writer(file, delimiter=delimiter).writerows([header, *lines])
  table = read(tmp_path, file.getvalue())
  assert table.columns == {
    "file": ["Clip"],
    "audio_caption": ["Audio-Caption"],
    "split": ["SPLIT"],
    "start": ["Start Time"],
  }
  assert table.ignored_columns == ["notes"]
  (dog,), (bird,) = table.rows["a/dog.mp4"], table.rows["b/bird.webm"]
  assert (dog.audio_caption, dog.split, dog.start) == (lines[0][1], "test", 0.5)
  assert (bird.audio_caption, bird.split, bird.start) == ("", "", None)


def test_the_first_column_that_is_not_empty_names_file_and_label(tmp_path):
  table = read(
    tmp_path, "file,video_id,label,category\n,dog,,animal\nbird,x,song,y\n"
  )
  assert table.rows["a/dog.mp4"][0].label == "animal"
  assert table.rows["b/bird.webm"][0].label == "song"


def test_of_two_columns_of_captions_the_preferred_one_is_used(tmp_path):
  table = read(tmp_path, "file,title,caption\ndog,T,C\n")
  assert table.rows["a/dog.mp4"][0].caption == "C"
  assert table.ignored_columns == ["title"]
  assert "(ignored: title)" in table.describe()


def test_an_override_frees_the_column_that_was_detected(tmp_path):
  text = "file,caption,text_en\ndog,un chien,a dog\n"
  table = read(tmp_path, text, columns={"caption": "text_en"})
  assert table.rows["a/dog.mp4"][0].caption == "a dog"
  swapped = read(
    tmp_path,
    "a,file,caption\ndog,bird,C\n",
    columns={"file": "a", "label": "file"},
  )
  (row,) = swapped.rows["a/dog.mp4"]
  assert (row.label, row.caption) == ("bird", "C")


@pytest.mark.parametrize(
  "text,split",
  [
    ("train", "train"),
    ("Training", "train"),
    ("DEV", "val"),
    ("validation", "val"),
    ("valid", "val"),
    ("eval", "test"),
    (" Test ", "test"),
    ("", ""),
  ],
)
def test_splits_have_many_names(tmp_path, text, split):
  table = read(tmp_path, f"file,subset\ndog,{text}\n")
  assert table.rows["a/dog.mp4"][0].split == split


@pytest.mark.parametrize(
  "text,tags",
  [
    ("speech music", ("speech", "music")),
    ("bird singing;music", ("bird singing", "music")),
    ("bird singing", ("bird singing",)),
    ("speech;music", ("speech", "music")),
    ("['speech', 'music']", ("speech", "music")),
    ("[]", ()),
    ("", ()),
    ("effects", ("effects",)),
  ],
)
def test_tags_are_between_delimiters(tmp_path, text, tags):
  table = read(tmp_path, f'file,tags\ndog,"{text}"\n')
  assert table.rows["a/dog.mp4"][0].tags == tags


def test_seconds_are_read_as_numbers_or_as_times():
  rng = np.random.default_rng(0)
  for _ in range(50):
    hours, minutes = (int(n) for n in rng.integers(0, 60, 2))
    seconds = round(float(rng.uniform(0, 60)), 3)
    total = 3600 * hours + 60 * minutes + seconds
    for text in (f"{hours}:{minutes:02}:{seconds:06.3f}", f"{total:.3f}"):
      assert caption_rows.parse_seconds(text) == pytest.approx(total, abs=1e-6)
  assert caption_rows.parse_seconds("1:30") == 90
  assert caption_rows.parse_seconds("") is None
  bad = ["-1", "nan", "inf", "1:", "one", "1;30", "-0:30", "1:-2", "1e307"]
  for text in (*bad, "1e308:1e308"):
    with pytest.raises(ValueError):
      caption_rows.parse_seconds(text)


@pytest.mark.parametrize(
  "name,file",
  [
    ("dog.mp4", "dog.mp4"),
    ("x/dog.mp4", "x/dog.mp4"),
    ("y/x/dog.mp4", "x/dog.mp4"),
    ("x/dog", "x/dog.mp4"),
    ("./dog.mp4", "dog.mp4"),
    ("dog", None),  # There are two.
    ("C:\\clips\\x\\dog.mp4", "x/dog.mp4"),
    ("cat.mp4", "x/cat.webm"),
    ("fish.mp4", None),
    ("x/cat", "x/cat.webm"),
  ],
)
def test_an_exact_path_goes_before_a_name(tmp_path, name, file):
  path = tmp_path / "captions.csv"
  path.write_text(f"file\n{name}\n")
  files = ["dog.mp4", "x/dog.mp4", "x/cat.webm"]
  table = captions.read_captions(path, files)
  assert list(table.rows) == ([file] if file else [])


@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_used_or_listed_with_a_reason(tmp_path, seed):
  rng = np.random.default_rng(seed)
  names = [*FILES, "dog", "cat", "fish", ""]
  times = ["", "0", "1.5", "0:02", "x", "-1"]
  file = io.StringIO()
  writer = csv.writer(file)
  writer.writerow(["file", "start", "end", "caption"])
  for i in range(60):
    writer.writerow([*map(rng.choice, (names, times, times)), f"c{i}"])
  table = read(tmp_path, file.getvalue())
  used = [row for rows in table.rows.values() for row in rows]
  kept = [c for row in used for c in (row.caption, *row.other_captions)]
  unused = [f"c{line - 2}" for line, _, _ in table.unmatched]
  assert sorted(kept + unused) == sorted(f"c{i}" for i in range(60))
  assert all(reason for _, _, reason in table.unmatched)
  for rows in table.rows.values():
    stretches = [(row.start, row.end) for row in rows]
    assert len(set(stretches)) == len(stretches)
    assert all((end or np.inf) > (start or 0) for start, end in stretches)


def test_a_table_that_is_a_pipe_is_refused_and_nothing_hangs(tmp_path):
  os.mkfifo(tmp_path / "captions.csv")
  with pytest.raises(DataError, match="captions.csv is not a regular file"):
    captions.read_captions(tmp_path / "captions.csv", ["a.mp4"])
