"""Motion peaks of videos that move at known times."""

import numpy as np

from v2a_jax.evaluation import motion


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
  lengths = motion.flow(*_moving_square(jumps))
  assert len(lengths) == 50
  np.testing.assert_allclose(motion.flow_peaks(lengths), jumps, atol=1e-6)


def test_times_are_used_not_frame_numbers():
  """The same jumps filmed unevenly are still where they were."""
  frames, times = _moving_square([0.4, 1.0, 1.6], fps=50.0)
  rng = np.random.default_rng(1)
  kept = np.sort(rng.choice(np.arange(1, 100), 70, replace=False))
  kept = np.concatenate([[0], kept])
  peaks = motion.flow_peaks(motion.flow(frames[kept], times[kept]))
  for jump in (0.4, 1.0, 1.6):
    assert np.abs(peaks - jump).min() <= 0.081


def test_stillness_has_no_peaks():
  assert not len(motion.flow_peaks(motion.flow(*_moving_square([]))))
  frames, times = _moving_square([])
  assert not len(motion.flow(frames[:1], times[:1]))


def test_small_motion_is_below_the_threshold():
  assert not len(motion.flow_peaks(np.array([0, 0.05, 0.09, 0.01])))
  assert len(motion.flow_peaks(np.array([0, 0.05, 0.11, 0.01]))) == 1


def test_large_frames_are_measured_small():
  frames, times = _moving_square([0.4], seconds=0.8)
  large = frames.repeat(4, axis=1).repeat(4, axis=2)
  small = frames.repeat(2, axis=1).repeat(2, axis=2)
  assert large.shape[1] == 256 and small.shape[1] == 128
  np.testing.assert_allclose(
    motion.flow(large, times), motion.flow(small, times), atol=0.05
  )
