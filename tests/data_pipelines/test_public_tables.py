"""Tables of public data sets, as published, with the names of their files."""

import json

import pytest

from data_pipelines import audioset, captions, schema
from data_pipelines.schema import UNKNOWN, DataError


@pytest.mark.parametrize(
  "text",
  [
    "ytid,start_seconds,label,split\n-a1,30,rain,test\n",
    "-a1,30,rain,test\n-b2,0,dog,train\n",
    "# Segments, csv created Sun Mar 5\n# num_ytids=1\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '-a1, 30.000, 40.000, "rain"\n',
  ],
)
@pytest.mark.parametrize(
  "file, times",
  [
    ("x/-a1_000030.mp4", (None, None)),
    ("-a1_30000.wav", (None, None)),
    ("-a1.mkv", (30.0, 40.0)),
  ],
)
def test_tables_of_youtube_ids(tmp_path, text, file, times):
  path = tmp_path / "table.csv"
  path.write_text(text)
  (row,) = captions.read_captions(path, [file, "other.mp4"]).rows[file]
  assert (row.label, (row.start, row.end), row.of_film) == ("rain", times, True)


# As published at http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv.
SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=5, num_positive_labels=6
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 50.000, 60.000, "/m/012xff"
--aE2O5G5WE, 0.000, 10.000, "/m/03fwl,/m/04rlf,/m/09x0r"
-0RWZT-miFs, 420.000, 430.000, "/m/09x0r,/m/0nobody"
"""
CLASSES = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
83,/m/03fwl,"Goat"
137,/m/04rlf,"Music"
489,/t/dd00088,"Gush"
384,/m/012xff,"Toothbrush"
"""
AUDIOSET_FILES = [
  "--PJHxphWEs_30.wav",
  "--ZhevVpy1s.mkv",
  "Y--aE2O5G5WE.flac",
  "-0RWZT-miFs_420000.wav",
]


@pytest.mark.parametrize("place", ["beside the table", "named"])
def test_audioset_as_published(tmp_path, place):
  (tmp_path / "eval_segments.csv").write_text(SEGMENTS)
  classes = tmp_path / "class_labels_indices.csv"
  if place == "named":
    (tmp_path / "x").mkdir()
    classes = tmp_path / "x/classes.csv"
  classes.write_text(CLASSES)
  table = captions.read_captions(
    tmp_path / "eval_segments.csv",
    AUDIOSET_FILES,
    labels=classes if place == "named" else None,
  )
  rows = [row for file in AUDIOSET_FILES for row in table.rows[file]]
  assert [row.label for row in rows] == [
    "Speech; Gush",
    "Toothbrush",
    "Goat; Music; Speech",
    "Speech; /m/0nobody",
  ]
  flags = [
    schema.presence({"tags": row.tags, "transcript": ""}).tolist()
    for row in rows
  ]
  assert flags == [[1, 0, 1], [0, 0, 1], [1, 1, 1], [UNKNOWN] * 3]
  assert "Toothbrush" in rows[1].tags
  assert any("1 ids of AudioSet" in note for note in table.notes)


def test_audioset_without_the_names_of_its_classes_is_said(tmp_path):
  path = tmp_path / "eval_segments.csv"
  path.write_text(SEGMENTS)
  table = captions.read_captions(path, AUDIOSET_FILES)
  (row,) = table.rows["--ZhevVpy1s.mkv"]
  assert row.label == "/m/012xff" and row.tags == ()
  assert any("class_labels_indices.csv" in note for note in table.notes)


@pytest.mark.parametrize(
  "text",
  ["", "id,name\n1,x\n", "index,mid,display_name\n0,/m/1\n",
   f"index,mid,display_name\n0,/m/1,{'x' * 200_000}\n"],
)  # fmt: skip
def test_another_table_is_not_taken_for_audiosets_classes(tmp_path, text):
  (tmp_path / "classes.csv").write_text(text)
  with pytest.raises(DataError, match="first line must be index,mid,display_n"):
    audioset.read_classes(tmp_path / "table.csv", tmp_path / "classes.csv")
  with pytest.raises(DataError, match="no table of AudioSet's classes"):
    audioset.read_classes(tmp_path / "table.csv", tmp_path / "none.csv")


# Rows as the data sets have them, with the names of their files on disk.
AUDIOCAPS = (
  "audiocap_id,youtube_id,start_time,caption\n"
  "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n"
  "58146,UDGBjjwyaqE,20,Multiple clanging and clanking sounds\n"
  "58147,UDGBjjwyaqE,20,Metal, struck again and again\n"
)


