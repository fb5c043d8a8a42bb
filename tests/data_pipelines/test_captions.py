import pytest

from data_pipelines import captions
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


@pytest.mark.parametrize(
  "name", ["a/dog.mp4", "clips/a/dog.mp4", "dog.mp4", "dog", "C:\\x\\dog.mp4"]
)
def test_a_file_is_matched_however_it_is_named(tmp_path, name):
  assert read(tmp_path, f"file,caption\n{name},A dog\n").rows["a/dog.mp4"]


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
  assert reasons[5].startswith("a second row for the same file")
  assert reasons[6] == "start is not a time: 'two'"
  assert reasons[7] == "end 2 s is not after start 3 s"
  assert reasons[10] == "no file name"
  times = [(row.start, row.end) for row in table.rows["b/bird.webm"]]
  assert times == [(1.5, 3.0), (3.0, 4.0)]
  assert len(table.unmatched) + 3 == 9


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
    (b"file,caption\n\xff\xfe,x\n", {}, "UTF-8"),
    ("file,split\ndog,middle\n", {}, "line 2: split is 'middle'"),
    ("file,x\n", {"columns": {"captoin": "x"}}, "cannot take 'captoin'"),
    ("file,x\n", {"columns": {"caption": "y"}}, "columns are file, x"),
  ],
)
def test_errors(tmp_path, text, settings, words):
  with pytest.raises(DataError) as error:
    read(tmp_path, text, **settings)
  assert words in str(error.value) and "captions.csv" in str(error.value)


def test_quotes_line_breaks_and_a_byte_order_mark(tmp_path):
  text = '\ufefffile,caption,split,tags\ndog,"a, ""b""\nc",VALID,"[speech|x]"\n'
  (row,) = read(tmp_path, text).rows["a/dog.mp4"]
  assert row.caption == 'a, "b"\nc'
  assert (row.split, row.tags) == ("val", ("speech", "x"))


def test_missing_file(tmp_path):
  with pytest.raises(DataError, match="no captions file"):
    captions.read_captions(tmp_path / "none.csv", FILES)
