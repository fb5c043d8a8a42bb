"""AV-Align: do peaks of motion and of sound coincide?

  score = k / (N_audio + N_video - k)

with k the peaks of sound for which an unused peak of motion lies less than one
frame away. Yariv et al., "Diverse and aligned audio-to-video generation via
text-to-video model adaptation", https://arxiv.org/abs/2309.16429, sec. 5.1, as
in the authors' code, https://github.com/guyyariv/TempoTokens: peaks of sound
are librosa's onsets at 22.05 kHz with its defaults, peaks of motion are those
of the optical flow (motion.py).

The frame rate is fixed to 25 Hz, because the score depends on it: the tolerance
is one frame, and chance alone gives .24 at 10 and .13 at 30 frames per second.
A clip without peaks of either kind has no score (NaN) and is counted; the
original divides by zero. The score also moves with camera motion and ignores
sound off screen. On 25 real clips in which sound and picture belong together,
true sounds had .16, sounds that were 320 ms late .13, white noise .21 and a
metronome .29: more onsets are rewarded, wherever they are. So the number is
shown, to be compared with published ones, and nothing is concluded from it.
"""

import numpy as np
import soxr

from v2a_jax.evaluation import onset_detector
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.motion import FPS

_SAMPLE_RATE = 22_050


class AVAlign(base.ClipMetric):
  """Intersection over union of the peaks of motion and of sound."""

  id = "av_align"
  label = "AV-Align"
  direction = "higher"
  role = "shown"
  about = (
    "Overlap of the peaks of motion (optical flow at 25 frames a second) and"
    " the onsets of sound, within one frame: intersection over union. For"
    " comparison with published numbers only: white noise and a metronome can"
    " have more than the true sound."
  )
  needs_video = needs_sight = True
  bounds = (0.0, 1.0)

  def get_state(self, sample: base.Sample) -> float:
    sound = audio_peaks(sample.waveform, sample.sample_rate)
    return score(sound, sample.clip.motion)


def audio_peaks(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Returns librosa's onsets of [samples] or [samples, channels], seconds."""
  mono = waveform if waveform.ndim == 1 else waveform.mean(axis=1)
  mono = soxr.resample(mono, sample_rate, _SAMPLE_RATE, quality="HQ")
  if len(mono) < 2048 or not np.any(mono):
    return np.zeros(0)
  return onset_detector.onset_detect(y=mono, sr=_SAMPLE_RATE, units="time")


def score(sound: np.ndarray, motion: np.ndarray) -> float:
  """Scores a clip by its peak times in seconds, in [0, 1]; NaN without any."""
  if not len(sound) and not len(motion):
    return float("nan")
  unused = list(motion)
  matched = 0
  for time in sound:
    # Times are whole frames or hops: the slack is for their rounding only.
    near = [t for t in unused if abs(t - time) < 1.0 / FPS - 1e-9]
    if near:
      unused.remove(near[0])
      matched += 1
  return matched / (len(sound) + len(motion) - matched)
