"""MMAudio's variational autoencoder over log-mel spectra.

  encode:  waveform -> log-mel -> N(mean, std) over z [b, t, c]
  decode:  z -> log-mel [b, 2 t, mels], which a vocoder makes a waveform of

All convolutions run along time and have no bias; mels are channels. Layers keep
the magnitude of activations (Karras et al., "Analyzing and improving the
training dynamics of diffusion models", https://arxiv.org/abs/2312.02696,
section 2 and appendix B): kernels of each output have length 1, activations
are divided by their root mean square over channels, and branches are summed by

  mp_sum(a, b) = (0.7 a + 0.3 b) / sqrt(0.7^2 + 0.3^2),
  mp_silu(x) = silu(x) / 0.596.

Encoder and decoder each have one attention over time. Here a latent attends to
those of `context` steps before and after it, which are all of the clips that
the published models are made for (8 seconds). So a network's result is that of
the original for clips of up to `context` + 1 latents; in longer ones, for which
the original attends over the whole clip, what is far away has no influence,
memory grows with the length and not with its square, and the clip can be
decoded in windows.

MMAudio: Cheng et al., https://arxiv.org/abs/2412.15322, and
https://github.com/hkchengrex/MMAudio (code MIT, weights CC-BY-NC-4.0), whose
names the layers have.
"""

import dataclasses
import math

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.codec import stft
from v2a_jax.codec.base import Buffer, reach
from v2a_jax.codec.layers import conv

EPSILON = 1e-4
_WIDTHS = (1, 2, 4)  # of the levels, by the config's width
_BOUND = 256.0
_SHARE = 0.3  # of a branch in a sum
_SILU_RMS = 0.596  # of silu(x) for normal x
_LOGVAR_RANGE = (-30.0, 20.0)
_MAGNITUDE_EPSILON, _MEL_FLOOR = 1e-9, 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelVaeConfig:
  """Sizes of the autoencoder and of its log-mel spectra.

  Attributes:
    sample_rate: sample rate in Hz.
    fft: samples of a window.
    hop: samples between windows; divides `fft`.
    mels: number of mel bands.
    log10: whether logarithms are to base 10; natural ones if not.
    width: channels of the first level, of three.
    latent_dim: channels of the latents.
    context: latents on either side that one attends to.
  """

  sample_rate: int
  fft: int
  hop: int
  mels: int
  log10: bool
  width: int
  latent_dim: int
  context: int

  def __post_init__(self):
    positive = [f.name for f in dataclasses.fields(self) if f.name != "log10"]
    settings.check(self, **dict.fromkeys(positive, "[1, inf)"))


def log_mel(config: MelVaeConfig, waveform: jax.Array) -> jax.Array:
  """Computes log-mel spectra of a waveform.

  Args:
    config: sizes.
    waveform: float32 [b, t hop], t > 1; clipped to [-1, 1].

  Returns:
    float32 [b, t, mels]; window `i` is centred on sample (i + 1/2) hop.
  """
  edge = (config.fft - config.hop) // 2
  clipped = jnp.clip(waveform, -1, 1)
  mirrored = jnp.pad(clipped, [(0, 0), (edge, edge)], mode="reflect")
  frames = stft.frame(mirrored, config.fft, config.hop)
  spectrum = jnp.fft.rfft(frames * stft.hann(config.fft))
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  filters = stft.mel_filters(
    sample_rate=config.sample_rate, n_fft=config.fft, n_mels=config.mels
  )
  mel = jnp.matmul(
    jnp.sqrt(power + _MAGNITUDE_EPSILON), filters, precision="highest"
  )
  mel = jnp.maximum(mel, _MEL_FLOOR)
  return jnp.log10(mel) if config.log10 else jnp.log(mel)


def mp_silu(x: jax.Array) -> jax.Array:
  """Computes silu(x), scaled to keep the magnitude of normal numbers."""
  return jax.nn.silu(x) / _SILU_RMS


def mp_sum(x: jax.Array, branch: jax.Array) -> jax.Array:
  """Adds a branch to x, scaled to keep the magnitude of independent numbers."""
  keep = 1 - _SHARE
  return (keep * x + _SHARE * branch) / math.hypot(keep, _SHARE)


