"""The page about a data set: what it counts, shows and plays."""

import base64
import html.parser
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from data_pipelines import build, report
from data_pipelines.clips import ClipOptions
from data_pipelines.columns import admit, records, store
from data_pipelines.columns.measure import measure_record
from data_pipelines.manifest import read_manifest
from data_pipelines.schema import DataError
from launch import cli
from tests.accessibility import assert_accessible
from tests.data_pipelines.samples import (
  clip_record,
  forbid_decoding,
  sound_record,
  write,
)
from v2a_jax import media

RATE = 16_000


def test_the_page_names_what_is_suspicious_and_plays_it(tmp_path):
  frames = np.zeros((20, 32, 48, 3), np.uint8)
  hum = 0.1 * np.sin(np.arange(2 * RATE) * 0.1)[:, None].astype(np.float32)
  for name, audio in {
    "fine": hum,
    "mute & <b>": 0 * hum,
    "loud": np.sign(hum),
  }.items():
    media.encode_video(
      frames,
      fps=10,
      path=tmp_path / f"{name}.mp4",
      audio=audio,
      sample_rate=RATE,
      audio_codec="flac",
    )
  media.write_wav(tmp_path / "beep.wav", hum[: RATE // 2], RATE)
  (tmp_path / "empty.mp4").touch()
  (tmp_path / "c.csv").write_text("file,caption\nfine,A <hum>\nloud,Loud\n")
  build.build_folder(
    tmp_path,
    out=tmp_path / "ds",
    captions_csv=tmp_path / "c.csv",
    options=ClipOptions(allow_audio_only=True),
    log=lambda _: None,
  )
  page = report.write_report(tmp_path / "ds", num=3).read_text()
  assert "A &lt;hum&gt;" in page and "<hum>" not in page
  assert "5 items = 4 kept + 1 dropped" in page
  assert "is empty (0 bytes)" in page
  suspicious, random = page.split("<h2>Suspicious")[1].split("<h2>At random")
  assert {f: suspicious.count(f">{f}<") for f in ("silent", "clipped")} == {
    "silent": 1,
    "clipped": 1,
  }
  assert suspicious.count(">no caption<") == 2 and ">short<" in suspicious
  assert suspicious.count('class="card"') == random.count('class="card"') == 3
  # Nothing is fetched from anywhere.
  sources = re.findall(r'(?:src|href)="([^"]{5})', page)
  assert sources and set(sources) == {"data:"}


def test_records_are_decoded_in_the_sandbox(tmp_path, monkeypatch):
  """Of a data set from elsewhere, looking at it and measuring it are safe."""
  dataset = write(tmp_path / "ds", [clip_record(0), clip_record(1)])
  record = dict(clip_record(2), sha256="")
  forbid_decoding(monkeypatch)
  with pytest.raises(AssertionError):
    media.decode_flac(record["audio"])
  with pytest.raises(AssertionError):
    media.probe(record["video"])
  stats = report.measure(0, record)
  assert stats.fps == pytest.approx(10) and not stats.faults
  page = report.write_report(dataset, num=1).read_text()
  assert "data:video/mp4" in page and "cannot be decoded" not in page
  measured = measure_record(record)
  assert "error" not in measured.values and measured.prints["sound"]


def test_measured_levels():
  record = {
    "id": "a",
    "video": b"",
    "duration": 2.0,
    "caption": "x",
    "audio_caption": "",
  }
  tone = 0.5 * np.sin(np.arange(RATE) * 2 * np.pi * 100 / RATE)[:, None]
  record["audio"] = media.encode_flac(tone.astype(np.float32), RATE)
  stats = report.measure(3, record)
  np.testing.assert_allclose(
    [stats.peak, stats.level], [-6.02, -9.03], atol=0.01
  )
  assert stats.faults == ("no picture",)
  record["audio"] = b"garbage"
  assert report.measure(3, record).faults[0].startswith("cannot be decoded")


def test_histogram():
  bars = report.histogram([1.0, 1.0, 2.0, float("-inf")], bins=2, unit="s")
  assert [(n, share) for _, n, share in bars] == [(2, 1.0), (1, 0.5)]
  assert report.histogram([3.0, 3.0], unit="s")[0][1] == 2
  assert report.histogram([], unit="s") == []


class Page(html.parser.HTMLParser):
  """Text by section, the cards' texts, and the media that the page plays."""

  def __init__(self, path):
    super().__init__()
    self.sections, self.media, self.bars = {}, [], 0
    self._section, self._heading = "", False
    self.feed(path.read_text("utf-8"))

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self._heading = tag == "h2"
    self.bars += tag == "i"
    if attributes.get("class") == "card":
      self.sections[self._section] += "\n[card] "
    if tag in ("video", "audio"):
      kind, data = re.match("data:(.*);base64,(.*)", attributes["src"]).groups()
      self.media.append((tag, kind, base64.b64decode(data, validate=True)))

  def handle_data(self, data):
    if self._heading:
      self._section, self._heading = data, False
      self.sections[data] = ""
    elif self._section:
      self.sections[self._section] += " ".join(data.split()) + " "

  def cards(self, section):
    cards = self.sections[section].split("\n[card] ")[1:]
    return [" ".join(card.split()) for card in cards]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  """Ten clips: eight of sound alone, too short, and two with a picture."""
  records = [
    sound_record(i, audio_caption=f"café {i}", tags=["speech", "x"])
    for i in range(8)
  ]
  records.append(clip_record(8, seconds=2.0, transcript="hello", licence="CC0"))
  records.append(clip_record(9, seconds=1.5, caption="", audio_caption=""))
  return write(tmp_path_factory.mktemp("sets") / "ds", records)


def test_the_page_shows_counts_and_clips_of_the_manifest(dataset, tmp_path):
  page = Page(report.write_report(dataset, out=tmp_path / "page.html"))
  manifest = read_manifest(dataset)
  for key, value in manifest["counts"].items():
    assert f"{key.replace('_', ' ')} {value} " in page.sections["Counts"]
  assert "train 10" in page.sections["Splits"]
  assert page.sections["Dropped"].strip() == "nothing"
  stored = json.loads(page.sections["Manifest"].partition("shards ")[2])
  assert stored["fingerprint"] == manifest["fingerprint"]
  assert len(page.cards("At random")) == 10
  assert len({card.split()[0] for card in page.cards("At random")}) == 10
  (clip,) = (c for c in page.cards("At random") if c.startswith("clip8"))
  for words in ("train, 2.00 s", "10 fps", "dBFS", "hello", "CC0"):
    assert words in clip
  assert "8 short, 8 no picture, 1 no caption" in page.sections["Suspicious"]
  # One without a fault is not among the suspicious.
  assert len(page.cards("Suspicious")) == 9
  assert not any("clip8" in card for card in page.cards("Suspicious"))


def test_what_the_page_plays_is_small_and_whole(dataset, tmp_path):
  page = Page(report.write_report(dataset, out=tmp_path / "page.html"))
  assert [tag for tag, _, _ in page.media].count("video") == 3
  assert len(page.media) == 19
  for tag, kind, data in page.media:
    info = media.probe(data)
    assert kind == {"video": "video/mp4", "audio": "audio/flac"}[tag]
    assert info.has_video == (tag == "video") and info.has_audio
    assert min(info.width, info.height) <= 160
    assert info.sample_rate == 24_000


def test_the_number_of_clips_is_that_asked_for(dataset, tmp_path):
  paths = [tmp_path / f"{i}.html" for i in range(4)]
  few = Page(report.write_report(dataset, out=paths[0], num=2, seed=1))
  assert len(few.cards("At random")) == len(few.cards("Suspicious")) == 2
  none = Page(report.write_report(dataset, out=paths[1], num=0))
  assert none.media == [] and "8 short" in none.sections["Suspicious"]
  again = report.write_report(dataset, out=paths[2], num=2, seed=1)
  assert again.read_bytes() == paths[0].read_bytes()
  other = Page(report.write_report(dataset, out=paths[3], num=2, seed=2))
  assert other.cards("At random") != few.cards("At random")


def test_the_page_is_written_into_the_data_set_by_default(dataset, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(dataset, copy)
  assert report.write_report(copy, num=0) == copy / "report.html"
  before = (copy / "report.html").read_bytes()
  # A page that cannot be written leaves the old one, and no part of a new one.
  (copy / "manifest.json").unlink()
  with pytest.raises(DataError, match="no finished data set"):
    report.write_report(copy)
  assert (copy / "report.html").read_bytes() == before
  assert not [path for path in copy.iterdir() if path.name.startswith(".")]


def test_a_clip_that_cannot_be_played_is_still_listed(tmp_path):
  records = [sound_record(0), sound_record(1, audio=b"garbage")]
  path = write(tmp_path / "ds", records)
  page = Page(report.write_report(path))
  (bad,) = (c for c in page.cards("Suspicious") if c.startswith("sound001"))
  assert "cannot be decoded" in bad
  assert len(page.cards("At random")) == 2 and len(page.media) == 2


@pytest.mark.parametrize(
  "amplitude,faults",
  [
    (0.0, ("silent",)),
    (10 ** (-61 / 20), ("silent",)),
    (10 ** (-59 / 20), ()),
    (0.9, ()),
    (1.0, ("clipped",)),
  ],
)
def test_levels_are_in_dbfs_and_extremes_are_faults(amplitude, faults):
  """A square wave: peak and RMS are its amplitude."""
  wave = amplitude * np.sign(np.sin(np.arange(RATE) + 0.5))[:, None]
  record = clip_record(
    0, seconds=2.0, audio=media.encode_flac(wave.astype(np.float32), RATE)
  )
  stats = report.measure(4, record)
  assert (stats.index, stats.id, stats.faults) == (4, "clip0", faults)
  level = 20 * np.log10(amplitude) if amplitude else -np.inf
  if amplitude:
    assert stats.peak == pytest.approx(level, abs=0.2)
    assert stats.level == pytest.approx(level, abs=0.2)
  else:
    assert stats.peak == stats.level == -np.inf
  assert stats.fps == pytest.approx(10)


def test_a_histogram_counts_every_finite_value_once():
  rng = np.random.default_rng(0)
  values = [*rng.normal(size=500), np.inf, -np.inf, np.nan]
  bars = report.histogram(values, bins=10, unit="s")
  counts = [count for _, count, _ in bars]
  assert len(bars) == 10 and sum(counts) == 500
  assert max(share for _, _, share in bars) == 1.0
  for text, count, share in bars:
    assert share == pytest.approx(count / max(counts))
    low, high = map(float, re.match(r"(\S+) to (\S+) s", text).groups())
    inside = sum(low <= value <= high for value in values)
    assert abs(inside - count) <= 3  # the ends are rounded in the text


@pytest.fixture
def measured(tmp_path):
  """Six clips with columns; two are silent, one is a copy of a held-out one."""
  rows = [
    clip_record(i, seconds=1.5, sha256=str(i), licence="CC0", split=split)
    for i, split in enumerate(["train"] * 5 + ["test"])
  ]
  rows[0] |= {"caption": "Ein Hund bellt laut im Park", "tags": ["dog"]}
  dataset = write(tmp_path / "ds", rows)
  records.make_records(dataset)
  with store.Journal(dataset, "measures") as journal:
    for i in range(6):
      row = dict(silence=1.0 if i < 2 else i / 20, clipping=0.0)
      journal.add(f"clip{i}", str(i), row)
    journal.finish()
  with store.Journal(dataset, "copies") as journal:
    row = dict(duplicate=True, leak=True, leak_of="clip5")
    journal.add("clip1", "1", row)
    journal.finish()
  return dataset


def test_the_page_shows_what_the_columns_say(measured):
  args = ["data", "report", measured, "--admit", "silence < 0.5 and not leak"]
  assert cli.main(args) == 0
  text = (pathlib.Path(measured) / "report.html").read_text()
  page = Page(pathlib.Path(measured) / "report.html")
  assert (
    "4 of 6 clips admitted; 2 fail silence < 0.5" in page.sections["Admitted"]
  )
  assert "silent 2" in page.sections["Columns"]
  assert "copy 1" in page.sections["Columns"]
  assert text.count('class="cut"') == 1 and ">0.5</span>" in text
  overlaps = page.sections["Overlaps with held-out clips"]
  assert overlaps.split() == ["clip", "held-out", "clip", "clip1", "clip5"]
  # The worst first: three faults, then one; the others have none.
  worst = page.cards("Suspicious")
  assert worst[0].startswith("clip1") and "overlaps held-out clips" in worst[0]
  assert worst[1].startswith("clip0") and len(worst) == 2
  inside = page.sections["What is in it"]
  assert "CC0 6" in inside and "dog 1" in inside and "de 1" in inside
  assert cli.main([*args[:-1], "silense < 1"]) == 2


def test_a_person_keeps_and_drops_clips_and_training_follows(
  measured, browser, tmp_path
):
  page = report.write_report(measured)
  browser.get(page.as_uri())
  click = 'document.querySelector(\'[data-id="%s"] [value="%s"]\').click();'
  for id, choice in (("clip0", "drop"), ("clip1", "keep"), ("clip2", "drop")):
    browser.execute_script(click % (id, choice))
  browser.execute_script(click % ("clip2", "drop"))  # Taken back.
  chosen = "return [...chosen.values()].map(x => JSON.stringify(x)).join('\\n')"
  saved = tmp_path / "choices.jsonl"
  saved.write_text(browser.execute_script(chosen))
  dropped = "return document.querySelectorAll('.card.drop').length"
  assert browser.execute_script(dropped) >= 1
  pressed = 'return document.querySelectorAll("[aria-pressed=true]").length'
  assert browser.execute_script(pressed) >= 2
  assert_accessible(browser)
  merge = ["data", "annotate", measured, "--merge", str(saved)]
  assert cli.main([*merge, "--name=review", "--by=ann"]) == 0
  found = admit.admitted(measured, "missing(keep) or keep")
  assert found.mask.tolist() == [False, True, True, True, True, True]
  rows = store.open_columns(measured, "review").table.to_pylist()
  assert {row["by"] for row in rows} == {"ann"} and len(rows) == 2


def test_the_metadata_is_valid_croissant_and_a_datasheet_is_kept(measured):
  mlcroissant = pytest.importorskip("mlcroissant")
  report.write_report(measured)
  folder = pathlib.Path(measured)
  metadata = mlcroissant.Dataset(jsonld=folder / "croissant.json").metadata
  assert not metadata.ctx.issues.errors
  files = {f.name: f for f in metadata.distribution if hasattr(f, "sha256")}
  for shard in read_manifest(measured)["shards"]:
    assert files[shard["file"]].sha256 == shard["sha256"]
  fields = {field.name for field in metadata.record_sets[0].fields}
  assert {"id", "video", "audio", "caption", "words"} <= fields
  assert "CC0" in str(metadata.license)
  sheet = folder / "datasheet.md"
  assert (
    "| CC0 | 6 |" in sheet.read_text()
    and "To be filled in" in sheet.read_text()
  )
  sheet.write_text("written by a person")
  report.write_report(measured)
  assert sheet.read_text() == "written by a person"
