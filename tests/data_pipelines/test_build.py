"""Real files, built into data sets that anyone can open."""

import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from data_pipelines import build, media_files, scenes
from data_pipelines.assemble import OutputOptions
from data_pipelines.clips import ClipOptions
from data_pipelines.columns import store, view
from data_pipelines.loader import make_loader
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.schema import DataError
from data_pipelines.writer import BuildError
from tests.data_pipelines.samples import (
  FILE_RATE,
  click,
  contents,
  read,
  write_clip,
)
from v2a_jax import media
from v2a_jax.basics.settings import SettingError

ROOT = pathlib.Path(__file__).parents[2]
SHARED = ROOT / ".." / "shared" / "clips"
# No byte code from processes that are to be killed or cannot write.
ENVIRONMENT = os.environ | {
  "PYTHONPATH": str(ROOT),
  "PYTHONDONTWRITEBYTECODE": "1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Good clips, odd ones and broken ones."""
  root = tmp_path_factory.mktemp("clips")
  one = write_clip(root / "sub/one.mp4")
  shutil.copy(one, root / "two same.mp4")
  write_clip(root / "large.mp4", size=(320, 480), flash=0.25)
  write_clip(root / "long.mp4", seconds=2.5, flash=1.75, crf=30)
  write_clip(root / "mute.mp4", audio=None, sample_rate=None)
  media.write_wav(root / "sound.wav", click(0.5, 0.2), FILE_RATE)
  (root / "empty.mp4").touch()
  (root / "noise.webm").write_bytes(np.random.default_rng(0).bytes(4096))
  (root / "cut.mp4").write_bytes(one.read_bytes()[:900])
  (root / "notes.txt").write_text("not a clip")
  (root / "captions.csv").write_text(
    "file,caption,audio_caption,transcript,split,licence\n"
    "one.mp4,A flash,A click,hello you,test,CC0\n"
    "large.mp4,Large,,,,\n"
    "absent.mp4,Nothing,,,,\n"
  )
  return root


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
  out = tmp_path_factory.mktemp("out") / "ds"
  lines = []
  manifest = build.build_folder(
    folder,
    out=out,
    captions_csv=folder / "captions.csv",
    options=ClipOptions(max_seconds=1.0, val_fraction=0, test_fraction=0),
    log=lines.append,
  )
  return out, manifest, lines


def test_counts_add_up_and_every_drop_has_a_reason(built):
  out, manifest, lines = built
  counts = manifest["counts"]
  assert counts["items_seen"] == 9
  assert counts["items_kept"] + counts["items_dropped"] == 9
  assert counts["items_dropped"] == sum(manifest["drops"].values()) == 6
  assert counts["clips_kept"] == sum(manifest["splits"].values()) == 5
  assert counts["clips_kept"] == sum(s["records"] for s in manifest["shards"])
  assert counts["clips_without_caption"] == 3
  with open(out / "drops.csv") as file:
    drops = {row["file"]: row["reason"] for row in csv.DictReader(file)}
  assert drops == {
    "cut.mp4": "unreadable",
    "empty.mp4": "unreadable",
    "mute.mp4": "no audio",
    "noise.webm": "unreadable",
    "sound.wav": "no video",
    "two same.mp4": "duplicate",
  }
  with open(out / "unmatched.csv") as file:
    (row,) = csv.DictReader(file)
  assert (row["line"], row["file"]) == ("4", "absent.mp4")
  text = "\n".join(lines)
  assert "9 files = 3 kept + 6 dropped" in text
  assert "caption = caption, audio_caption = audio_caption" in text
  assert "1 rows of captions were not used" in text


def test_anyone_can_open_it_with_tfds(built):
  out, manifest, _ = built
  data = tfds.builder_from_directory(out).as_data_source()
  assert {split: len(data[split]) for split in data} == manifest["splits"]
  (record,) = data["test"]
  assert record["caption"] == b"A flash"
  assert record["video"][4:8] == b"ftyp"
  assert "tensorflow" not in sys.modules


def test_records_say_what_the_table_says(built, folder):
  records = read(built[0])
  one = records["sub__one"]
  assert one["transcript"] == "hello you" and one["split"] == "test"
  assert one["licence"] == "CC0" and one["audio_caption"] == "A click"
  original = (folder / "sub/one.mp4").read_bytes()
  assert one["video"] == original  # H.264 and small: the bytes are kept
  assert one["sha256"] == hashlib.sha256(original).hexdigest()
  assert one["duration"] == pytest.approx(1.0, abs=1e-6)
  assert records["large"]["caption"] == "Large"
  info = media.probe(records["large"]["video"])
  assert (info.height, info.width) == (256, 384)


def test_every_clip_keeps_picture_and_sound_together(built):
  records = read(built[0])
  assert {k for k in records if k.startswith("long")} == {
    f"long_t{ms:08d}" for ms in (0, 1000, 2000)
  }
  lengths = [records[f"long_t{ms:08d}"]["duration"] for ms in (0, 1000, 2000)]
  np.testing.assert_allclose(lengths, [1, 1, 0.5], atol=1e-3)
  for name, expected in {"large": 0.25, "long_t00001000": 0.75}.items():
    video = media.read_video(records[name]["video"])
    audio = media.read_audio(records[name]["audio"], sample_rate=FILE_RATE)
    flash = video.times[np.argmax(video.frames.mean((1, 2, 3)) > 128)]
    sound = np.argmax(np.abs(audio.samples[:, 0]) > 0.1) / FILE_RATE
    assert flash == pytest.approx(expected, abs=1e-3)
    assert sound == pytest.approx(expected, abs=2e-3)


def test_building_again_changes_nothing(built, folder):
  out, manifest, _ = built
  before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
  settings = dict(captions_csv=folder / "captions.csv", log=lambda _: None)
  options = ClipOptions(max_seconds=1.0, val_fraction=0, test_fraction=0)
  again = build.build_folder(folder, out=out, options=options, **settings)
  assert again == json.loads(json.dumps(manifest))
  with pytest.raises(BuildError, match="built from other files or settings"):
    build.build_folder(folder, out=out, **settings)
  assert before == {p.name: p.stat().st_mtime_ns for p in out.iterdir()}


def test_sound_and_picture_alone_are_kept_when_allowed(folder, tmp_path):
  options = ClipOptions(allow_audio_only=True, allow_video_only=True)
  build.build_folder(folder, out=tmp_path / "ds", options=options)
  records = read(tmp_path / "ds")
  assert records["sound"]["video"] == b""
  assert records["sound"]["duration"] == pytest.approx(0.5)
  assert records["mute"]["audio"] == b""


def test_a_killed_build_is_continued(folder, tmp_path):
  """Killed without warning; the second run ends as if nothing had been."""
  script = textwrap.dedent("""
    import os, signal, sys
    from data_pipelines import build, writer
    from data_pipelines.assemble import OutputOptions
    add = writer.DatasetWriter.add
    def count(self, *args):
      add(self, *args)
      if len(self.done) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    writer.DatasetWriter.add = count
    build.build_folder(
        sys.argv[1], out=sys.argv[2], output=OutputOptions(shard_mb=0.001)
    )
  """)
  out = tmp_path / "ds"
  command = [sys.executable, "-c", script, str(folder), str(out), "5"]
  assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode < 0
  assert not out.exists()
  lines = []
  output = OutputOptions(shard_mb=0.001)
  manifest = build.build_folder(
    folder, out=out, output=output, log=lines.append
  )
  assert "continuing: 5 files are done already" in lines
  fresh = build.build_folder(folder, out=tmp_path / "fresh", output=output)
  assert manifest == fresh
  assert sorted(p.name for p in tmp_path.iterdir()) == ["ds", "fresh"]


def test_a_full_disk_is_one_line_and_costs_nothing(folder, tmp_path):
  """The kernel refuses to write past a size: shards cannot be closed."""
  script = textwrap.dedent("""
    import resource, sys
    from data_pipelines import build, writer
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
      build.build_folder(sys.argv[1], out=sys.argv[2], log=lambda _: None)
    except writer.BuildError as error:
      sys.exit(f"error: {error}")
  """)
  out = tmp_path / "ds"
  done = subprocess.run(
    [sys.executable, "-c", script, str(folder), str(out)],
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
    check=False,
  )
  last = done.stderr.strip().splitlines()[-1]
  assert done.returncode == 1 and last.startswith("error: ")
  assert "cannot write" in last and "start the same command again" in last
  assert not out.exists()
  build.build_folder(folder, out=out)
  assert len(read(out)) == 3


def test_nothing_is_overwritten_by_mistake(folder, tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine/letter.txt").write_text("keep")
  with pytest.raises(BuildError, match="exists and is no data set"):
    build.build_folder(folder, out=tmp_path / "mine")
  assert (tmp_path / "mine/letter.txt").read_text() == "keep"
  with pytest.raises(DataError, match="no folder"):
    build.build_folder(tmp_path / "nowhere", out=tmp_path / "x")
  with pytest.raises(DataError, match="0 media files .1 other"):
    build.build_folder(tmp_path / "mine", out=tmp_path / "x")
  (tmp_path / "bad").mkdir()
  (tmp_path / "bad/a.mp4").write_bytes(b"garbage")
  with pytest.raises(BuildError, match="no clip was kept.*1 unreadable"):
    build.build_folder(tmp_path / "bad", out=tmp_path / "x")


def test_scenes(tmp_path):
  out = tmp_path / "scenes"
  options = build.SceneOptions(seconds=2.0, size=32, fps=10, held_out=0.25)
  manifest = build.build_scenes(4, 7, out=out, options=options)
  assert manifest["splits"] == {"train": 2, "val": 1, "test": 1}
  for record in read(out).values():
    assert record["events"] or record["words"]
    assert record["caption"] and record["licence"]
  lines = []
  again = build.build_scenes(4, 7, out=out, options=options, log=lines.append)
  assert again["shards"] == manifest["shards"]
  assert "already built" in lines[-1]
  output = OutputOptions(overwrite=True, workers=1, tokenizer=out)
  other = build.build_scenes(2, 7, out=out, options=options, output=output)
  assert other["tokenizer"]["sha256"] == manifest["tokenizer"]["sha256"]
  with pytest.raises(SettingError, match=r"num=0 is not in \[1, inf\)"):
    build.build_scenes(0, out=tmp_path / "none")


def test_scenes_of_a_seed_are_the_same_bytes():
  """x264's macroblock tree gave this one other bytes every other time."""
  options = dataclasses.asdict(build.SceneOptions())
  render = lambda: next(iter(scenes.iter_records(40, 3, start=7, **options)))
  assert len({render()["video"] for _ in range(10)}) == 1


def test_a_set_is_the_same_bytes_by_any_number_of_workers(tmp_path):
  scene = build.SceneOptions(seconds=2.0, size=32, fps=10, ordered=0.3)
  clips = ClipOptions(short_side=32, test_fraction=0.3)
  for i in range(6):
    write_clip(tmp_path / f"clips/{i}.mp4", size=(64, 64))
  for number in (1, 2):
    output = OutputOptions(workers=number, shard_mb=0.05)
    out = tmp_path / f"scenes{number}"
    build.build_scenes(6, 7, out=out, options=scene, output=output)
    out = tmp_path / f"set{number}"
    build.build_folder(
      tmp_path / "clips", out=out, options=clips, output=output
    )
  for kind in ("scenes", "set"):
    one, two = (contents(tmp_path / f"{kind}{number}") for number in (1, 2))
    assert one == two and len(one) > 6


def test_pipes_devices_and_odd_rates_are_dropped_and_nothing_hangs(tmp_path):
  folder = tmp_path / "clips"
  write_clip(folder / "good.mp4")
  os.mkfifo(folder / "pipe.mp4")
  (folder / "zero.mp4").symlink_to("/dev/zero")
  media.write_wav(folder / "slow.wav", np.zeros((100, 1), np.float32), 1)
  options = ClipOptions(allow_audio_only=True, val_fraction=0, test_fraction=0)
  manifest = build.build_folder(folder, out=tmp_path / "ds", options=options)
  assert manifest["splits"]["train"] == 1
  (drops,) = [list(csv.DictReader((tmp_path / "ds" / "drops.csv").open()))]
  reasons = {row["file"]: row["detail"] for row in drops}
  assert "not a regular file" in reasons["pipe.mp4"] + reasons["zero.mp4"]
  assert reasons["slow.wav"].startswith("1 Hz is not in")


def test_a_range_after_the_end_and_too_many_channels_say_so(tmp_path):
  folder = tmp_path / "clips"
  write_clip(folder / "good.mp4")
  write_clip(folder / "late.mp4")
  soundfile.write(folder / "many.wav", np.zeros((8000, 65)), 8000)
  (folder / "table.csv").write_text("file,start,end\nlate.mp4,5,6\n")
  build.build_folder(
    folder,
    out=tmp_path / "ds",
    captions_csv=folder / "table.csv",
    options=ClipOptions(allow_audio_only=True),
  )
  drops = csv.DictReader((tmp_path / "ds" / "drops.csv").open())
  reasons = {row["file"]: (row["reason"], row["detail"]) for row in drops}
  assert reasons == {
    "late.mp4": ("after the end", "at 5 s; the file has 1 s"),
    "many.wav": ("channels", "65 are over 64"),
  }


def test_parts_of_one_file_are_all_in_one_split(tmp_path):
  """A set whose test clips were in a training shard could not be read."""
  folder = tmp_path / "clips"
  write_clip(folder / "long.mp4", seconds=2.0)
  (folder / "table.csv").write_text(
    "file,caption,start,end,split\nlong.mp4,one,0,0.5,\n"
    "long.mp4,two,0.5,1,test\nlong.mp4,three,1,2,train\n"
  )
  manifest = build.build_folder(
    folder, out=tmp_path / "ds", captions_csv=folder / "table.csv"
  )
  assert manifest["splits"] == {"test": 2}
  assert {r["split"] for r in read(tmp_path / "ds").values()} == {"test"}
  text = (tmp_path / "ds" / "unmatched.csv").read_text()
  assert '4,long.mp4,"split train, but line 3 puts the file in test"' in text


def test_sound_that_ends_early_is_counted_and_the_rest_has_no_weight(tmp_path):
  """Silence that nobody recorded is neither learned nor taken for the truth."""
  folder = tmp_path / "clips"
  write_clip(folder / "short.mp4", seconds=2.0, audio=click(0.5, 0.2))
  options = ClipOptions(val_fraction=0, test_fraction=0)
  manifest = build.build_folder(folder, out=tmp_path / "ds", options=options)
  assert manifest["notes"]["with sound that ends early"] == 1
  (record,) = read(tmp_path / "ds").values()
  assert record["duration"] == pytest.approx(2.0, abs=0.1)
  config = LoaderConfig(
    paths=(str(tmp_path / "ds"),), seconds=2.0, fps=10.0, batch_size=1
  )
  with make_loader(config) as loader:
    batch = next(loader)
  assert batch["duration"] == pytest.approx(0.5, abs=0.1)
  assert batch["frame_mask"].sum() == 20  # The picture is seen to its end.


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/clips")
def test_real_clips_with_their_captions(tmp_path):
  manifest = build.build_folder(
    SHARED / "av",
    out=tmp_path / "ds",
    captions_csv=SHARED / "captions.csv",
    limit=6,
  )
  assert manifest["counts"]["items_kept"] == 6
  assert manifest["counts"]["clips_without_caption"] == 0
  assert manifest["rows_unmatched"] == 64


def test_linked_folders_are_searched_once_and_endings_named(tmp_path):
  folder, other = tmp_path / "clips", tmp_path / "other"
  write_clip(folder / "a.mp4")
  write_clip(other / "deep/b.mp4", flash=0.25)
  (folder / "linked").symlink_to(other)
  (folder / "again").symlink_to(other)
  (other / "deep" / "up").symlink_to(folder)
  (other / "deep" / "round").symlink_to(other)
  (folder / "notes.txt").touch()
  (folder / "README").touch()
  found = media_files.find_media(folder)
  assert found.files == ["a.mp4", "again/deep/b.mp4"]
  assert found.others == {".txt": 1, "without an ending": 1}
  assert sorted(note.split()[0] for note in found.notes) == [
    str(folder / name)
    for name in ("again/deep/round", "again/deep/up", "linked")
  ]
  lines = []
  build.build_folder(folder, out=tmp_path / "ds", log=lines.append)
  assert "(2 others ignored: 1 .txt, 1 without an ending)" in lines[0]
  assert sum("is searched already" in line for line in lines) == 3


def test_a_file_is_the_stretch_of_its_film_or_the_film(tmp_path):
  folder = tmp_path / "clips"
  write_clip(folder / "cut_000030.mp4", seconds=1.0)
  write_clip(folder / "whole.mp4", seconds=2.5, flash=1.75)
  write_clip(folder / "same.mp4", seconds=1.0, flash=0.25)
  (folder / "table.csv").write_text(
    "ytid,start_seconds,end_seconds\ncut,30,31\nwhole,1,2\nsame,30,31\n"
  )
  build.build_folder(
    folder, out=tmp_path / "ds", captions_csv=folder / "table.csv"
  )
  seconds = {k: r["duration"] for k, r in read(tmp_path / "ds").items()}
  assert seconds == {
    "cut_000030": pytest.approx(1.0, abs=0.05),
    "whole_t00001000": pytest.approx(1.0, abs=0.05),
    "same": pytest.approx(1.0, abs=0.05),
  }


def test_several_captions_are_in_the_record(tmp_path):
  folder = tmp_path / "clips"
  write_clip(folder / "a.mp4")
  (folder / "table.csv").write_text("file,caption\na,one\na,two\na,three\n")
  build.build_folder(
    folder,
    out=tmp_path / "ds",
    captions_csv=folder / "table.csv",
    options=ClipOptions(val_fraction=0, test_fraction=0),
  )
  record = read(tmp_path / "ds")["a"]
  assert record["caption"] == "one"
  assert record["other_captions"] == ["two", "three"]


def test_who_said_it_and_how_sure_is_kept_beside_the_records(tmp_path):
  """Of each text, from the table's columns, --by or the table's own name."""
  folder, out = tmp_path / "clips", tmp_path / "ds"
  folder.mkdir()
  for name in ("a", "b", "c"):
    soundfile.write(folder / f"{name}.wav", noise(name), 16_000)
  (folder / "people.csv").write_text(
    "file,audio_caption,transcript,by,confidence\n"
    "a.wav,a bell,,ann,0.9\na.wav,a gong,,bob,0.2\nb.wav,rain,hello,,\n"
    "c.wav,wind,,ann,sure\n"
  )
  (folder / "model.csv").write_text(
    "file,caption,confidence\na.wav,a bell,0.1\nb.wav,drops,0.4\nc.wav,,1\n"
  )
  tables = [folder / "people.csv", folder / "model.csv"]
  options = ClipOptions(allow_audio_only=True, val_fraction=0, test_fraction=0)

  def run(**settings):
    build.build_folder(
      folder, out=out, captions_csv=tables, options=options, log=lines.append,
      **settings,
    )  # fmt: skip
    table = store.open_columns(out, "provenance").table
    rows = [
      (row["id"], row["by"], row["confidence"], tuple(row["texts"]))
      for row in table.to_pylist()
    ]
    return sorted(rows, key=repr)

  lines = []
  assert run() == [
    ("a", "ann", 0.9, ("a bell",)),
    ("a", "bob", 0.2, ("a gong",)),
    ("b", "model.csv", 0.4, ("drops",)),
    ("b", "people.csv", None, ("rain", "hello")),
  ]
  assert "confidence is not a number from 0 to 1" in (
    (out / "unmatched.csv").read_text()
  )
  assert {row[1] for row in run(by="alt text")} == {"ann", "bob", "alt text"}
  sure, _ = view.open_view(out, "train", least=0.5)
  found = {record["id"]: record for record in sure}
  assert found["a"]["audio_caption"] == "a bell"
  assert found["a"]["other_captions"] == []
  assert found["b"]["caption"] == "" and found["b"]["audio_caption"] == "rain"
  assert found["b"]["transcript"] == "hello"  # Of nobody knows how sure.
  everything, _ = view.open_view(out, "train")
  assert {r["id"]: r["caption"] for r in everything}["b"] == "drops"


def noise(name):
  rng = np.random.default_rng(ord(name))
  return rng.normal(0, 0.1, 8000).astype(np.float32)
