"""Scenes as records: what is stored is the scene."""

import collections

import numpy as np
import pytest

from data_pipelines import schema
from data_pipelines.scenes import iter_records, make_scene, split_of, to_record
from v2a_jax import media


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
  assert [w["word"] for w in record["words"]] == record["transcript"].split()
  assert len(record["events"]) == len(scene.events)
  assert record["split"] == "val" and record["licence"] == "CC0-1.0"
  assert record["source"] == "v2a_jax scenes seed=11"


def test_a_range_of_records_is_a_range_of_the_whole():
  options = dict(size=16, fps=5)
  whole = list(iter_records(6, 5, **options))
  part = list(iter_records(6, 5, start=2, stop=4, **options))
  assert part == whole[2:4]
  assert len({record["id"] for record in whole}) == 6
  other = list(iter_records(6, 6, stop=1, **options))
  assert other[0]["sha256"] != whole[0]["sha256"]


@pytest.mark.parametrize("num, held", [(20, 1), (200, 32), (2000, 100), (3, 0)])
def test_splits(num, held):
  counts = collections.Counter(split_of(i, num) for i in range(num))
  assert counts["val"] == counts["test"] == held
  assert counts["train"] == num - 2 * held
  with pytest.raises(ValueError, match=f"index={num} is not in"):
    split_of(num, num)
