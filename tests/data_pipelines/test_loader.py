"""Batches from real data sets: the same ones however they are read."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines import schema
from data_pipelines.decoding import MediaCache
from data_pipelines.example import decode_record
from data_pipelines.loader import make_decoder, make_loader
from data_pipelines.schema import DataError
from data_pipelines.source import open_source
from tests.data_pipelines.samples import (
  RATE,
  assert_same,
  clip_record,
  clip_time,
  film_config,
  flip_byte,
  write,
)

NUM = 10


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  records = [clip_record(i, seconds=2.0) for i in range(NUM - 2)]
  records += [clip_record(8, video=b""), clip_record(9, audio=b"")]
  out = tmp_path_factory.mktemp("data") / "ds"
  return write(out, records, shard_mb=0.05)


@pytest.fixture
def config(path):
  return film_config(path, prompt_length=16, transcript_length=8, seed=1)


def read(config, steps=6, **where):
  with make_loader(config, **where) as loader:
    return [next(loader) for _ in range(steps)]


def test_a_batch_is_what_the_architecture_says(config):
  (batch,) = read(config, 1)
  shapes = {key: (str(a.dtype), a.shape) for key, a in batch.items()}
  assert shapes == {
    "frames": ("uint8", (4, 5, 8, 12, 3)),
    "frame_times": ("float32", (4, 5)),
    "frame_mask": ("bool", (4, 5)),
    "audio": ("float32", (4, RATE, 1)),
    "duration": ("float32", (4,)),
    "prompt": ("int32", (4, 16)),
    "prompt_mask": ("bool", (4, 16)),
    "transcript": ("int32", (4, 8)),
    "transcript_times": ("float32", (4, 8)),
    "transcript_durations": ("float32", (4, 8)),
    "transcript_mask": ("bool", (4, 8)),
    "transcript_timed": ("bool", (4,)),
    "presence": ("int32", (4, 3)),
    "example": ("int64", (4,)),
  }


def test_picture_and_sound_are_cut_at_the_same_moment(config):
  """Both tell the time in the clip; they agree wherever the crop lies."""
  starts = set()
  for batch in read(config, 8):
    for i, index in enumerate(batch["example"]):
      if index < 8:
        example = {key: value[i] for key, value in batch.items()}
        by_frames, by_sound = clip_time(example, index, seconds=2.0)
        assert by_frames == pytest.approx(by_sound, abs=0.02)
        starts.add(round(float(by_sound), 2))
  assert len(starts) > 5 and max(starts) > 0.5


def test_an_epoch_holds_every_record_once_in_a_new_order(config):
  config = dataclasses.replace(config, batch_size=5)
  order = [batch["example"].tolist() for batch in read(config, 4)]
  first, second = order[0] + order[1], order[2] + order[3]
  assert sorted(first) == sorted(second) == list(range(NUM))
  assert first != second
  plain = read(dataclasses.replace(config, shuffle=False), 2)
  assert plain[0]["example"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
  "changes",
  [{"num_threads": 0}, {"num_threads": 4}, {"cache_mb": 100}],
  ids=str,
)
def test_batches_do_not_depend_on_how_they_are_read(config, changes):
  changed = dataclasses.replace(config, **changes)
  assert_same(read(config, 8), read(changed, 8))


def test_batches_do_not_depend_on_worker_processes(config):
  whole = read(config, 6)
  workers = dataclasses.replace(config, num_workers=2, cache_mb=10)
  assert_same(whole, read(workers, 6))
  one = dataclasses.replace(config, num_workers=1)
  assert_same(whole[3:], read(one, 3, start_step=3))


def test_processes_share_the_same_global_batches(config):
  whole = read(config)
  parts = [read(config, process_index=i, process_count=2) for i in range(2)]
  assert len(parts[0][0]["example"]) == 2
  joined = [
    {key: np.concatenate([left[key], right[key]]) for key in left}
    for left, right in zip(*parts)
  ]
  assert_same(whole, joined)
  with pytest.raises(DataError, match="batch_size=4 is not divisible"):
    make_loader(config, process_count=3)


def test_resume_in_the_middle_of_an_epoch_on_other_processes(config):
  whole = read(config, 8)
  with make_loader(config) as loader:
    for _ in range(3):
      next(loader)
    step = loader.step
  assert step == 3
  assert_same(whole[3:], read(config, 5, start_step=step))
  half = read(config, 5, start_step=3, process_index=1, process_count=2)
  assert_same([{k: v[2:] for k, v in b.items()} for b in whole[3:]], half)


def test_a_seed_is_an_order(config):
  other = dataclasses.replace(config, seed=2)
  assert read(config, 1)[0]["example"].tolist() != (
    read(other, 1)[0]["example"].tolist()
  )


def test_missing_picture_sound_and_short_clips(config, path):
  decode = make_decoder(config)
  records = open_source(path, "train")
  silent, unseen = decode(records[9]), decode(records[8])
  assert unseen["duration"] == 1 and not unseen["frame_mask"].any()
  assert silent["duration"] == 0 and silent["frame_mask"].all()
  assert not silent["audio"].any()
  short = decode(clip_record(1, seconds=0.4), index=7)
  assert short["duration"] == np.float32(0.4)
  assert short["frame_mask"].tolist() == [True, True, False, False, False]
  assert short["audio"][: round(0.4 * RATE)].all()
  assert not short["audio"][round(0.4 * RATE) :].any()
  assert short["example"] == 7


def test_long_records_are_read_where_they_are_needed(config):
  """Crops of a record of many windows are those of the whole record."""
  record = clip_record(0, seconds=6.0)
  tokenizer = config.load_tokenizer()
  for seed in range(3):
    example = decode_record(
      record,
      window=config.window,
      tokenizer=tokenizer,
      rng=np.random.default_rng(seed),
      crop="random",
    )
    by_frames, by_sound = clip_time(example, 0, seconds=6.0)
    assert by_frames == pytest.approx(by_sound, abs=0.06) and by_sound > 0.1
    assert example["frame_mask"].all()


def test_words_keep_their_times_through_a_crop(config):
  words = [{"word": w, "start": t} for w, t in [("one", 0.2), ("two", 1.5)]]
  record = clip_record(0, seconds=2.0, transcript="one two", words=words)
  spread = clip_record(0, seconds=2.0, transcript="one two three four")
  tokenizer = config.load_tokenizer()
  settings = dict(window=config.window, tokenizer=tokenizer)
  example = decode_record(record, **settings)
  times = example["transcript_times"][example["transcript_mask"]]
  assert times.min() == np.float32(0.2) and times.max() < 1.0
  assert example["transcript_timed"]
  partly = [{"word": "one", "start": 0.2}, {"word": "two"}]
  for unknown in (spread, record | {"words": partly}, clip_record(0)):
    assert not decode_record(unknown, **settings)["transcript_timed"]
  times = decode_record(spread, **settings)["transcript_times"]
  assert {0.25, 0.75} <= set(times.tolist())
  for seed in range(4):
    rng = np.random.default_rng(seed)
    crop = decode_record(record, rng=rng, crop="random", **settings)
    start = crop["audio"][0, 0] * 64
    for time in crop["transcript_times"][crop["transcript_mask"]]:
      # Half a second from the start of a word, whose pieces share it.
      since = min(t for t in time + start - np.array([0.2, 1.5]) if t > -2e-3)
      assert since < 0.5


def test_captions(config, path):
  record = open_source(path, "train")[0]
  tokenizer = config.load_tokenizer()
  sound = tokenizer.encode("sound of 0", 16)[0].tolist()
  picture = tokenizer.encode("clip number 0", 16)[0].tolist()
  assert make_decoder(config)(record)["prompt"].tolist() == sound
  seen = dataclasses.replace(config, caption_fields=("caption",))
  assert make_decoder(seen)(record)["prompt"].tolist() == picture
  nothing = record | {"caption": "", "audio_caption": ""}
  assert not make_decoder(config)(nothing)["prompt_mask"].any()
  drawn = [
    b["prompt"][i].tolist()
    for b in read(dataclasses.replace(config, crop="start"), 25)
    for i in np.flatnonzero(b["example"] == 0)
  ]
  assert sound in drawn and picture in drawn


def test_gain(config):
  loud = dataclasses.replace(config, gain_db=6.0, batch_size=8)
  quiet = dataclasses.replace(config, batch_size=8)
  (changed,), (plain,) = read(loud, 1), read(quiet, 1)
  where = np.abs(plain["audio"]) > 0.05
  gain = 20 * np.log10(changed["audio"][where] / plain["audio"][where])
  assert np.abs(gain).max() <= 6.01 and len(np.unique(gain.round(3))) > 3


def test_the_cache_stops_growing_when_it_is_full(config, path):
  record = open_source(path, "train")[0]
  cache = MediaCache(0.2)
  settings = dict(window=config.window, tokenizer=config.load_tokenizer())
  for index in range(10):
    decode_record(record, index=index, cache=cache, **settings)
  kept = [i for i in range(10) if cache.get(i) is not None]
  assert kept == list(range(len(kept))) and 0 < len(kept) < 10


def test_data_sets_are_read_one_after_the_other(config, path, tmp_path):
  other = write(tmp_path / "other", [clip_record(i) for i in range(3)])
  both = dataclasses.replace(config, paths=(path, other), shuffle=False)
  with make_loader(dataclasses.replace(both, batch_size=13)) as loader:
    batch = next(loader)
    assert loader.num_examples == 13
  assert batch["example"].tolist() == list(range(13))
  mine = make_decoder(config)(open_source(other)[1])
  np.testing.assert_array_equal(batch["audio"][11], mine["audio"])


def test_a_bad_record_stops_by_name_or_is_masked_and_counted(config, tmp_path):
  records = [clip_record(i) for i in range(8)]
  records[3] = clip_record(3, video=b"not a video")
  bad = write(tmp_path / "bad", records)
  config = dataclasses.replace(
    config, paths=(bad,), shuffle=False, max_bad_fraction=0.0
  )
  with make_loader(config) as loader:
    with pytest.raises(DataError) as error:
      next(loader)
  message = str(error.value)
  assert f"{bad}: record 3 of 'train'" in message and "\n" not in message
  lenient = dataclasses.replace(config, max_bad_fraction=0.2)
  with make_loader(lenient) as loader:
    batch = next(loader)
    assert loader.bad == [f"{bad}: record 3 of 'train'"]
  assert batch["example"].tolist() == [0, 1, 2, 3]
  assert batch["duration"].tolist() == [1, 1, 1, 0]
  for name in ("frame_mask", "prompt_mask", "audio"):
    assert not batch[name][3].any() and batch[name][2].any()
  records[2] = clip_record(2, video=b"not a video")
  worse = write(tmp_path / "worse", records)
  strict = dataclasses.replace(config, paths=(worse,), max_bad_fraction=0.01)
  with make_loader(strict) as loader:
    with pytest.raises(DataError, match="over max_bad_fraction=0.01"):
      next(loader)


def test_unusable_data_sets_say_so_in_one_line(config, path, tmp_path):
  def error(change):
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    change(copy)
    with pytest.raises(DataError) as caught:
      make_loader(dataclasses.replace(config, paths=(str(copy),)))
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)

  def old(copy):
    text = (copy / "manifest.json").read_text()
    wanted = f'"schema_version": {schema.SCHEMA_VERSION}'
    (copy / "manifest.json").write_text(
      text.replace(wanted, '"schema_version": 0')
    )

  def cut(copy):
    shard = sorted(copy.glob("*.array_record*"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])

  assert "no data set at" in error(shutil.rmtree)
  assert "no finished data set" in error(
    lambda copy: (copy / "manifest.json").unlink()
  )
  assert "schema version 0" in error(old)
  assert "cut off" in error(cut)
  assert "No such file" in error(
    lambda copy: sorted(copy.glob("*.array_record*"))[0].unlink()
  )
  assert "no tokenizer" in error(
    lambda copy: (copy / "tokenizer.model").unlink()
  )
  with pytest.raises(DataError, match="no data set at .*nowhere"):
    dataclasses.replace(config, paths=("nowhere",)).load_tokenizer()
  with pytest.raises(DataError, match="has no split 'val'; it has train, all"):
    make_loader(dataclasses.replace(config, split="val"))

  copy = tmp_path / "flipped"
  shutil.copytree(path, copy)
  flip_byte(sorted(copy.glob("*.array_record*"))[0])
  with pytest.raises(DataError, match="sha256"):
    open_source(copy, verify=True)


def test_building_needs_no_jax_and_no_tensorflow():
  script = (
    "import sys, data_pipelines.build, data_pipelines.scenes; "
    "print('jax' in sys.modules, 'tensorflow' in sys.modules)"
  )
  out = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert out.stdout.split() == ["False", "False"]
