"""Which clips are used, and what anchors sound like."""

from flashes import Follower
import numpy as np
import pytest

from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import rows
from v2a_jax.evaluation.metrics.level_error import level_dbfs


def test_the_choice_depends_on_the_seed_alone(data):
  pick = lambda seed: clips_lib.choose(data, "test", num=3, seed=seed)[1]
  assert pick(0) == pick(0) and len(set(pick(0))) == 3
  assert any(pick(seed) != pick(0) for seed in range(1, 6))


def test_every_video_moves_on_by_one(data):
  config = Follower(data).loader_config
  records, indices = clips_lib.choose(data, "test", num=5, seed=0)
  clips, _ = clips_lib.load(records, indices, config)
  shuffled = rows.with_other_videos(clips, seed=1)
  frames = lambda clip: clip.example["frames"].tobytes()
  assert sorted(map(frames, shuffled)) == sorted(map(frames, clips))
  for clip, other in zip(clips, shuffled):
    assert frames(clip) != frames(other)
    for key in ("prompt", "transcript", "audio"):
      np.testing.assert_array_equal(clip.example[key], other.example[key])


def test_pink_noise_has_the_level_and_falls_by_3_db_an_octave():
  true = 0.05 * np.random.default_rng(0).standard_normal((64000, 1))
  noise = rows.pink_noise(true, 16000, seed=(0, 1))
  assert level_dbfs(noise) == pytest.approx(level_dbfs(true), abs=0.1)
  power = np.square(np.abs(np.fft.rfft(noise[:, 0])))
  hz = np.fft.rfftfreq(64000, 1 / 16000)
  octaves = [
    power[(hz >= f) & (hz < 2 * f)].mean() for f in (250, 500, 1000, 2000)
  ]
  drops = 10 * np.log10(np.array(octaves[:-1]) / octaves[1:])
  np.testing.assert_allclose(drops, 3.0, atol=0.7)
