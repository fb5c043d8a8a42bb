"""Mu-law companding (ITU-T G.711): what is quiet still counts.

  y = sign(x) log(1 + 255 |x|) / log 256

Sound 50 dB down is still at a tenth of the scale.
"""

import math

import jax
import jax.numpy as jnp

MU = 255.0
LOG = math.log1p(MU)


def compress(x: jax.Array) -> jax.Array:
  """x in [-1, 1] to y in [-1, 1], same shape."""
  return jnp.sign(x) * jnp.log1p(MU * jnp.abs(x)) / LOG


def expand(y: jax.Array) -> jax.Array:
  """The inverse; y beyond [-1, 1] is cut to it."""
  return jnp.sign(y) * jnp.expm1(LOG * jnp.minimum(jnp.abs(y), 1.0)) / MU
