"""AV-Align on pictures that move at known times."""

import numpy as np
import pytest

from v2a_jax.evaluation.metrics import av_align


def _moving_square(step_times, fps=25.0, seconds=2.0, size=64):
  """A bright square on texture that jumps a few pixels at given times."""
  rng = np.random.default_rng(0)
  wall = rng.integers(0, 60, (size, size), dtype=np.uint8)
  patch = rng.integers(150, 255, (24, 24), dtype=np.uint8)
  times = np.arange(round(fps * seconds)) / fps
  frames = np.zeros((len(times), size, size, 3), np.uint8)
  for i, time in enumerate(times):
    frame = wall.copy()
    at = 4 + 4 * int(np.sum(np.asarray(step_times) <= time + 1e-6))
    frame[20:44, at : at + 24] = patch
    frames[i] = frame[..., None]
  return frames, times


def test_jumps_are_the_peaks_of_motion():
  jumps = [0.4, 1.0, 1.6]
  lengths = av_align.flow(*_moving_square(jumps))
  assert len(lengths) == 50
  np.testing.assert_allclose(av_align.video_peaks(lengths), jumps, atol=1e-6)


def test_times_are_used_not_frame_numbers():
  """The same jumps filmed unevenly are still where they were."""
  frames, times = _moving_square([0.4, 1.0, 1.6], fps=50.0)
  rng = np.random.default_rng(1)
  kept = np.sort(rng.choice(np.arange(1, 100), 70, replace=False))
  kept = np.concatenate([[0], kept])
  peaks = av_align.video_peaks(av_align.flow(frames[kept], times[kept]))
  for jump in (0.4, 1.0, 1.6):
    assert np.abs(peaks - jump).min() <= 0.081


def test_stillness_has_no_peaks():
  assert not len(av_align.video_peaks(av_align.flow(*_moving_square([]))))
  frames, times = _moving_square([])
  assert not len(av_align.flow(frames[:1], times[:1]))


def test_small_motion_is_below_the_threshold():
  assert not len(av_align.video_peaks(np.array([0, 0.05, 0.09, 0.01])))
  assert len(av_align.video_peaks(np.array([0, 0.05, 0.11, 0.01]))) == 1


def test_large_pictures_are_measured_small():
  frames, times = _moving_square([0.4], seconds=0.8)
  large = frames.repeat(4, axis=1).repeat(4, axis=2)
  small = frames.repeat(2, axis=1).repeat(2, axis=2)
  assert large.shape[1] == 256 and small.shape[1] == 128
  np.testing.assert_allclose(
    av_align.flow(large, times), av_align.flow(small, times), atol=0.05
  )


@pytest.mark.parametrize(
  "sound, motion, score",
  [
    ([1.0, 2.0], [1.0, 2.0], 1.0),
    ([1.0, 2.0], [1.03, 3.0], 1 / 3),
    ([1.0, 1.01], [1.0], 1 / 2),
    ([1.0], [1.041], 0.0),
    ([1.0], [], 0.0),
    ([], [1.0], 0.0),
  ],
)
def test_score_is_intersection_over_union(sound, motion, score):
  assert av_align.score(sound, motion) == pytest.approx(score)


def test_no_peaks_no_score():
  assert np.isnan(av_align.score([], []))


def test_sound_peaks_are_librosas():
  click = np.zeros(32000, np.float32)
  click[[8000, 20000]] = 0.9
  found = av_align.audio_peaks(click[:, None], 16000)
  np.testing.assert_allclose(found, [0.5, 1.25], atol=0.05)
  assert not len(av_align.audio_peaks(np.zeros((32000, 1)), 16000))
