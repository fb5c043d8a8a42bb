"""What a generator learns to produce: latents or codes of a frozen codec.

A target is computed inside the training step from the batch's audio, without
gradient, or was read from a cache (`config.data.cached_target`). Step `i` of a
representation with rate `r` Hz has the time (i + 1/2) / r seconds.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from v2a_jax.basics.settings import SettingError
from v2a_jax.batch import Batch
from v2a_jax.codec.frozen import FrozenCodec


@dataclasses.dataclass(frozen=True)
class Latents:
  """Latents float32 [b t c].

  Attributes:
    codec: the frozen codec; its weights may be shapes.
  """

  codec: FrozenCodec

  @classmethod
  def for_model(cls, codec: FrozenCodec, model: Any) -> "Latents":
    """Makes the target of a generator with the sizes `model`.

    Raises:
      SettingError: the codec's latents are not standardised.
    """
    del model
    if not codec.calibrated:
      raise SettingError(
        "the latents of config.codec have no certain scale: measure them with"
        " v2a weights calibrate FOLDER --set DIR, or generate codes"
        " (config.data.target)"
      )
    return cls(codec)

  def frozen(self, state: Any) -> Any:
    """Returns the first argument of a call, given the codec's state."""
    return state

  def encode(self, state: Any, waveform: jax.Array) -> jax.Array:
    """Encodes a waveform [b samples channels], given the codec's state."""
    return self.codec.merge(state).encode(waveform)

  def distribution(
    self, state: Any, waveform: jax.Array
  ) -> tuple[jax.Array, jax.Array | None]:
    """Returns what `encode` does, and its deviation if the codec has one."""
    codec = self.codec.merge(state)
    if hasattr(codec, "distribution"):
      return codec.distribution(waveform)
    return codec.encode(waveform), None

  def latents(self, state: Any, target: jax.Array) -> jax.Array:
    """Returns the latents [b t c] that the codec's decoder takes."""
    del state
    return target

  def __call__(self, state: Any, batch: Batch) -> Batch:
    """Fills in `target`, its times and its mask, given the codec's state."""
    target, std = batch.target, batch.target_std
    if target is None:
      target, std = self.distribution(state, batch.audio)
    rate = self.codec.config.latent_rate
    steps = jnp.arange(target.shape[1], dtype=jnp.float32)
    return batch.replace(
      target=jax.lax.stop_gradient(target),
      target_std=jax.lax.stop_gradient(std),
      target_times=(steps + 0.5) / rate,
      # The step in which the clip ends still holds sound.
      target_mask=steps / rate < batch.duration[:, None],
    )


@dataclasses.dataclass(frozen=True)
class Codes(Latents):
  """Codes int32 [b t q].

  Attributes:
    num_codebooks: q, the first codebooks; None for all.
  """

  num_codebooks: int | None = None

  @classmethod
  def for_model(cls, codec: FrozenCodec, model: Any) -> "Codes":
    """Makes the target of a generator; see `Latents.for_model`."""
    return cls(codec, model.num_codebooks)

  def encode(self, state: Any, waveform: jax.Array) -> jax.Array:
    """Encodes and quantizes a waveform; see `Latents.encode`."""
    codec = self.codec.merge(state)
    return codec.quantize(codec.encode(waveform), self.num_codebooks)

  def distribution(self, state, waveform):
    """Returns what `encode` does, and None: codes are certain."""
    return self.encode(state, waveform), None

  def latents(self, state: Any, target: jax.Array) -> jax.Array:
    """Converts codes to latents; see `Latents.latents`."""
    return self.codec.merge(state).dequantize(target)


TARGETS = {"latents": Latents, "codes": Codes}
