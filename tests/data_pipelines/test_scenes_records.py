"""Scenes as records: what is stored is the scene."""

import collections
import hashlib

import numpy as np
import pytest

from data_pipelines import schema
from data_pipelines.scenes import iter_records, make_scene, split_of, to_record
from v2a_jax import media

SMALL = dict(size=16, fps=5)


def _without(record, *names):
  # The bytes of the encoder are not the scene's: they may differ between runs.
  names = {*names, "video", "sha256"}
  return {key: value for key, value in record.items() if key not in names}


def test_a_record_holds_the_scene(tmp_path):
  scene = make_scene(11, action="talk")
  record = to_record(scene, "a", split="val")
  schema.validate(schema.encode(record))
  path = tmp_path / "a.mp4"
  path.write_bytes(record["video"])
  video = media.read_video(path)
  np.testing.assert_allclose(video.times, scene.frame_times, atol=1e-3)
  error = np.abs(video.frames.astype(float) - scene.frames).mean()
  assert error < 6
  sound, rate = media.decode_flac(record["audio"])
  assert rate == 16000 and record["duration"] == 4.0
  np.testing.assert_allclose(sound, scene.audio, atol=1e-4)
  assert record["split"] == "val" and record["licence"] == "CC0-1.0"
  assert record["source"] == "v2a_jax scenes seed=11"
  assert record["label"] == scene.label and record["tags"] == scene.tags
  assert record["caption"] == scene.caption
  assert record["audio_caption"] == scene.audio_caption


def test_words_and_events_are_stored_with_their_times():
  for action in ("talk", "drum"):
    scene = make_scene(11, action=action, **SMALL)
    record = to_record(scene, "a")
    assert [w["word"] for w in record["words"]] == record["transcript"].split()
    for stored, (word, start, end) in zip(
      record["words"], scene.words, strict=True
    ):
      assert stored["word"] == word
      np.testing.assert_allclose(
        [stored["start"], stored["end"]], [start, end], atol=1e-4
      )
    for stored, event in zip(record["events"], scene.events, strict=True):
      assert set(stored) == {
        "time",
        "kind",
        "material",
        "on_screen",
        "strength",
      }
      assert abs(stored["time"] - event.time) < 1e-5
      assert abs(stored["strength"] - event.strength) < 1e-3
      assert stored["kind"] == event.kind
      assert stored["on_screen"] == event.on_screen


def test_the_digest_is_that_of_video_and_audio():
  record = to_record(make_scene(2, **SMALL), "a")
  assert record["sha256"] == (
    hashlib.sha256(record["video"] + record["audio"]).hexdigest()
  )


def test_a_record_survives_its_storage():
  record = to_record(make_scene(3, action="talk", **SMALL), "a")
  assert schema.decode(schema.encode(record)) == record


def test_a_range_of_records_is_a_range_of_the_whole():
  whole = [_without(record) for record in iter_records(6, 5, **SMALL)]
  part = [
    _without(record) for record in iter_records(6, 5, start=2, stop=4, **SMALL)
  ]
  assert part == whole[2:4]
  assert len({record["id"] for record in whole}) == 6


def test_a_record_does_not_depend_on_the_size_of_its_set():
  """But for its split, which is a share of the set."""
  (small,) = iter_records(3, 5, start=2, **SMALL)
  (large,) = iter_records(3000, 5, start=2, stop=3, **SMALL)
  assert _without(small, "split") == _without(large, "split")


def test_other_seeds_give_other_sets():
  one, two = (next(iter_records(1, seed, **SMALL)) for seed in (5, 6))
  assert one["id"] != two["id"] and one["audio"] != two["audio"]
  sources = [
    record["source"]
    for seed in range(3)
    for record in iter_records(4, seed, **SMALL)
  ]
  assert len(set(sources)) == 12


def test_records_are_rendered_as_asked():
  (record,) = iter_records(1, 0, seconds=2.5, fps=8, size=24, sample_rate=8000)
  sound, rate = media.decode_flac(record["audio"])
  assert rate == 8000 and len(sound) == 20000 and record["duration"] == 2.5


def test_a_record_is_the_scene_of_its_seed_and_index():
  (record,) = iter_records(4, 2, start=1, stop=2)
  scene = make_scene(2 * 1_000_003 + 1)
  assert record["id"] == "scene-2-000001"
  expected = to_record(scene, record["id"], split=record["split"])
  assert _without(record) == _without(expected)
  first = next(iter_records(1))
  assert first["source"] == "v2a_jax scenes seed=0"


def test_a_number_out_of_range_is_named():
  with pytest.raises(ValueError, match=r"sample_rate=10 is not in \[8000"):
    next(iter_records(1, sample_rate=10))


@pytest.mark.parametrize("num, held", [(20, 1), (200, 32), (2000, 100), (3, 0)])
def test_splits(num, held):
  splits = [split_of(i, num) for i in range(num)]
  counts = collections.Counter(splits)
  assert counts["val"] == counts["test"] == held
  assert counts["train"] == num - 2 * held
  # Train first, then val, then test.
  assert splits == sorted(splits, key=["train", "val", "test"].index)
  for index in (num, -1):
    with pytest.raises(ValueError, match=f"index={index} is not in"):
      split_of(index, num)


def test_the_share_of_the_splits_can_be_set():
  counts = collections.Counter(split_of(i, 8, held_out=0.25) for i in range(8))
  assert counts == {"train": 4, "val": 2, "test": 2}
  records = iter_records(4, 0, held_out=0.25, size=8, fps=1)
  assert [r["split"] for r in records] == ["train", "train", "val", "test"]
