"""Synchformer's features of pictures and sounds, and how late a sound is.

Weights: `v2a weights fetch synchformer`, looked for in $V2A_WEIGHTS and the
cache. A clip of 8 seconds is 24 segments; its picture costs about 5 TFLOP.
"""

import functools
import os

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.pretrained import offset, synchformer
from v2a_jax.weights import registry, tables

WEIGHTS = "synchformer"
FPS, PIXELS = synchformer.FPS, synchformer.SynchformerConfig().image_size
# Segments that are compared: 4.8 seconds.
SEGMENTS = offset.OffsetConfig().segments
_BATCH = 8


class Synchformer:
  """Synchformer on 0.64 s segments, one every 0.32 s."""

  id = weights = WEIGHTS
  label, classes, repeats = "Synchformer", 0, False
  about = __doc__.splitlines()[0].rstrip(".")
  sample_rate = offset.SAMPLE_RATE
  window = offset.SEGMENT / sample_rate
  hop = offset.STEP / sample_rate
  dim = offset.OffsetConfig().audio_moments * (
    offset.OffsetConfig().visual.hidden_size
  )

  def __init__(self, path: str | os.PathLike[str] | None = None):
    """Loads the weights; `path` is that of other networks, and not used.

    Raises:
      MissingWeightsError, WrongWeightsError: see `weights.registry.load`.
    """
    del path
    self._judge, self.sha256 = _load()

  def apply(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns features [n, dim] of segments [n, samples], and no logits."""
    short = -len(windows) % _BATCH
    padded = np.pad(windows, ((0, short), (0, 0)))
    parts = np.split(padded, len(padded) // _BATCH)
    found = np.concatenate([self._judge.hear(part) for part in parts])
    found = found[: len(windows)].reshape(len(windows), -1)
    return found, np.zeros((len(windows), 0), np.float32)


class Judge:
  """The network, compiled part by part."""

  def __init__(self, network: offset.OffsetNetwork):
    graphdef, state = nnx.split(network)
    bound = lambda run: functools.partial(
      jax.jit(lambda state, *args: run(nnx.merge(graphdef, state), *args)),
      state,
    )
    self.hear = bound(lambda network, sound: network.hear(sound))
    self._compare = bound(lambda network, *both: network.compare(*both))
    self._watch = bound(
      lambda network, frames: network.visual.encode_clip(
        network.visual.preprocess(frames[None])[0]
      )
    )

  def watch(self, frames: np.ndarray) -> np.ndarray:
    """Encodes frames uint8 [n h w 3] at 25 a second to [segments moments d]."""
    features = np.asarray(self._watch(frames))
    moments = synchformer.SynchformerConfig().moments
    return features.reshape(-1, moments, features.shape[-1])

  def offset(self, picture: np.ndarray, sound: np.ndarray) -> float:
    """Returns the mean size of the likeliest offset in seconds.

    Of the first and of the last 4.8 seconds of a clip, as in av-benchmark.

    Args:
      picture: [segments moments d], of `watch`.
      sound: [segments moments d], of `hear`; both have `SEGMENTS` or more.
    """
    ends = (slice(SEGMENTS), slice(-SEGMENTS, None))
    count = min(len(picture), len(sound))
    pair = [
      jnp.stack([features[:count][end] for end in ends])
      for features in (picture, sound)
    ]
    likeliest = np.asarray(self._compare(*pair)).argmax(axis=-1)
    return float(np.abs(offset.OFFSETS[likeliest]).mean())


def judge() -> Judge:
  """Returns the published network; loads it at the first call."""
  return _load()[0]


@functools.cache
def _load() -> tuple[Judge, str]:
  network = offset.NETWORK.assemble(
    tables.in_memory(registry.load(WEIGHTS)),
    offset.OffsetConfig(),
    source=WEIGHTS,
  )
  return Judge(network), registry.digest(WEIGHTS)
