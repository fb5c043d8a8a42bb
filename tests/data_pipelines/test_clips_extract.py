"""One file becomes records: where it is cut, what is kept, what is dropped."""

import math

import numpy as np
import pytest
import soundfile

from data_pipelines import clips
from data_pipelines.caption_rows import Row
from data_pipelines.clips import ClipOptions
from tests.data_pipelines.samples import FILE_RATE, click, write_clip
from v2a_jax import media


def extract(path, *rows, **options):
  """(outcome, records) of one file."""
  return clips.extract(
    path.name,
    directory=path.parent,
    names={path.name: path.stem},
    rows={path.name: rows},
    members={},
    options=ClipOptions(**options),
  )


def reasons(outcome):
  return [drop["reason"] for drop in outcome.drops]


def cut(duration, *rows, most=10.0):
  parts = clips.stretches(duration, rows or [Row(line=0)], most)
  return [(start, end) for start, end, _ in parts]


def flash_and_click(record):
  """Times of the first bright frame and of the first loud sample."""
  video = media.read_video(record["video"])
  audio = media.read_audio(record["audio"], sample_rate=FILE_RATE)
  bright = video.frames.mean((1, 2, 3)) > 128
  loud = np.abs(audio.samples[:, 0]) > 0.1
  return video.times[np.argmax(bright)], np.argmax(loud) / FILE_RATE


def test_a_file_is_cut_at_multiples_of_max_seconds():
  assert cut(10.4) == [(0, 10.4)]
  assert cut(10.6) == [(0, 10), (10, 10.6)]
  assert cut(23.0) == [(0, 10), (10, 20), (20, 23.0)]
  assert cut(500.0, most=0) == [(0, 500.0)]


def test_rows_are_sorted_and_end_with_the_file():
  later, early = Row(line=1, start=5.0), Row(line=2, start=1.0, end=2.0)
  assert cut(8.0, later, early) == [(1.0, 2.0), (5.0, 8.0)]
  assert cut(8.0, Row(line=1, end=99.0)) == [(0, 8.0)]
  assert cut(8.0, Row(line=1, start=3.0, end=8.0), most=2.0) == [
    (3.0, 5.0),
    (5.0, 7.0),
    (7.0, 8.0),
  ]


@pytest.mark.parametrize("seed", range(5))
def test_clips_of_a_file_tile_it_and_none_is_too_long(seed):
  """Also of an hour: the last clip takes up at most 5 % of a clip's length."""
  rng = np.random.default_rng(seed)
  for duration in [3600.0, 104.0, *rng.uniform(0.1, 5000, 40)]:
    most = float(rng.uniform(0.5, 30))
    parts = cut(duration, most=most)
    assert parts[0][0] == 0 and parts[-1][1] == duration
    assert all(a[1] == b[0] for a, b in zip(parts, parts[1:]))
    lengths = [end - start for start, end in parts]
    assert max(lengths) <= 1.05 * most + 1e-9
    np.testing.assert_allclose(lengths[:-1], most, rtol=1e-6)
    assert lengths[-1] > 0.05 * most - 1e-9 or len(parts) == 1


def test_ids_are_unique_file_names():
  names = clips.clip_names(["a/b c.mp4", "a/b c.wav", "ü/x.y.mov"])
  assert len(set(names.values())) == 3
  assert all("/" not in name and " " not in name for name in names.values())
  assert names["ü/x.y.mov"] == "ü__x.y"


def test_ids_of_many_confusable_paths_stay_apart():
  rng = np.random.default_rng(0)
  parts = ["a", "a b", "a_b", "a  b", "a__b", "b", "á", "a-b", "a.b"]
  files = {
    "/".join(rng.choice(parts, rng.integers(1, 4))) + ending
    for ending in (".mp4", ".wav", ".MP4")
    for _ in range(200)
  }
  names = clips.clip_names(sorted(files))
  assert len(set(names.values())) == len(files)
  # A file's id does not depend on the order in which the files are listed.
  assert clips.clip_names(sorted(files, reverse=True)) == names


