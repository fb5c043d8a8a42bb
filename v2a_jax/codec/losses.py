"""Losses of codec training, per example.

For magnitudes S of the reference, S' of the reconstruction and mel filters M,

  spectral convergence   |S - S'|_F / |S|_F
  log magnitude          mean |log(S + eps) - log(S' + eps)|
  log mel                mean |log(M S^2 + eps^2) - log(M S'^2 + eps^2)| / 2

averaged over window lengths (Yamamoto et al., arXiv:1910.11480, equations 3-6;
DAC, arXiv:2306.06546, section 3.5). Mel bands are compared by power, which
their loudest partial determines. Short windows resolve onsets, long ones pitch.
Magnitudes are divided by the window's sum, so that a full-scale sine has 0.5
with any window, and `eps` is a level below which everything counts as silence.

Magnitudes of single channels do not depend on the phase between channels. For
stereo, mid (l + r) / 2 and side (l - r) / 2 are therefore compared as well,
with twice the weight of left and right (Steinmetz et al., arXiv:2010.10291;
weights of Evans et al., arXiv:2402.04825).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from v2a_jax.codec import stft

FLOOR = 1e-4  # eps


def magnitude(signal: jax.Array, *, n_fft: int) -> jax.Array:
  """Computes magnitudes [..., frames, bins] of signals [..., t]."""
  spectrum = stft.stft(signal, n_fft=n_fft, hop=n_fft // 4)
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  scale = stft.hann(n_fft).sum()
  return jnp.sqrt(power / scale**2 + 1e-12)


def _log_distance(a: jax.Array, b: jax.Array, floor: float) -> jax.Array:
  return _mean(jnp.abs(jnp.log(a + floor) - jnp.log(b + floor)))


def _convergence(true: jax.Array, decoded: jax.Array) -> jax.Array:
  axes = tuple(range(1, true.ndim))
  error = jnp.sum((true - decoded) ** 2, axis=axes)
  # Without a floor, a silent example would outweigh all others.
  power = jnp.sum(true**2, axis=axes) + true[0].size * (5 * FLOOR) ** 2
  return jnp.sqrt(error / power + 1e-8) - 1e-4


def spectral_distance(
  true: jax.Array,
  decoded: jax.Array,
  *,
  sample_rate: int,
  fft_sizes: Sequence[int] = (128, 256, 512, 1024, 2048),
) -> dict[str, jax.Array]:
  """Computes multi-resolution STFT and mel distances.

  Args:
    true: reference float32 [b, t, channels].
    decoded: reconstruction of the same shape.
    sample_rate: sample rate in Hz.
    fft_sizes: window lengths in samples; the hop is a quarter of it, the number
      of mel bands an eighth.

  Returns:
    `convergence`, `log_magnitude` and `mel` (both in nepers), each [b].
  """
  sizes = sample_rate, fft_sizes
  pair = [jnp.moveaxis(x, 2, 1) for x in (true, decoded)]
  single = _distances(*pair, *sizes)
  if true.shape[2] != 2:
    return single
  both = _distances(*map(mid_side, pair), *sizes)
  return {name: (single[name] + 2 * both[name]) / 3 for name in single}


def mid_side(stereo: jax.Array) -> jax.Array:
  """Converts left and right [b, 2, t] to mid and side [b, 2, t]."""
  left, right = stereo[:, 0], stereo[:, 1]
  return jnp.stack([left + right, left - right], axis=1) / 2


def _distances(true, decoded, sample_rate, fft_sizes) -> dict[str, jax.Array]:
  """Computes `spectral_distance` of [b, channels, t], channel by channel."""
  sums = {"convergence": 0.0, "log_magnitude": 0.0, "mel": 0.0}
  for n_fft in fft_sizes:
    filters = stft.mel_filters(
      sample_rate=sample_rate, n_fft=n_fft, n_mels=n_fft // 8
    )
    filters = filters / (filters.sum(axis=0) + 1e-8)
    pair = [magnitude(x, n_fft=n_fft) for x in (true, decoded)]
    sums["convergence"] += _convergence(*pair)
    sums["log_magnitude"] += _log_distance(*pair, FLOOR)
    powers = [x**2 @ filters for x in pair]
    sums["mel"] += _log_distance(*powers, FLOOR**2) / 2
  return {name: value / len(fft_sizes) for name, value in sums.items()}


def kl_divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
  """Computes KL(N(mean, exp(logvar)) || N(0, 1)) of [b, t, c] in nats.

  Returns:
    The mean over numbers, [b].
  """
  nats = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar)
  return jnp.mean(nats, axis=(1, 2))


def hinge_discriminator(
  real: Sequence[jax.Array], fake: Sequence[jax.Array]
) -> jax.Array:
  """Averages max(0, 1 - D(x)) + max(0, 1 + D(x')) over critics, [b].

  Args:
    real: scores [b, ...] of references, one array per critic.
    fake: scores of reconstructions.
  """
  terms = [
    _mean(jax.nn.relu(1 - r)) + _mean(jax.nn.relu(1 + f))
    for r, f in zip(real, fake, strict=True)
  ]
  return sum(terms) / len(terms)


def hinge_generator(fake: Sequence[jax.Array]) -> jax.Array:
  """Averages -D(x') over critics, [b] (SoundStream, section III.E)."""
  return sum(-_mean(f) for f in fake) / len(fake)


def feature_matching(
  real: Sequence[jax.Array], fake: Sequence[jax.Array]
) -> jax.Array:
  """Averages mean |f - f'| / mean |f| over features, [b] (MelGAN, DAC)."""
  terms = [
    _mean(jnp.abs(jax.lax.stop_gradient(r) - f))
    / (_mean(jnp.abs(jax.lax.stop_gradient(r))) + 1e-4)
    for r, f in zip(real, fake, strict=True)
  ]
  return sum(terms) / len(terms)


def _mean(x: jax.Array) -> jax.Array:
  return jnp.mean(x, axis=tuple(range(1, x.ndim)))
