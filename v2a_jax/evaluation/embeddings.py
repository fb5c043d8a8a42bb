"""Sound as vectors: the ears that set distances and tagging listen with.

A clip is resampled once (soxr, high quality), mixed to mono, and cut into
overlapping windows, so that a few clips still give many vectors; each keeps the
number of its clip, because intervals draw clips again, not windows.

The rate that the sound had before is part of what is measured: a distance
between sounds of 16 kHz and sounds of 48 kHz is mostly the missing treble. So
rows and reference always come at the model's own rate.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Protocol

import jax
import numpy as np
import soxr

from v2a_jax.pretrained import mn04
from v2a_jax.weights import registry as weights

_BATCH = 32


class Embedding(Protocol):
  """A frozen network that listens.

  Attributes:
    id: short name, part of every metric's name that uses it.
    sha256: of the weights.
    sample_rate: Hz that `apply` expects.
    window: seconds of a window.
    hop: seconds between windows.
    dim: of a vector.
  """

  id: str
  sha256: str
  sample_rate: int
  window: float
  hop: float
  dim: int

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, samples] -> vectors [n, dim] and class logits [n, c]."""
    ...


class Mn04:
  """EfficientAT mn04 on 1 s windows, one every 0.5 s."""

  id = "mn04"
  sha256 = weights.WEIGHTS["mn04"].sha256
  sample_rate = mn04.SAMPLE_RATE
  window = 1.0
  hop = 0.5
  dim = mn04.EMBEDDING_DIM

  def __init__(self, path: str | os.PathLike[str] | None = None):
    """Loads the weights; see `weights.load` for where, and what is raised."""
    self._params = mn04.load(path)
    self._run = jax.jit(mn04.apply)

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # One shape is compiled; the last batch is filled up with silence.
    count = len(windows)
    vectors, logits = [], []
    for start in range(0, count, _BATCH):
      batch = windows[start : start + _BATCH]
      batch = np.pad(batch, ((0, _BATCH - len(batch)), (0, 0)))
      embedded, tagged = self._run(self._params, batch)
      vectors.append(np.asarray(embedded))
      logits.append(np.asarray(tagged))
    return np.concatenate(vectors)[:count], np.concatenate(logits)[:count]


@dataclasses.dataclass(frozen=True)
class Features:
  """A set of clips as vectors.

  Attributes:
    vectors: float32 [n, dim], one a window.
    clips: int [n], the window's clip; all of 0 to clips - 1 occur.
    logits: float32 [clips, c], averaged over the clip's windows.
  """

  vectors: np.ndarray
  clips: np.ndarray
  logits: np.ndarray


def cut(waveform: np.ndarray, sample_rate: int, *, to: Embedding) -> np.ndarray:
  """A clip's windows.

  Args:
    waveform: float32 [samples, channels].
    sample_rate: Hz.
    to: whose windows.

  Returns:
    float32 [n, window samples]; what is left after the last whole window is
    not used, and a clip shorter than one window is filled up with silence.
  """
  mono = np.asarray(waveform, np.float32).mean(axis=1)
  if sample_rate != to.sample_rate:
    mono = soxr.resample(mono, sample_rate, to.sample_rate, quality="HQ")
  length, hop = (round(s * to.sample_rate) for s in (to.window, to.hop))
  mono = np.pad(mono, (0, max(0, length - len(mono))))
  windows = np.lib.stride_tricks.sliding_window_view(mono, length)
  return windows[::hop].astype(np.float32)


def embed(
  embedding: Embedding, waveforms: Sequence[np.ndarray], *, sample_rate: int
) -> Features:
  """Embeds clips.

  Args:
    embedding: whose vectors.
    waveforms: float32 [samples, channels] each, one or more.
    sample_rate: Hz of all.
  """
  windows = [cut(w, sample_rate, to=embedding) for w in waveforms]
  clips = np.repeat(np.arange(len(windows)), [len(w) for w in windows])
  vectors, logits = embedding.apply(np.concatenate(windows))
  totals = np.zeros((len(windows), logits.shape[1]))
  np.add.at(totals, clips, logits)
  sizes = np.bincount(clips)[:, None]
  return Features(vectors, clips, (totals / sizes).astype(np.float32))
