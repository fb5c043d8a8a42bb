"""librosa's onset detection, one process at a time."""

import subprocess
import sys

import numpy as np
import pytest

from v2a_jax.evaluation import onset_detector


def test_a_second_process_waits_before_it_loads_librosa():
  command = [sys.executable, "-c", f"import {onset_detector.__name__}"]
  with onset_detector.one_process():
    with pytest.raises(subprocess.TimeoutExpired):
      subprocess.run(command, timeout=8)
  subprocess.run(command, timeout=120, check=True)


def test_peaks_are_found_where_they_were_planted():
  strength = np.zeros(200, np.float32)
  strength[[20, 90, 150]] = 1
  around = dict(pre_max=3, post_max=4, pre_avg=10, post_avg=11)
  peaks = onset_detector.peak_pick(strength, delta=0.5, wait=5, **around)
  np.testing.assert_array_equal(peaks, [20, 90, 150])


def test_onsets_are_found_where_clicks_are():
  rng = np.random.default_rng(0)
  y = 1e-4 * rng.normal(size=32_000).astype(np.float32)
  for start in (8_000, 20_000):
    y[start : start + 800] += np.exp(-np.arange(800) / 100)
  onsets = onset_detector.onset_detect(
    y=y, sr=16_000, hop_length=160, units="time"
  )
  for time in (0.5, 1.25):
    assert np.abs(onsets - time).min() < 0.03
