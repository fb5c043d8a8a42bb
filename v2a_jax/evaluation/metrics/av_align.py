"""AV-Align: do peaks of motion and of sound coincide?

  score = k / (N_audio + N_video - k)

with k the peaks of sound for which an unused peak of motion lies less than one
frame away. Yariv et al., "Diverse and aligned audio-to-video generation via
text-to-video model adaptation", https://arxiv.org/abs/2309.16429, sec. 5.1, as
in the authors' code, https://github.com/guyyariv/TempoTokens: peaks of sound are
librosa's onsets at 22.05 kHz with its defaults, peaks of motion are strict local
maxima of at least 0.1 pixel of the mean length of Farneback's optical flow.

Fixed here, because the score depends on it: frames are taken at 25 a second (the
one shown at each instant), since the tolerance is one frame and chance alone
gives .24 at 10 and .13 at 30 frames a second; pictures are at most 128 pixels on
the short side. A clip without peaks of either kind has no score (NaN) and is
counted; the original divides by zero. The score also moves with camera motion and
is blind to sound off screen: read it against the shuffled row.
"""

import cv2
import librosa
import numpy as np
import soxr

FPS = 25.0
SHORT_SIDE = 128
_SAMPLE_RATE = 22_050
_LEAST_FLOW = 0.1  # pixels a frame


def _grey(frames: np.ndarray) -> list[np.ndarray]:
  height, width = frames.shape[1:3]
  scale = min(1.0, SHORT_SIDE / min(height, width))
  size = (round(width * scale), round(height * scale))
  grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
  if scale < 1.0:
    grey = [cv2.resize(g, size, interpolation=cv2.INTER_AREA) for g in grey]
  return grey


def flow(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Mean length of the optical flow, pixels a frame, at 25 Hz.

  Args:
    frames: uint8 [n, h, w, 3].
    times: [n], seconds at which each is shown, ascending.

  Returns:
    float64 [m]; value i belongs to i / 25 s. Value 0 repeats value 1, which
    is the flow from the first frame to the second.
  """
  if len(frames) < 2:
    return np.zeros(0)
  instants = np.arange(int(times[-1] * FPS + 1e-6) + 1) / FPS
  shown = np.searchsorted(times, instants + 1e-6, side="right") - 1
  grey = _grey(frames)
  lengths = np.zeros(len(instants))
  for i, (before, now) in enumerate(zip(shown, shown[1:]), start=1):
    if max(before, 0) != now:
      lengths[i] = _mean_flow(grey[max(before, 0)], grey[now])
  lengths[0] = lengths[1] if len(lengths) > 1 else 0.0
  return lengths


def _mean_flow(before: np.ndarray, now: np.ndarray) -> float:
  field = cv2.calcOpticalFlowFarneback(
    *(before, now, None),
    pyr_scale=0.5,
    levels=3,
    winsize=15,
    iterations=3,
    poly_n=5,
    poly_sigma=1.2,
    flags=0,
  )
  return float(np.linalg.norm(field, axis=-1).mean())


def video_peaks(lengths: np.ndarray) -> np.ndarray:
  """Times of the flow's strict local maxima, seconds."""
  if len(lengths) < 3:
    return np.zeros(0)
  middle = lengths[1:-1]
  peak = (middle > lengths[:-2]) & (middle > lengths[2:])
  return (np.flatnonzero(peak & (middle >= _LEAST_FLOW)) + 1) / FPS


def audio_peaks(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
  """Times of librosa's onsets with its defaults, seconds.

  Args:
    waveform: float32 [samples] or [samples, channels].
    sample_rate: Hz.
  """
  mono = waveform if waveform.ndim == 1 else waveform.mean(axis=1)
  mono = soxr.resample(mono, sample_rate, _SAMPLE_RATE, quality="HQ")
  if len(mono) < 2048 or not np.any(mono):
    return np.zeros(0)
  return librosa.onset.onset_detect(y=mono, sr=_SAMPLE_RATE, units="time")


def score(sound: np.ndarray, motion: np.ndarray) -> float:
  """AV-Align of one clip from its peak times; NaN if it has none at all."""
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
