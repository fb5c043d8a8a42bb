"""MMAudio's published codecs: log-mel latents and a BigVGAN vocoder.

  encode:  waveform -> log-mel -> N(mean, std) over z -> mean, standardised
  decode:  latents -> z -> log-mel -> vocoder -> waveform

Names in `config.codec`:

  mmaudio:16k, mmaudio:44k  latents are z itself, whose scale is near 1
  mmaudio:NETWORK           the codec of a published generator, small_16k or
                            another of `MMAUDIO_NETWORKS`: latents are
                            (z - latent_mean) / latent_std, by the numbers in
                            the generator's checkpoint

A generator is trained on draws of z, `distribution`, not on their means. There
are no codes. For clips of up to the published 8 seconds all equals the
original; see `mel_vae.py` for longer ones.

Weights are found by `weights.registry`: `v2a weights fetch mmaudio:16k`.
Products run in the backend's default precision; where that is less than float32
(GPU, TPU), `jax_default_matmul_precision=highest` gives the original's numbers.
"""

import dataclasses
import hashlib
import math

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.basics.text import one_of
from v2a_jax.codec import mel_vae, mmaudio_files
from v2a_jax.codec.base import Buffer, Calibrated, Stage, padded
from v2a_jax.codec.bigvgan import BigVGANConfig
from v2a_jax.codec.mel_vae import MelVaeConfig
from v2a_jax.weights import registry
from v2a_jax.weights.catalog import MMAUDIO_NETWORKS, SETS

PREFIX = "mmaudio:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMAudioConfig:
  """Sizes of a codec, with the attributes of every codec's config.

  Attributes:
    vae: sizes of the autoencoder.
    vocoder: sizes of the vocoder.
  """

  vae: MelVaeConfig
  vocoder: BigVGANConfig

  def __post_init__(self):
    made = (self.vocoder.mels, math.prod(self.vocoder.strides))
    if made != (self.vae.mels, self.vae.hop):
      raise settings.SettingError(
        f"vocoder: its mels and hop are {made}, and those of the spectra"
        f" {(self.vae.mels, self.vae.hop)}"
      )

  @property
  def sample_rate(self) -> int:
    """Sample rate in Hz."""
    return self.vae.sample_rate

  @property
  def channels(self) -> int:
    """Channels of the waveform; all published models are mono."""
    return 1

  @property
  def hop(self) -> int:
    """Samples per latent, which are two steps of the spectrum."""
    return 2 * self.vae.hop

  @property
  def latent_rate(self) -> float:
    """Latents per second, in Hz."""
    return self.sample_rate / self.hop

  @property
  def latent_dim(self) -> int:
    """Channels of the latents."""
    return self.vae.latent_dim

  @property
  def num_codebooks(self) -> int:
    """0: there is no quantizer."""
    return 0


CONFIGS = {
  "16k": MMAudioConfig(
    vae=MelVaeConfig(
      sample_rate=16_000,
      fft=1024,
      hop=256,
      mels=80,
      log10=True,
      width=384,
      latent_dim=20,
      context=250,  # 8 seconds
    ),
    vocoder=BigVGANConfig(mels=80, strides=(4, 4, 2, 2, 2, 2), tanh=True),
  ),
  "44k": MMAudioConfig(
    vae=MelVaeConfig(
      sample_rate=44_100,
      fft=2048,
      hop=512,
      mels=128,
      log10=False,
      width=512,
      latent_dim=40,
      context=345,  # 8 seconds
    ),
    vocoder=BigVGANConfig(mels=128, strides=(8, 4, 2, 2, 2, 2), tanh=False),
  ),
}


