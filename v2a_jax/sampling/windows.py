"""Overlapping windows, with which a model of a few seconds covers any duration.

A diffusion model denoises all windows of a clip at once and averages their
velocities where they overlap (MultiDiffusion, arXiv:2302.08113); an
autoregressive model writes them in order, each continuing the last.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Windows:
  """`count` windows of `length` latents, `stride` apart.

  Attributes:
    length: latents per window, as in training.
    stride: latents from one window's start to the next.
    count: number of windows.
  """

  length: int
  stride: int
  count: int = 1

  @classmethod
  def cover(cls, total: int, *, length: int, overlap: float = 0.5):
    """Returns the fewest windows that hold `total` latents.

    The last one may reach beyond.

    Args:
      total: number of latents to generate.
      length: latents per window.
      overlap: share of a window, in [0, 1), that the next one overlaps.
    """
    stride = max(1, round(length * (1 - overlap)))
    count = 1 + max(0, math.ceil((total - length) / stride))
    return cls(length, stride, count)

  @property
  def total(self) -> int:
    """Number of latents covered."""
    return self.length + self.stride * (self.count - 1)

  @property
  def starts(self) -> list[int]:
    """First latent of each window."""
    return [i * self.stride for i in range(self.count)]

  def split(self, x):
    """Cuts [b total ...] into [b·count length ...], clip by clip."""
    parts = [x[:, s : s + self.length] for s in self.starts]
    return jnp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

  def merge(self, parts):
    """Averages [b·count length c] to [b total c], with fades at the edges."""
    parts = parts.reshape(-1, self.count, *parts.shape[1:])
    ramp = np.minimum(np.arange(self.length), np.arange(self.length)[::-1]) + 1
    ramp = jnp.asarray(ramp, parts.dtype)[:, None]
    total = jnp.zeros((parts.shape[0], self.total, parts.shape[-1]))
    weight = jnp.zeros((self.total, 1))
    for i, start in enumerate(self.starts):
      here = slice(start, start + self.length)
      total = total.at[:, here].add(parts[:, i] * ramp)
      weight = weight.at[here].add(ramp)
    return total / weight
