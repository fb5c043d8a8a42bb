"""Mu-law companding (ITU-T G.711), which keeps quiet sounds audible to a model.

  y = sign(x) log(1 + 255 |x|) / log 256

A sound 50 dB below full scale is still at a tenth of the scale.
"""

import math

import jax
import jax.numpy as jnp

MU = 255.0
LOG = math.log1p(MU)


def compress(x: jax.Array) -> jax.Array:
  """Maps x in [-1, 1] to y in [-1, 1]."""
  return jnp.sign(x) * jnp.log1p(MU * jnp.abs(x)) / LOG


def expand(y: jax.Array) -> jax.Array:
  """Inverts `compress`; clips y to [-1, 1] first."""
  return jnp.sign(y) * jnp.expm1(LOG * jnp.minimum(jnp.abs(y), 1.0)) / MU