def unit_rms(x: jax.Array) -> jax.Array:
  """Divides [..., c] by the root mean square over channels."""
  rms = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True))
  return x / (EPSILON + rms)


def local_attention(
  q: jax.Array, k: jax.Array, v: jax.Array, context: int
) -> jax.Array:
  """Attends with one head to what is at most `context` steps away.

  Blocks of `context` queries attend to their own keys and to those of the
  blocks beside them, so that memory is proportional to the length.

  Args:
    q, k, v: [b, t, c].
    context: number of steps.

  Returns:
    [b, t, c].
  """
  length = q.shape[1]
  size = min(context, length)
  count = -(-length // size)

  def blocks(x, beside):
    """Cuts [b, t, c] to [b, count, size (1 + 2 beside), c]."""
    short = count * size - length
    pad = (beside * size, short + beside * size)
    padded = jnp.pad(x, [(0, 0), pad, (0, 0)])
    parts = padded.reshape(x.shape[0], -1, size, x.shape[-1])
    near = [parts[:, i : i + count] for i in range(1 + 2 * beside)]
    return jnp.concatenate(near, axis=2)

  beside = int(count > 1)
  steps = jnp.arange(count * size).reshape(count, size, 1)
  others = jnp.arange(-beside * size, (1 + beside) * size)
  others = jnp.arange(count)[:, None, None] * size + others
  seen = (others >= 0) & (others < length) & (abs(steps - others) <= context)
  q, k, v = blocks(q, 0), blocks(k, beside), blocks(v, beside)
  scores = jnp.einsum("bnqc,bnkc->bnqk", q, k) / math.sqrt(q.shape[-1])
  shares = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
  mixed = jnp.einsum("bnqk,bnkc->bnqc", shares, v)
  return mixed.reshape(q.shape[0], -1, q.shape[-1])[:, :length]


def _conv(features_in: int, features: int, taps: int, rngs) -> nnx.Conv:
  return conv(features_in, features, taps, use_bias=False, rngs=rngs)


class ResidualBlock(nnx.Module):
  """Maps [b, t, c] to [b, t, d]; the output is clipped to +-256."""

  def __init__(self, features_in: int, features: int, *, rngs: nnx.Rngs):
    self.conv1 = _conv(features_in, features, 3, rngs)
    self.conv2 = _conv(features, features, 3, rngs)
    if features_in != features:
      self.nin_shortcut = _conv(features_in, features, 1, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    x = unit_rms(x)
    branch = self.conv2(mp_silu(self.conv1(mp_silu(x))))
    if hasattr(self, "nin_shortcut"):
      x = self.nin_shortcut(x)
    return jnp.clip(mp_sum(x, branch), -_BOUND, _BOUND)

  @property
  def reach(self) -> int:
    """Steps to one side that one depends on."""
    return reach(self.conv1) + reach(self.conv2)


class Attention(nnx.Module):
  """Local attention of one head; queries, keys and values are normalised."""

  def __init__(self, features: int, context: int, *, rngs: nnx.Rngs):
    self.context = context
    self.qkv = _conv(features, 3 * features, 1, rngs)
    self.proj_out = _conv(features, features, 1, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    qkv = self.qkv(x).reshape(*x.shape, 3)  # q, k and v of each channel
    q, k, v = (unit_rms(qkv[..., i]) for i in range(3))
    mixed = self.proj_out(local_attention(q, k, v, self.context))
    return jnp.clip(mp_sum(x, mixed), -_BOUND, _BOUND)


class Middle(nnx.Module):
  """Attention between two residual blocks."""

  def __init__(self, features: int, context: int, *, rngs: nnx.Rngs):
    self.block_1 = ResidualBlock(features, features, rngs=rngs)
    self.attn_1 = Attention(features, context, rngs=rngs)
    self.block_2 = ResidualBlock(features, features, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.block_2(self.attn_1(self.block_1(x)))

  @property
  def reach(self) -> int:
    """Steps to one side that one depends on."""
    return self.block_1.reach + self.attn_1.context + self.block_2.reach


class Downsample(nnx.Module):
  """Halves time: means of pairs of steps, between convolutions of one tap."""

  def __init__(self, features: int, *, rngs: nnx.Rngs):
    self.conv1 = _conv(features, features, 1, rngs)
    self.conv2 = _conv(features, features, 1, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    x = self.conv1(x)
    return self.conv2((x[:, ::2] + x[:, 1::2]) / 2)


class Upsample(nnx.Module):
  """Doubles time: repeats each step, then convolves."""

  def __init__(self, features: int, *, rngs: nnx.Rngs):
    self.conv = _conv(features, features, 3, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.conv(jnp.repeat(x, 2, axis=1))


class Level(nnx.Module):
  """Residual blocks of one width."""

  def __init__(
    self, features_in: int, features: int, blocks: int, *, rngs: nnx.Rngs
  ):
    widths = [features_in] + [features] * (blocks - 1)
    self.block = nnx.List(
      [ResidualBlock(width, features, rngs=rngs) for width in widths]
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    for block in self.block:
      x = block(x)
    return x

  @property
  def reach(self) -> int:
    """Steps to one side that one depends on."""
    return sum(block.reach for block in self.block)


class Encoder(nnx.Module):
  """Maps normalised log-mels [b, 2 t, mels] to [b, t, 2 latent_dim]."""

  def __init__(self, config: MelVaeConfig, *, rngs: nnx.Rngs):
    widths = [factor * config.width for factor in _WIDTHS]
    self.conv_in = _conv(config.mels, widths[0], 3, rngs)
    self.down = nnx.List([])
    for before, width in zip([widths[0], *widths], widths):
      self.down.append(Level(before, width, 2, rngs=rngs))
    self.down[0].downsample = Downsample(widths[0], rngs=rngs)
    self.mid = Middle(widths[-1], config.context, rngs=rngs)
    self.conv_out = _conv(widths[-1], 2 * config.latent_dim, 3, rngs)

  def __call__(self, mel: jax.Array) -> jax.Array:
    first, second, third = self.down
    hidden = first.downsample(first(self.conv_in(mel)))
    hidden = self.mid(third(second(hidden)))
    return self.conv_out(mp_silu(hidden))


class Decoder(nnx.Module):
  """Maps z [b, t, latent_dim] to normalised log-mels [b, 2 t, mels]."""

  def __init__(self, config: MelVaeConfig, *, rngs: nnx.Rngs):
    widths = [factor * config.width for factor in _WIDTHS]
    self.conv_in = _conv(config.latent_dim, widths[-1], 3, rngs)
    self.mid = Middle(widths[-1], config.context, rngs=rngs)
    self.up = nnx.List([])  # by level; the last comes first
    for width, before in zip(widths, [*widths[1:], widths[-1]]):
      self.up.append(Level(before, width, 3, rngs=rngs))
    self.up[1].upsample = Upsample(widths[1], rngs=rngs)
    self.conv_out = _conv(widths[0], config.mels, 3, rngs)

  def __call__(self, z: jax.Array) -> jax.Array:
    first, second, third = self.up
    hidden = third(self.mid(self.conv_in(z)))
    hidden = first(second.upsample(second(hidden)))
    return self.conv_out(mp_silu(hidden))

  def halo(self, mels: int) -> int:
    """Counts latents beside one that its mels, and `mels` beside, depend on."""
    first, second, third = self.up
    mels += reach(self.conv_out) + first.reach + reach(second.upsample)
    steps = -(-mels // 2) + second.reach + third.reach
    return steps + self.mid.reach + reach(self.conv_in)


class MelVae(nnx.Module):
  """The autoencoder, with the mean and deviation of each mel band."""

  def __init__(self, config: MelVaeConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.data_mean = Buffer(jnp.zeros((config.mels,)))
    self.data_std = Buffer(jnp.ones((config.mels,)))
    self.encoder = Encoder(config, rngs=rngs)
    self.decoder = Decoder(config, rngs=rngs)

  def posterior(self, mel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encodes log-mels [b, 2 t, mels] to mean and std of z, [b, t, c] each."""
    normal = (mel - self.data_mean[...]) / self.data_std[...]
    mean, logvar = jnp.split(self.encoder(normal), 2, axis=-1)
    return mean, jnp.exp(jnp.clip(logvar, *_LOGVAR_RANGE) / 2)

  def decode(self, z: jax.Array) -> jax.Array:
    """Decodes z [b, t, c] to log-mels [b, 2 t, mels]."""
    return self.decoder(z) * self.data_std[...] + self.data_mean[...]
