"""Onset F1: do sounds start when they should?

Onsets are detected in every row's sound by the same detector, with settings
fixed here, and matched one to one with the reference times within a tolerance
(`mir_eval.util.match_events`, the matching behind
https://mir-eval.readthedocs.io/latest/api/onset.html):

  P = hits / detected,  R = hits / reference,
  F = 2 hits / (detected + reference)

with hits, detected and reference summed over clips ("micro"), so clips without
any onset need no special rule and a clip counts by its events.

The reference is the clip's known event times; where none are known, the onsets
detected in the true sound. When something sounds off screen cannot be known
from the video: for each such event, one detected onset that matches nothing is
not counted, whenever it is, and a clip in which all events are off screen is
left out.

The detector: power spectra of 1024 samples at 16 kHz every 10 ms, 64 mel bands
in dB, floored at -80 dB; its strength is the mean rise over the bands
(librosa.onset.onset_strength); an onset is a local maximum over ±30 ms that
exceeds the mean of ±100 ms around it by 4 dB, at least 50 ms after the last.
The threshold is in dB and not relative to the clip's loudest onset, so noise
does not turn into onsets. Against true times it reaches, at 50 ms, F = 0.96 in
105 scenes (0.99 without the talking ones) and 0.93 in 12 drumstick recordings.
Its median delay of 10 ms is subtracted.
"""

import dataclasses

import mir_eval
import numpy as np
import soxr

from v2a_jax.evaluation import onset_detector
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.onset_detector import librosa

SAMPLE_RATE = 16_000
_FFT, _HOP, _BANDS = 1024, 160, 64
_FLOOR = 1e-8
_THRESHOLD_DB = 4.0
_NEAR, _AROUND, _WAIT = 3, 10, 5  # in frames of 10 ms
_DELAY_SECONDS = 0.010


@dataclasses.dataclass(frozen=True)
class Counts:
  """Onsets of one clip.

  Attributes:
    hits: detected onsets that match the reference.
    reference: onsets in the reference.
    detected: onsets in the sound, without those for events off screen.
  """

  hits: int
  reference: int
  detected: int


@dataclasses.dataclass(frozen=True)
class _OnsetMetric(base.RatioMetric):
  """A ratio of counts of onsets, matched within some milliseconds."""

  milliseconds: int

  direction = "higher"
  name = ""
  needs_sight = True

  @property
  def id(self) -> str:
    return f"onset_{self.name}_{self.milliseconds}ms"

  @property
  def label(self) -> str:
    name = self.name.replace("f1", "F1")
    return f"Onset {name} at {self.milliseconds} ms"

  def facts(self, clips) -> dict[str, str]:
    detected = sum(clip.events is None for clip in clips)
    if not detected:
      return {}
    return {
      "detected": f"{detected} clips have no known events: their reference is"
      " what the detector finds in the true sound"
    }

  def get_state(self, sample: base.Sample) -> Counts:
    return match(
      reference_onsets(sample),
      sample.cached(_detected),
      tolerance=self.milliseconds / 1000,
      unseen=len(sample.clip.off_screen),
    )


class OnsetF1(_OnsetMetric):
  """Micro-averaged F1 of onset times, matched within some milliseconds."""

  name = "f1"
  judges_timing = True
  numerator = {"hits": 2}
  denominator = {"reference": 1, "detected": 1}

  @property
  def about(self) -> str:
    return (
      "Share of sound onsets that match the clip's true event times within"
      f" {self.milliseconds} ms, as the harmonic mean of precision and recall,"
      " summed over clips. What sounds off screen may sound at any time. The"
      " ground truth row is what the detector itself reaches."
    )


class OnsetPrecision(_OnsetMetric):
  """Share of the detected onsets that belong to an event."""

  name = "precision"
  role = "shown"
  numerator = {"hits": 1}
  denominator = {"detected": 1}
  about = "Share of the detected onsets that match an event; part of F1."


class OnsetRecall(_OnsetMetric):
  """Share of the events that have an onset."""

  name = "recall"
  role = "shown"
  numerator = {"hits": 1}
  denominator = {"reference": 1}
  about = "Share of the events that a detected onset matches; part of F1."


def _detected(sample: base.Sample) -> np.ndarray:
  return _peaks(strength_of(sample))


def reference_onsets(sample: base.Sample) -> np.ndarray:
  """Returns the times in seconds at which a clip's sounds should start.

  They are its known events on screen, or else the onsets of its true sound.
  """
  if sample.clip.events is not None:
    return sample.clip.events
  return (sample.truth or sample).cached(_detected)


def strength(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Computes the strength of onsets of [samples] or [samples, channels].

  Returns:
    float32 [frames], dB, one every 10 ms; none for less than 64 ms of sound.
  """
  mono = waveform if waveform.ndim == 1 else waveform.mean(axis=1)
  if sample_rate != SAMPLE_RATE:
    mono = soxr.resample(mono, sample_rate, SAMPLE_RATE, quality="HQ")
  if len(mono) < _FFT:
    return np.zeros(0)
  power = librosa.feature.melspectrogram(
    y=mono, sr=SAMPLE_RATE, n_fft=_FFT, hop_length=_HOP, n_mels=_BANDS
  )
  return librosa.onset.onset_strength(
    S=librosa.power_to_db(power, ref=1.0, amin=_FLOOR, top_db=None),
    sr=SAMPLE_RATE,
    hop_length=_HOP,
    n_fft=_FFT,
  )


def detect(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Detects onsets of [samples] or [samples, channels], seconds, ascending."""
  return _peaks(strength(waveform, sample_rate))


def strength_of(sample: base.Sample) -> np.ndarray:
  """Computes the strength of a sample's onsets, as `strength`, once."""
  return sample.cached(_strength)


def _strength(sample: base.Sample) -> np.ndarray:
  return strength(sample.waveform, sample.sample_rate)


def _peaks(rises: np.ndarray) -> np.ndarray:
  """Returns the times of peaks of `strength`, seconds."""
  if not len(rises):
    return np.zeros(0)
  frames = onset_detector.peak_pick(
    rises,
    pre_max=_NEAR,
    post_max=_NEAR + 1,
    pre_avg=_AROUND,
    post_avg=_AROUND + 1,
    delta=_THRESHOLD_DB,
    wait=_WAIT,
  )
  return np.maximum(frames * _HOP / SAMPLE_RATE - _DELAY_SECONDS, 0.0)


def match(
  reference: np.ndarray,
  detected: np.ndarray,
  *,
  tolerance: float,
  unseen: int = 0,
) -> Counts:
  """Matches detected onsets with those of the reference, one to one.

  Args:
    reference: times of the events on screen, seconds.
    detected: times of the onsets in the sound, seconds.
    tolerance: how far apart a pair may be, seconds.
    unseen: number of events off screen; so many detected onsets that match
      nothing are not counted.
  """
  hits = 0
  if len(reference) and len(detected):
    times = np.sort(reference), np.sort(detected)
    hits = len(mir_eval.util.match_events(*times, tolerance))
  unmatched = len(detected) - hits
  return Counts(hits, len(reference), hits + max(0, unmatched - unseen))
