"""AV-Align of known peaks."""

import numpy as np
import pytest

from v2a_jax.evaluation.metrics import av_align


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


def test_sound_peaks_are_librosa_onsets():
  click = np.zeros(32000, np.float32)
  click[[8000, 20000]] = 0.9
  peaks = av_align.audio_peaks(click[:, None], 16000)
  np.testing.assert_allclose(peaks, [0.5, 1.25], atol=0.05)
  assert not len(av_align.audio_peaks(np.zeros((32000, 1)), 16000))
