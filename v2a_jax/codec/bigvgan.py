"""BigVGAN, a vocoder: log-mel spectra to waveforms.

  mel -> convolution -> stages -> activation -> convolution -> waveform

A stage is a transposed convolution to half the channels, and the mean of three
stacks of dilated residual units. Each activation runs at twice the rate, so
that what it adds above half the rate does not fold back:

  up(x)[n] = 2 sum_i x[i] f[n + 5 - 2 i],      n = 0 .. 2 t - 1
  snake(x) = x + sin^2(e^a x) / (e^b + 1e-9)   a, b learned for each channel
  down(x)[n] = sum_i x[i] f[i + 5 - 2 n]

with f a sinc of 12 taps under a Kaiser window. Ends are continued by their
first and last value, of x and of up(x).

Lee et al., "BigVGAN: a universal neural vocoder with large-scale training",
https://arxiv.org/abs/2206.04658; https://github.com/NVIDIA/BigVGAN (MIT), whose
names the layers have. All taps of a transposed convolution are two strides.
"""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.codec.base import reach, reach_up
from v2a_jax.codec.dac import Upsample
from v2a_jax.codec.layers import conv, sine_squared

_KERNELS, _DILATIONS = (3, 7, 11), (1, 3, 5)
_TAPS = 12
# Cutoff and half the width of the transition, both by the doubled rate.
_CUTOFF, _HALF_WIDTH = 0.25, 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class BigVGANConfig:
  """Sizes of a vocoder.

  Attributes:
    mels: number of mel bands.
    width: channels before the first stage; each stage halves them.
    strides: strides of the stages, all even; their product is the samples of
      a step of the spectrum.
    tanh: whether the waveform is a tanh, of a convolution with bias; if not it
      is clipped, and there is no bias.
  """

  mels: int
  width: int = 1536
  strides: tuple[int, ...]
  tanh: bool

  def __post_init__(self):
    settings.check(self, mels="[1, inf)", width="[1, inf)", strides="[2, inf)")
    if any(stride % 2 for stride in self.strides):
      raise settings.SettingError(f"strides={self.strides!r} are not all even")
    if self.width % 2 ** len(self.strides):
      raise settings.SettingError(
        f"width={self.width} cannot be halved {len(self.strides)} times, once"
        " per stride"
      )


@functools.cache
def low_pass() -> np.ndarray:
  """Returns the filter f, float32 [12], whose sum is 1.

  The window's shape follows from the attenuation by Kaiser's formulas
  (scipy.signal.kaiser_atten, kaiser_beta).
  """
  half = _TAPS // 2
  attenuation = 2.285 * (half - 1) * np.pi * 4 * _HALF_WIDTH + 7.95
  window = np.kaiser(_TAPS, 0.1102 * (attenuation - 8.7))  # above 50 dB
  taps = window * np.sinc(2 * _CUTOFF * (np.arange(_TAPS) - half + 0.5))
  return (taps / taps.sum()).astype(np.float32)


def _correlate(x: jax.Array, taps: np.ndarray) -> jax.Array:
  """Computes y[i] = sum_j taps[j] x[i + j] along time, [b, t, c]."""
  count = x.shape[1] - len(taps) + 1
  return sum(float(tap) * x[:, i : i + count] for i, tap in enumerate(taps))


class SnakeBeta(nnx.Module):
  """Logarithms of the frequency and of the inverse size of snake's sine."""

  def __init__(self, features: int):
    self.alpha = nnx.Param(jnp.zeros((features,)))
    self.beta = nnx.Param(jnp.zeros((features,)))

  def __call__(self, x: jax.Array) -> jax.Array:
    wave = sine_squared(x * jnp.exp(self.alpha[...]))
    return x + wave / (jnp.exp(self.beta[...]) + 1e-9)


class Activation(nnx.Module):
  """Snake between an upsampling and a downsampling by 2; keeps [b, t, c].

  The even and the odd steps of the doubled rate are computed apart, each by 6
  of the 12 taps.
  """

  reach = 5  # steps to one side that one depends on

  def __init__(self, features: int):
    self.act = SnakeBeta(features)

  def __call__(self, x: jax.Array) -> jax.Array:
    f = low_pass()
    wide = jnp.pad(x, [(0, 0), (3, 3), (0, 0)], mode="edge")
    even = self.act(_correlate(wide[:, :-1], 2 * f[::-2]))
    odd = self.act(_correlate(wide[:, 1:], 2 * f[-2::-2]))
    first, last = even[:, :1], odd[:, -1:]
    join = lambda *parts: jnp.concatenate(parts, axis=1)
    even = join(first, first, even, last, last, last)
    odd = join(first, first, first, odd, last, last)
    return _correlate(even, f[1::2]) + _correlate(odd, f[::2])


class ResidualStack(nnx.Module):
  """Three residual units of one kernel, each with a dilation."""

  def __init__(self, features: int, taps: int, *, rngs: nnx.Rngs):
    make = lambda dilation: conv(
      features, features, taps, dilation=dilation, rngs=rngs
    )
    self.convs1 = nnx.List([make(dilation) for dilation in _DILATIONS])
    self.convs2 = nnx.List([make(1) for _ in _DILATIONS])
    count = 2 * len(_DILATIONS)
    self.activations = nnx.List([Activation(features) for _ in range(count)])

  def __call__(self, x: jax.Array) -> jax.Array:
    before, between = self.activations[::2], self.activations[1::2]
    units = zip(before, self.convs1, between, self.convs2, strict=True)
    for act1, conv1, act2, conv2 in units:
      x = x + conv2(act2(conv1(act1(x))))
    return x

  @property
  def reach(self) -> int:
    """Steps to one side that one depends on."""
    return reach(self) + sum(act.reach for act in self.activations)


class BigVGAN(nnx.Module):
  """Maps log-mels [b, t, mels] to waveforms [b, t hop, 1] in [-1, 1]."""

  def __init__(self, config: BigVGANConfig, *, rngs: nnx.Rngs):
    self.config = config
    width = config.width
    self.conv_pre = conv(config.mels, width, 7, rngs=rngs)
    self.ups, self.resblocks = nnx.List([]), nnx.List([])
    for stride in config.strides:
      up = Upsample(width, width // 2, stride, rngs=rngs)
      self.ups.append(nnx.List([up]))
      width //= 2
      for taps in _KERNELS:
        self.resblocks.append(ResidualStack(width, taps, rngs=rngs))
    self.activation_post = Activation(width)
    self.conv_post = conv(width, 1, 7, use_bias=config.tanh, rngs=rngs)

  def __call__(self, mel: jax.Array) -> jax.Array:
    hidden = self.conv_pre(mel)
    for up, stacks in self._stages():
      hidden = up(hidden)
      hidden = sum(stack(hidden) for stack in stacks) / len(stacks)
    wave = self.conv_post(self.activation_post(hidden))
    return jnp.tanh(wave) if self.config.tanh else jnp.clip(wave, -1, 1)

  def _stages(self):
    count = len(_KERNELS)
    for i, (up,) in enumerate(self.ups):
      yield up, self.resblocks[i * count : (i + 1) * count]

  @property
  def halo(self) -> int:
    """Steps of the spectrum on either side that a step's samples depend on."""
    steps = reach(self.conv_post) + self.activation_post.reach
    for up, stacks in reversed(list(self._stages())):
      steps = reach_up(steps + max(stack.reach for stack in stacks), up.stride)
    return steps + reach(self.conv_pre)