def test_splits_are_stable_and_of_the_size_asked_for():
  names = [f"{i}" for i in range(2000)]
  splits = [clips.split_of(name, val=0.1, test=0.2) for name in names]
  # Five standard deviations of a binomial count.
  for split, share in (("val", 0.1), ("test", 0.2)):
    sigma = math.sqrt(share * (1 - share) / len(names))
    assert abs(splits.count(split) / len(names) - share) < 5 * sigma
  for val, test, only in ((0, 0, "train"), (1, 0, "val"), (0, 1, "test")):
    assert {clips.split_of(n, val=val, test=test) for n in names} == {only}
  # More test files take in the old ones: nothing tested becomes training data.
  small = {n for n in names if clips.split_of(n, val=0.1, test=0.1) == "test"}
  large = {n for n, split in zip(names, splits) if split == "test"}
  assert small < large


@pytest.mark.parametrize(
  "size,short_side,expected",
  [
    ((64, 96), 32, (32, 48)),
    ((96, 64), 32, (48, 32)),
    ((50, 90), 20, (20, 36)),
    ((34, 34), 32, (32, 32)),
  ],
)
def test_large_video_is_scaled_down(tmp_path, size, short_side, expected):
  path = write_clip(tmp_path / "a.mp4", size=size)
  outcome, (record,) = extract(path, short_side=short_side)
  info = media.probe(record["video"])
  assert (info.height, info.width) == expected
  assert outcome.notes == ["re-encoded"]
  assert flash_and_click(record) == pytest.approx((0.5, 0.5), abs=2e-3)


def test_small_h264_is_kept_byte_for_byte(tmp_path):
  path = write_clip(tmp_path / "a.mp4")
  outcome, (record,) = extract(path)
  assert record["video"] == path.read_bytes()
  assert outcome.notes == ["kept as is"]
  assert outcome.drops == []


def test_a_high_frame_rate_is_thinned_where_video_is_encoded(tmp_path):
  path = write_clip(tmp_path / "a.mp4", size=(64, 64), fps=50)
  _, (record,) = extract(path, short_side=32, max_fps=10)
  video = media.read_video(record["video"])
  assert np.diff(video.times).min() > 0.1 - 1e-3
  assert len(video.times) == 10


def test_sound_is_stored_at_its_own_rate_up_to_the_limit(tmp_path):
  path = write_clip(tmp_path / "a.mp4")
  for limit, expected in ((48_000, FILE_RATE), (8_000, 8_000)):
    _, (record,) = extract(path, max_sample_rate=limit)
    file = tmp_path / "sound.flac"
    file.write_bytes(record["audio"])
    samples, rate = soundfile.read(file, always_2d=True)
    assert rate == expected and samples.shape == (rate, 1)
    assert np.argmax(np.abs(samples[:, 0]) > 0.1) / rate == pytest.approx(
      0.5, abs=2e-3
    )


def test_two_channels_stay_two(tmp_path):
  stereo = click(1.0, 0.5, channels=2) * [1, 0.5]
  path = write_clip(tmp_path / "a.mp4", audio=stereo, audio_codec="flac")
  _, (record,) = extract(path)
  samples, _ = media.decode_flac(record["audio"])
  np.testing.assert_allclose(samples, stereo, atol=1e-4)


def test_a_row_with_times_is_a_clip_of_its_own(tmp_path):
  path = write_clip(tmp_path / "a.mp4", seconds=2.0, flash=1.25)
  rows = [
    Row(line=2, start=1.0, end=1.75, caption="late", split="test"),
    Row(line=3, end=0.5, caption="early"),
  ]
  outcome, (early, late) = extract(path, *rows, val_fraction=1, test_fraction=0)
  assert [early["caption"], late["caption"]] == ["early", "late"]
  assert [early["id"], late["id"]] == ["a_t00000000", "a_t00001000"]
  # A file is in one split, that of the first row which names one.
  assert [early["split"], late["split"]] == ["test", "test"]
  assert early["duration"] == pytest.approx(0.5, abs=1e-6)
  assert late["duration"] == pytest.approx(0.75, abs=1e-6)
  assert flash_and_click(late) == pytest.approx((0.25, 0.25), abs=2e-3)
  assert len({early["sha256"], late["sha256"], outcome.sha256}) == 1
  assert [clip["captioned"] for clip in outcome.clips] == [True, True]


def test_stretches_that_cannot_be_used_are_listed_with_their_times(tmp_path):
  path = write_clip(tmp_path / "a.mp4")
  rows = [
    Row(line=2, start=0.0, end=0.5),
    Row(line=3, start=0.5, end=0.55),
    Row(line=4, start=7.0, end=8.0),
  ]
  outcome, records = extract(path, *rows)
  assert len(records) == 1
  assert [(d["start"], d["reason"]) for d in outcome.drops] == [
    (0.5, "too short"),
    (7.0, "after the end"),
  ]
  outcome, records = extract(path, *rows[1:])
  assert records == [] and len(outcome.drops) == 1
  assert outcome.drops[0]["start"] is None  # the whole file


