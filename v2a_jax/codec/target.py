"""What a generator learns to produce: latents or codes.

A target is computed inside the training step from the batch's audio and the
frozen codec's state, without gradient, and carries its own clock: step `i` of
a representation with rate `r` hertz has the time (i + 1/2) / r seconds.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.batch import Batch
from v2a_jax.codec.autoencoder import CodecConfig


def _fill(batch: Batch, target: jax.Array, rate: float) -> Batch:
  """Sets the target with its times [t] and mask [b, t]."""
  steps = jnp.arange(target.shape[1], dtype=jnp.float32)
  # A step that the clip's end cuts through still holds sound.
  exists = steps / rate < batch.duration[:, None]
  return batch.replace(
    target=jax.lax.stop_gradient(target),
    target_times=(steps + 0.5) / rate,
    target_mask=exists,
  )


@dataclasses.dataclass(frozen=True)
class LatentTarget:
  """Fills `target` with latents float32 [b, t, c].

  Attributes:
    graphdef: of the codec, from `nnx.split`.
    config: of the codec.
  """

  graphdef: Any
  config: CodecConfig

  def __call__(self, frozen: Any, batch: Batch) -> Batch:
    """Encodes; `frozen` is the codec's state."""
    codec = nnx.merge(self.graphdef, frozen)
    return _fill(batch, codec.encode(batch.audio), self.config.latent_rate)


@dataclasses.dataclass(frozen=True)
class CodeTarget:
  """Fills `target` with codes int32 [b, t, q]; see `LatentTarget`.

  Attributes:
    num_codebooks: q, the first ones; None for all.
  """

  graphdef: Any
  config: CodecConfig
  num_codebooks: int | None = None

  def __call__(self, frozen: Any, batch: Batch) -> Batch:
    """Encodes and quantizes; `frozen` is the codec's state."""
    codec = nnx.merge(self.graphdef, frozen)
    codes = codec.quantize(codec.encode(batch.audio), self.num_codebooks)
    return _fill(batch, codes, self.config.latent_rate)
