"""Adversarial training of the codec, for latents and codes at once.

In each step about half of the examples are decoded from a sample of the
posterior, z = mean + exp(logvar / 2) noise, the others from quantized latents,
so that one decoder learns both. With x' the reconstruction,

  L_codec = w_c convergence + w_l log_magnitude + w_m mel + w_x |x - x'|
            + w_kl KL + w_q codebook + w_b commitment
            + w_a hinge(D(x')) + w_f |D_l(x) - D_l(x')|
  L_discriminator = hinge(1 - D(x)) + hinge(1 + D(x'))

Both are one loss: `stop_gradient` on the discriminator's weights in the first
line and on x' in the second, so that the gradient of parameters under `codec`
is that of L_codec and of those under `discriminator` that of L_discriminator
(two optimizer partitions). Sources: VAE, arXiv:1312.6114; SoundStream,
arXiv:2107.03312; DAC, arXiv:2306.06546. If w_a and w_f are 0, the discriminator
is not evaluated.
"""

import dataclasses
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.batch import Batch
from v2a_jax.codec import losses
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.discriminators import Discriminator, DiscriminatorConfig
from v2a_jax.parallel import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecGANConfig(CodecConfig):
  """Sizes of a codec and its discriminator; see also `CodecConfig`.

  Attributes:
    discriminator: sizes of the discriminator; without periods and without
      fft_sizes there is none.
  """

  family: ClassVar[str] = "codec"
  target: ClassVar[str] = ""

  discriminator: DiscriminatorConfig = DiscriminatorConfig()

  def make(self, *, rngs: nnx.Rngs) -> "CodecGAN":
    """Makes the codec and its discriminator."""
    codec = Codec(self, rngs=rngs)
    sizes = self.discriminator
    if not (sizes.periods or sizes.fft_sizes):
      return CodecGAN(codec)
    return CodecGAN(codec, Discriminator(sizes, rngs=rngs))


