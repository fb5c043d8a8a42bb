"""The delay pattern over residual codebooks (MusicGen, arXiv:2306.05284).

Codebook k of latent frame i is written at step i + k, so that each step emits
one token of every codebook and still sees the coarser ones of its frame:

  step       0    1    2    3
  codebook 0 c0   c1   c2   pad
  codebook 1 pad  c0   c1   c2
"""

import jax.numpy as jnp


def delay(codes, pad: int):
  """[b t q] → [b t+q-1 q]; the corners hold `pad`."""
  q = codes.shape[-1]
  columns = [
    jnp.pad(codes[..., k], ((0, 0), (k, q - 1 - k)), constant_values=pad)
    for k in range(q)
  ]
  return jnp.stack(columns, axis=-1)


def undelay(x, q: int):
  """Inverse of `delay`: [b t+q-1 q ...] → [b t q ...]."""
  t = x.shape[1] - q + 1
  return jnp.stack([x[:, k : k + t, k] for k in range(q)], axis=2)