@pytest.mark.parametrize(
  "first,second",
  [
    ("r1nicOVtvkQ_130.wav", "train/UDGBjjwyaqE_20.wav"),
    ("Yr1nicOVtvkQ.flac", "YUDGBjjwyaqE.flac"),
    ("r1nicOVtvkQ_000130.mp4", "UDGBjjwyaqE_000020.mp4"),
  ],
)
def test_audiocaps(tmp_path, first, second):
  path = tmp_path / "val.csv"
  path.write_text(AUDIOCAPS)
  table = captions.read_captions(path, [first, second])
  (one,), (two,) = table.rows[first], table.rows[second]
  assert one.caption == "A woman talks nearby as water pours"
  assert two.other_captions == ("Metal, struck again and again",)
  assert (one.start, one.end) == (None, None) and not table.unmatched


def test_audiocaps_by_its_own_ids_or_whole_films(tmp_path):
  path = tmp_path / "val.csv"
  path.write_text(AUDIOCAPS)
  files = ["91139.wav", "58146.wav", "58147.wav", "UDGBjjwyaqE.mkv"]
  table = captions.read_captions(path, files)
  (own,), film = table.rows["91139.wav"], table.rows["UDGBjjwyaqE.mkv"]
  # A file of ten seconds is the stretch (`clips.stretches`).
  assert own.of_film and (own.start, own.end) == (130, 140)
  assert [(row.start, row.end) for row in film] == [(20, 30)]
  assert film[0].other_captions


def test_wavcaps(tmp_path):
  rows = [
    {
      "title": "Airplane Landing Airport",
      "description": "Large commercial airplane at an airport runway.",
      "author": "Daniel Simion",
      "href": "2219-Airplane-Landing-Airport.html",
      "caption": "An airplane is landing.",
      "id": "2219",
      "duration": 14.14,
      "audio": "wav_path",
      "download_link": "http://soundbible.com/grab.php?id=2219&type=wav",
    },
    {
      "id": "180913",
      "file_name": "2219.wav",  # Its author's name, not ours.
      "caption": ["Rain.", "Rain falls."],
      "duration": 3.0,
      "audio": "wav_path",
      "tags": ["rain", "weather"],
    },
    {"id": "Yb0RFKhbpFJA.wav", "caption": "A dog.", "audio": "wav_path"},
    {"id": "x", "caption": "Wind.", "audio": "BBC/NHU05104072.flac"},
  ]
  path = tmp_path / "sb_final.json"
  path.write_text(json.dumps({"num_captions_per_audio": 1, "data": rows}))
  names = "2219.flac 180913.flac Yb0RFKhbpFJA.flac NHU05104072.flac".split()
  table = captions.read_captions(path, names)
  assert not table.unmatched
  found = [row for (row,) in map(table.rows.get, names)]
  assert [row.caption for row in found] == [
    "An airplane is landing.",
    "Rain.",
    "A dog.",
    "Wind.",
  ]
  assert found[0].source.startswith("http://soundbible.com")
  assert found[1].other_captions == ("Rain falls.",)
  assert found[1].tags == ("rain", "weather")


def test_clotho_in_two_tables(tmp_path):
  """Captions, and licences in a table that is not in UTF-8."""
  (tmp_path / "captions.csv").write_text(
    "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    'Distorted AM Radio noise.wav,"A radio, untuned",Noise,"Hiss","Hum","Buzz"\n'
    "Rain.wav,Rain,It rains,Drops,Wet,Water\n"
  )
  (tmp_path / "metadata.csv").write_bytes(
    "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,"
    "license\n"
    "Distorted AM Radio noise.wav,noise;radio,372720,"
    'https://freesound.org/people/s/372720,"[77111, 1180900]",Jos\xe9,'
    "http://creativecommons.org/licenses/by/3.0/\n".encode("cp1252")
  )
  files = ["Distorted AM Radio noise.wav", "Rain.wav"]
  table = captions.combine(
    {
      name: captions.read_captions(tmp_path / name, files)
      for name in ("captions.csv", "metadata.csv")
    }
  )
  (radio,), (rain,) = map(table.rows.get, files)
  assert (radio.caption, len(radio.other_captions)) == ("A radio, untuned", 4)
  assert radio.licence == "http://creativecommons.org/licenses/by/3.0/"
  assert radio.source == "https://freesound.org/people/s/372720"
  assert radio.tags == ("noise", "radio") and radio.start is None
  assert (rain.caption, rain.licence) == ("Rain", "")
  assert not table.unmatched