class CodecGAN(nnx.Module):
  """A codec and its discriminator, which may be None."""

  def __init__(self, codec: Codec, discriminator: Discriminator | None = None):
    self.codec = codec
    self.discriminator = discriminator


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecObjective:
  """Trains a `CodecGAN`; see the module's docstring.

  Attributes:
    crop: samples of the random crop of each example; 0 for no crop.
    gain_db: range of the random gain in dB, by which quiet sounds are learned
      too.
    quantized_rate: share of the examples that are decoded from codes.
    fft_sizes: window lengths of the spectral distances in samples.
    convergence_weight: w_c.
    log_magnitude_weight: w_l.
    mel_weight: w_m.
    waveform_weight: w_x, of the error relative to the root mean square.
    kl_weight: w_kl, of the mean over latent numbers.
    codebook_weight: w_q, which affects the quantizer alone.
    commitment_weight: w_b, of the latents' squared distance from their codes.
    adversarial_weight: w_a.
    feature_weight: w_f.
  """

  family: ClassVar[str] = "codec"
  needs: ClassVar = ()

  crop: int = 16384
  gain_db: tuple[float, float] = (-18.0, 3.0)
  quantized_rate: float = 0.5
  fft_sizes: tuple[int, ...] = (128, 256, 512, 1024, 2048)
  convergence_weight: float = 1.0
  log_magnitude_weight: float = 1.0
  mel_weight: float = 1.0
  waveform_weight: float = 0.5
  kl_weight: float = 0.02
  codebook_weight: float = 1.0
  commitment_weight: float = 0.1
  adversarial_weight: float = 0.0
  feature_weight: float = 0.0

  def __post_init__(self):
    weights = [f.name for f in dataclasses.fields(self) if "_weight" in f.name]
    settings.check(
      self,
      crop="[0, inf)",
      gain_db="(-inf, inf)",
      quantized_rate="[0, 1]",
      fft_sizes="[16, inf)",
      **dict.fromkeys(weights, "[0, inf)"),
    )
    if len(self.gain_db) != 2 or self.gain_db[0] > self.gain_db[1]:
      raise settings.SettingError(
        f"gain_db={self.gain_db!r} is not (lowest, highest) in decibels"
      )

  def loss(
    self, model: CodecGAN, batch: Batch, *, key: jax.Array, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns loss [b] and metrics of [b] for `batch.audio`.

    Without `train` it takes the first samples, no gain and all codebooks.
    """
    keys = jax.random.split(key, 3)
    true = self._excerpt(batch.audio, key=keys[0], train=train)
    decoded, metrics = self._reconstruct(
      model.codec, true, key=keys[1], train=train
    )
    metrics |= losses.spectral_distance(
      true,
      decoded,
      sample_rate=model.codec.config.sample_rate,
      fft_sizes=self.fft_sizes,
    )
    level = jnp.sqrt(jnp.mean(true**2, axis=(1, 2))) + 1e-2
    metrics["waveform"] = jnp.mean(jnp.abs(true - decoded), axis=(1, 2)) / level
    total = (
      self.convergence_weight * metrics["convergence"]
      + self.log_magnitude_weight * metrics["log_magnitude"]
      + self.mel_weight * metrics["mel"]
      + self.waveform_weight * metrics["waveform"]
      + self.kl_weight * metrics["kl"]
      + self.codebook_weight * metrics["codebook"]
      + self.commitment_weight * metrics["commitment"]
    )
    if model.discriminator is not None and self.adversarial:
      adversarial, more = self._adversarial(model.discriminator, true, decoded)
      total, metrics = total + adversarial, metrics | more
    return total, metrics

  @property
  def adversarial(self) -> bool:
    """Whether the discriminator is used."""
    return self.adversarial_weight > 0 or self.feature_weight > 0

  def evaluate(
    self, model: CodecGAN, batch: Batch, *, key: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns `loss` and its parts on the first samples, without gain."""
    loss, metrics = self.loss(model, batch, key=key, train=False)
    return metrics | {"loss": loss}

  def _excerpt(
    self, audio: jax.Array, *, key: jax.Array, train: bool
  ) -> jax.Array:
    """Crops and scales [b, samples, channels] to [b, crop, channels]."""
    length = min(self.crop or audio.shape[1], audio.shape[1])
    if not train:
      return audio[:, :length]
    place, gain = jax.random.split(key)
    last = audio.shape[1] - length + 1
    sample = lambda key, shape: jax.random.randint(key, shape, 0, last)
    starts = rows.draw(sample, place, audio.shape[:1])
    cut = lambda x, start: jax.lax.dynamic_slice_in_dim(x, start, length)
    low, high = self.gain_db
    level = rows.draw(jax.random.uniform, gain, (audio.shape[0], 1, 1))
    decibels = low + (high - low) * level
    scaled = jax.vmap(cut)(audio, starts) * 10 ** (decibels / 20)
    return jnp.clip(scaled, -1, 1)

  def _reconstruct(
    self, codec: Codec, true: jax.Array, *, key: jax.Array, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Decodes from latents or codes: [b, t, channels] and metrics."""
    noise, view, count = jax.random.split(key, 3)
    mean, logvar = codec.posterior(true)
    size = (true.shape[0],)
    most = codec.config.num_codebooks
    number = lambda key, shape: jax.random.randint(key, shape, 1, 2 * most + 1)
    used = rows.draw(number, count, size)
    num_used = jnp.minimum(used, most) if train else jnp.full(size, most)
    coded, metrics = codec.quantizer.train(mean, num_used)
    deviation = rows.draw(jax.random.normal, noise, mean.shape)
    sampled = mean + jnp.exp(logvar / 2) * deviation
    by_code = rows.draw(jax.random.uniform, view, size) < self.quantized_rate
    latents = jnp.where(by_code[:, None, None], coded, sampled)
    decoded = codec.decoder(latents)[:, : true.shape[1]]
    return decoded, metrics | {"kl": losses.kl_divergence(mean, logvar)}

  def _adversarial(
    self, discriminator: Discriminator, true: jax.Array, decoded: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sums the adversarial losses [b] of codec and discriminator."""
    graphdef, state = nnx.split(discriminator)
    frozen = nnx.merge(graphdef, jax.lax.stop_gradient(state))
    real_scores, real_features = discriminator(true)
    fake_scores, _ = discriminator(jax.lax.stop_gradient(decoded))
    scores, features = frozen(decoded)
    metrics = {
      "discriminator": losses.hinge_discriminator(real_scores, fake_scores),
      "adversarial": losses.hinge_generator(scores),
      "features": losses.feature_matching(real_features, features),
    }
    total = (
      metrics["discriminator"]
      + self.adversarial_weight * metrics["adversarial"]
      + self.feature_weight * metrics["features"]
    )
    return total, metrics
