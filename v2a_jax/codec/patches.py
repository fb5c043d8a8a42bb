"""Waveform patches as latents: nothing is learned and nothing is lost.

  latent_i = c(x[i hop : (i + 1) hop]),    all channels of `hop` samples
  c(x) = sign(x) log(1 + 255 |x|) / 2      `companding.py`, rescaled

With x in [-1, 1] latents lie within 2.8. Their root mean square is 0.6 over
sixty procedural scenes and 0.9 over sixty recordings of speech, music and
effects, where that of x is 0.04 and 0.09: about unit variance, with quiet
sounds well represented. `decode` restores the waveform to within 1e-6.

A generator of such latents should predict x: a patch has more numbers than a
narrow model has channels, so noise or a velocity cannot pass through it while
sound, which fills few of those dimensions, can (JiT, Li & He,
https://arxiv.org/abs/2511.13720, for patches of pixels). There are no codes.
"""

import dataclasses
import hashlib

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.codec import companding
from v2a_jax.codec.base import padded

PREFIX = "patches:"
_LARGEST = companding.LOG / 2  # c(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchConfig:
  """Sizes of patches, with the attributes of every codec's config.

  Attributes:
    sample_rate: sample rate in Hz.
    hop: samples per patch.
    channels: channels of the waveform.
  """

  sample_rate: int
  hop: int
  channels: int

  @property
  def latent_dim(self) -> int:
    """Channels of the latents."""
    return self.hop * self.channels

  @property
  def latent_rate(self) -> float:
    """Latents per second, in Hz."""
    return self.sample_rate / self.hop

  @property
  def num_codebooks(self) -> int:
    """0: there is no quantizer."""
    return 0


class Patches(nnx.Module):
  """A codec without parameters and without codes."""

  decoder_halo = 0  # samples depend on no latent but their own

  def __init__(self, config: PatchConfig):
    self.config = config

  def encode(self, waveform: jax.Array) -> jax.Array:
    """Cuts a waveform [b, t, channels] to [b, ceil(t / hop), latent_dim].

    The end is padded with zeros. Latent `i` has the time
    (i + 1/2) / latent_rate seconds.
    """
    y = _LARGEST * companding.compress(padded(waveform, self.config.hop))
    return y.reshape(y.shape[0], -1, self.config.latent_dim)

  def decode(self, latents: jax.Array) -> jax.Array:
    """Joins latents [b, t, latent_dim] to a waveform [b, t hop, channels].

    The waveform is clipped to [-1, 1].
    """
    y = latents.reshape(latents.shape[0], -1, self.config.channels)
    return jnp.clip(companding.expand(y / _LARGEST), -1, 1)


def recognises(name: str) -> bool:
  """Returns whether a codec's name is one of patches."""
  return name.startswith(PREFIX)


def read_config(name: str) -> PatchConfig:
  """Parses `patches:RATE:HOP:CHANNELS`.

  Raises:
    SettingError: the name is not of that form.
  """
  numbers = name.removeprefix(PREFIX).split(":")
  if len(numbers) != 3 or not all(
    n.isascii() and n.isdigit() and int(n) for n in numbers
  ):
    raise settings.SettingError(
      f"the form is {PREFIX}RATE:HOP:CHANNELS with three whole numbers above 0,"
      f" such as {PREFIX}16000:512:1"
    )
  rate, hop, channels = map(int, numbers)
  return PatchConfig(sample_rate=rate, hop=hop, channels=channels)


def make(config: PatchConfig) -> Patches:
  """Makes the codec."""
  return Patches(config)


def load(name: str) -> Patches:
  """Makes the codec; there are no weights to read."""
  return Patches(read_config(name))


def calibrated(name: str) -> bool:
  """Returns True: patches are the waveform itself, companded."""
  del name
  return True


def effective_rank(name: str) -> None:
  """Returns None: it was not measured."""
  del name


def digest(name: str) -> str:
  """Computes the sha256 of the name, which says all: there are no weights."""
  return hashlib.sha256(name.encode()).hexdigest()
