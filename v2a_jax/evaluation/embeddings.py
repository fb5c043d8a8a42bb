"""Embeddings of sounds by frozen networks, for set distances and tagging.

A clip is resampled once (soxr, high quality), mixed to mono, and cut into
overlapping windows, so that a few clips still give many embeddings; each keeps
the index of its clip, because intervals resample clips, not windows.

The sound's original sample rate is part of what is measured: a distance between
sounds of 16 kHz and sounds of 48 kHz is mostly the missing treble. So rows and
reference always come at the model's own rate.
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
  """A frozen network that embeds and tags sounds.

  Attributes:
    id: short name, part of the id of every metric that uses it.
    sha256: digest of the weights file.
    sample_rate: rate that `apply` expects, Hz.
    window: length of a window, seconds.
    hop: distance between window starts, seconds.
  """

  id: str
  sha256: str
  sample_rate: int
  window: float
  hop: float

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings [n, d] and class logits [n, c] of [n, samples]."""
    ...


class Mn04:
  """EfficientAT mn04 on 1 s windows, one every 0.5 s."""

  id = "mn04"
  sha256 = weights.WEIGHTS["mn04"].sha256
  sample_rate = mn04.SAMPLE_RATE
  window = 1.0
  hop = 0.5

  def __init__(self, path: str | os.PathLike[str] | None = None):
    """Loads the weights; `path` and errors are those of `weights.find`."""
    self._params = mn04.load(path)
    self._run = jax.jit(mn04.apply)

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # One shape is compiled; the last batch is padded with silence.
    count = len(windows)
    windows = np.pad(windows, ((0, -count % _BATCH), (0, 0)))
    batches = np.split(windows, len(windows) // _BATCH)
    outputs = [self._run(self._params, batch) for batch in batches]
    vectors, logits = (np.concatenate(parts)[:count] for parts in zip(*outputs))
    return vectors, logits


@dataclasses.dataclass(frozen=True)
class Features:
  """Embeddings and class logits of a set of clips.

  Attributes:
    vectors: embeddings of windows, float32 [n, d].
    clips: clip index of each window, int [n]; every clip has one or more.
    logits: class logits, averaged over a clip's windows, float32 [clips, c].
  """

  vectors: np.ndarray
  clips: np.ndarray
  logits: np.ndarray

  def split(self) -> list["Features"]:
    """Returns the features of each clip alone."""
    return [
      Features(vectors, np.zeros(len(vectors), int), logits[None])
      for i, logits in enumerate(self.logits)
      for vectors in [self.vectors[self.clips == i]]
    ]


def cut(
  waveform: np.ndarray, sample_rate: int, *, embedding: Embedding
) -> np.ndarray:
  """Cuts a clip [samples, channels] into windows, float32 [n, window samples].

  What is left after the last whole window is not used, and a clip shorter than
  one window is padded with silence.
  """
  mono = np.asarray(waveform, np.float32).mean(axis=1)
  if sample_rate != embedding.sample_rate:
    mono = soxr.resample(mono, sample_rate, embedding.sample_rate, quality="HQ")
  length, hop = (
    round(seconds * embedding.sample_rate)
    for seconds in (embedding.window, embedding.hop)
  )
  mono = np.pad(mono, (0, max(0, length - len(mono))))
  windows = np.lib.stride_tricks.sliding_window_view(mono, length)
  return windows[::hop].astype(np.float32)


def embed(
  embedding: Embedding, waveforms: Sequence[np.ndarray], *, sample_rate: int
) -> Features:
  """Embeds one clip or more, each float32 [samples, channels]."""
  windows = [cut(w, sample_rate, embedding=embedding) for w in waveforms]
  clips = np.repeat(np.arange(len(windows)), [len(w) for w in windows])
  vectors, logits = embedding.apply(np.concatenate(windows))
  totals = np.zeros((len(windows), logits.shape[1]))
  np.add.at(totals, clips, logits)
  sizes = np.bincount(clips)[:, None]
  return Features(vectors, clips, (totals / sizes).astype(np.float32))


def joined(features: Sequence[Features]) -> Features:
  """Joins the features of single clips, in their order."""
  counts = [len(of.vectors) for of in features]
  merged = {
    name: np.concatenate([getattr(of, name) for of in features])
    for name, array in vars(features[0]).items()
    if array is not None
  }
  return Features(**merged | {"clips": np.repeat(range(len(counts)), counts)})
