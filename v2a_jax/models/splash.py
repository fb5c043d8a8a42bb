"""Splash attention on TPU: a Pallas kernel that keeps no scores in memory.

JAX's kernel takes lengths that are multiples of its blocks, and masks of keys
as segment ids: a query sees the keys of its own segment. Here real queries and
keys are segment 1, masked keys and padding segment 0. It takes heads of any
size.
"""

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernel_lib,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as mask_lib,
)
import jax.numpy as jnp

LANES = 128
# A block of 768 x 768 scores in float32 is 2.3 MB of a core's 16 MB or more.
BLOCKS = (768, 640, 512, 384)


def attend(q, k, v, mask=None, *, causal=False, interpret=False):
  """Computes softmax attention with the kernel, on one device.

  A row without any key comes out finite, and so do its derivatives, but they
  are not those of equal weights.

  Args:
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool [b s], True for keys with weight; None for all.
    causal: whether query i sees keys up to i only.
    interpret: whether the kernel is interpreted, as on a CPU.

  Returns:
    [b t h k].
  """
  (b, t, h, size), s = q.shape, k.shape[1]
  blocks = block_size(t), block_size(s)
  q = (q * size**-0.5).astype(q.dtype)
  q, k, v = (
    _pad(x, block).swapaxes(1, 2)
    for x, block in zip((q, k, v), (blocks[0], blocks[1], blocks[1]))
  )
  if mask is None and k.shape[2] != s and not causal:
    mask = jnp.ones((b, s), bool)
  ids = None
  if mask is not None:
    ids = kernel_lib.SegmentIds(
      jnp.ones((b, q.shape[2]), jnp.int32),
      _pad(mask.astype(jnp.int32), blocks[1]),
    )
  kernel = _kernel(h, (q.shape[2], k.shape[2]), blocks, causal, interpret)
  return jax.vmap(kernel)(q, k, v, ids).swapaxes(1, 2)[:, :t]


def block_size(length: int) -> int:
  """Returns the block that pads a length least; the largest of those."""
  if length <= BLOCKS[0]:
    return _round_up(length, LANES)
  return min(BLOCKS, key=lambda block: _round_up(length, block))


def _kernel(heads, lengths, blocks, causal, interpret):
  block_q, block_kv = blocks
  mask = mask_lib.CausalMask if causal else mask_lib.FullMask
  return kernel_lib.make_splash_mha(
    mask_lib.MultiHeadMask([mask(lengths)] * heads),
    block_sizes=kernel_lib.BlockSizes(
      block_q=block_q,
      block_kv=block_kv,
      block_kv_compute=block_kv,
      block_q_dkv=block_q,
      block_kv_dkv=block_kv,
      block_kv_dkv_compute=block_kv,
      block_q_dq=block_q,
      block_kv_dq=block_kv,
    ),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )


def _pad(x, block: int):
  """Pads the second dimension to a multiple of a block."""
  more = _round_up(x.shape[1], block) - x.shape[1]
  return jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2))


def _round_up(number: int, unit: int) -> int:
  return -(-number // unit) * unit