class MMAudio(Calibrated):
  """The codec."""

  def __init__(self, config: MMAudioConfig, *, rngs: nnx.Rngs):
    super().__init__(config)
    self.vae = mel_vae.MelVae(config.vae, rngs=rngs)
    self.vocoder = mmaudio_files.make_vocoder(config.vocoder)

  def distribution(self, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes mean and deviation of the latents, [b, ceil(t / hop), c] each.

    The waveform [b, t, 1] in [-1, 1] is padded with zeros at its end. Latent
    `i` has the time (i + 1/2) / latent_rate seconds.
    """
    sound = padded(waveform, self.config.hop)[..., 0]
    mean, std = self.vae.posterior(mel_vae.log_mel(self.config.vae, sound))
    return self._standardised(mean), std / self.latent_std[...]

  def encode(self, waveform: jax.Array) -> jax.Array:
    """Encodes a waveform [b, t, 1] to the mean of `distribution`."""
    return self.distribution(waveform)[0]

  def decode(self, latents: jax.Array) -> jax.Array:
    """Decodes latents [b, t, c] to a waveform [b, t hop, 1]."""
    return self.to_sound(self.to_mel(latents))

  def to_mel(self, latents: jax.Array) -> jax.Array:
    """Decodes latents [b, t, c] to log-mels [b, 2 t, mels]."""
    return self.vae.decode(self._raw(latents))

  def to_sound(self, mel: jax.Array) -> jax.Array:
    """Decodes log-mels [b, t, mels] to a waveform [b, t hop / 2, 1]."""
    return self.vocoder(mel)

  @property
  def decoder_stages(self) -> tuple[Stage, Stage]:
    """The halves of `decode`, of which the first has a halo of 8 seconds."""
    return (
      Stage("to_mel", self.vae.decoder.halo(0), 2),
      Stage("to_sound", self.vocoder.halo, self.config.vae.hop),
    )

  @property
  def decoder_halo(self) -> int:
    """Latents on either side of one that its samples depend on."""
    return self.vae.decoder.halo(self.vocoder.halo)


def recognises(name: str) -> bool:
  """Returns whether a codec's name is one of MMAudio's."""
  return str(name).startswith(PREFIX)


def read_config(name: str) -> MMAudioConfig:
  """Returns the sizes of a named codec.

  Raises:
    SettingError: there is none of that name.
  """
  return CONFIGS[_rate(name)]


def make(config: MMAudioConfig) -> MMAudio:
  """Makes a codec with initial weights."""
  return MMAudio(config, rngs=nnx.Rngs(0))


def load(name: str) -> MMAudio:
  """Reads a codec's weights.

  Raises:
    SettingError: there is no codec of that name.
    MissingWeightsError: a file is not found; says how to get it.
    WrongWeightsError: a file is damaged, or of another network; tensors that
      are missing, extra or misshapen are all named.
  """
  config = read_config(name)
  codec = nnx.eval_shape(lambda: make(config))
  vae, vocoder, *network = _files(name)
  tensors = registry.load(vae)
  codec.vae = mmaudio_files.read_vae(tensors, config.vae, vae)
  tensors = registry.load(vocoder)
  codec.vocoder = mmaudio_files.read_vocoder(tensors, config.vocoder, vocoder)
  mean, std = jnp.zeros(config.latent_dim), jnp.ones(config.latent_dim)
  for file in network:
    tensors = registry.load(file, only=("latent_mean", "latent_std"))
    mean, std = mmaudio_files.read_statistics(tensors, config.latent_dim, file)
  codec.latent_mean, codec.latent_std = Buffer(mean), Buffer(std)
  return codec


def calibrated(name: str) -> bool:
  """Returns True: statistics are those of a network, or of the VAE as trained."""
  del name
  return True


def effective_rank(name: str) -> None:
  """Returns None: it was not measured."""
  del name


def digest(name: str) -> str:
  """Computes a sha256 of the digests of all files, in hexadecimal."""
  digests = "".join(map(registry.digest, _files(name)))
  return hashlib.sha256(digests.encode()).hexdigest()


def _rate(name: str) -> str:
  """Returns the key of `CONFIGS` that a codec's name means."""
  own = name.removeprefix(PREFIX)
  if own in CONFIGS:
    return own
  if own not in MMAUDIO_NETWORKS:
    known = one_of([*CONFIGS, *MMAUDIO_NETWORKS])
    raise settings.SettingError(f"{own!r} {known}")
  return MMAUDIO_NETWORKS[own][0]


def _files(name: str) -> list[str]:
  """Lists the weights of autoencoder, vocoder, and of the generator if any."""
  own = name.removeprefix(PREFIX)
  network = [f"mmaudio_{own}"] if own in MMAUDIO_NETWORKS else []
  return [*SETS[f"{PREFIX}{_rate(name)}"], *network]