def test_short_clips_are_dropped(tmp_path):
  path = write_clip(tmp_path / "a.mp4")
  assert len(extract(path, min_seconds=0.9)[1]) == 1
  outcome, records = extract(path, min_seconds=1.5)
  assert records == [] and reasons(outcome) == ["too short"]


def test_a_missing_track_is_a_reason_unless_it_is_allowed(tmp_path):
  mute = write_clip(tmp_path / "mute.mp4", audio=None, sample_rate=None)
  outcome, records = extract(mute)
  assert records == [] and reasons(outcome) == ["no audio"]
  assert "--allow_video_only" in outcome.drops[0]["detail"]
  _, (record,) = extract(mute, allow_video_only=True)
  assert record["audio"] == b"" and record["video"]
  media.write_wav(tmp_path / "sound.wav", click(0.5, 0.2), FILE_RATE)
  outcome, records = extract(tmp_path / "sound.wav")
  assert records == [] and reasons(outcome) == ["no video"]
  assert "--allow_audio_only" in outcome.drops[0]["detail"]
  _, (record,) = extract(tmp_path / "sound.wav", allow_audio_only=True)
  assert record["video"] == b""
  samples, rate = media.decode_flac(record["audio"])
  np.testing.assert_allclose(samples, click(0.5, 0.2), atol=1e-4)
  assert (rate, record["duration"]) == (FILE_RATE, 0.5)


def test_a_silent_track_is_noted(tmp_path):
  path = write_clip(tmp_path / "a.mp4", audio=0 * click(1.0, 0.5))
  outcome, records = extract(path)
  assert len(records) == 1 and "silent" in outcome.notes


def test_a_clip_lasts_as_long_as_its_picture(tmp_path):
  """Sound after the last frame is cut; missing sound is not made up."""
  longer = write_clip(tmp_path / "longer.mp4", audio=click(3.0, 0.5))
  _, (record,) = extract(longer)
  samples, rate = media.decode_flac(record["audio"])
  assert record["duration"] == pytest.approx(1.0, abs=0.06)
  assert len(samples) / rate <= record["duration"] + 1e-3
  shorter = write_clip(tmp_path / "shorter.mp4", audio=click(0.75, 0.5))
  _, (record,) = extract(shorter)
  samples, rate = media.decode_flac(record["audio"])
  assert record["duration"] == pytest.approx(1.0, abs=0.06)
  assert len(samples) / rate < 0.9


@pytest.mark.parametrize("kind", ["absent", "folder", "empty", "noise", "cut"])
def test_a_file_that_cannot_be_read_is_dropped_by_name(tmp_path, kind):
  path = tmp_path / "bad.mp4"
  whole = write_clip(tmp_path / "whole.mp4").read_bytes()
  if kind == "folder":
    path.mkdir()
  elif kind != "absent":
    noise = np.random.default_rng(0).bytes(5000)
    data = {"empty": b"", "noise": noise, "cut": whole[:700]}[kind]
    path.write_bytes(data)
  outcome, records = extract(path)
  assert records == [] and outcome.key == "bad.mp4"
  (drop,) = outcome.drops
  assert drop["reason"] == "unreadable" and drop["detail"]
  assert "\n" not in drop["detail"]


def test_a_record_keeps_all_that_its_row_says(tmp_path):
  path = write_clip(tmp_path / "a.mp4")
  row = Row(
    line=2,
    caption="A flash.",
    audio_caption="A click.",
    transcript="hello you",
    label="click",
    tags=("speech", "effects"),
    licence="CC0",
    source="here",
    split="val",
  )
  outcome, (record,) = extract(path, row)
  for field in ("caption", "audio_caption", "transcript", "label", "licence"):
    assert record[field] == getattr(row, field)
  assert (record["source"], record["split"]) == ("here", "val")
  assert record["tags"] == ["speech", "effects"]
  assert outcome.clips[0]["texts"] == ["A flash.", "A click.", "hello you"]
  _, (plain,) = extract(path)
  assert plain["id"] == "a" and plain["caption"] == ""
