"""Softmax attention by the kernel that suits the device.

  out_i = sum_j softmax_j(q_i · k_j / sqrt(size) + m_ij) v_j,    m_ij = 0 or -inf

`xla` writes the scores of all pairs to memory, in float32. `splash` (Pallas, TPU)
and `cudnn` (NVIDIA GPU, 16 bits) work on blocks of them on the chip (Dao et al.,
FlashAttention, arXiv:2205.14135). A compiler cannot split such a kernel, so each
device is given its own rows, queries and heads, and all keys of those.
"""

from collections.abc import Callable
import functools
import logging
import math

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from v2a_jax.parallel.sharding import constrain, free_spec

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "splash")
ATTENDED = "attended"  # Name of the output, for rematerialisation.

# With fewer queries and keys the scores are small, and padding them is not.
_FEWEST = (128, 256)
_LANES = 128  # Blocks of splash are multiples of this.
_BLOCK = 512
_PLATFORMS = {"splash": ("tpu",), "cudnn": ("gpu", "cuda")}
_HALF = (jnp.bfloat16, jnp.float16)

_log = logging.getLogger(__name__)


class AttentionError(ValueError):
  """An implementation was asked for that cannot run here."""


def attend(
  q,
  k,
  v,
  *,
  mask=None,
  causal: bool = False,
  implementation: str = "auto",
  axes: tuple[str | None, str | None] = ("batch", "length"),
):
  """Computes softmax attention.

  Args:
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool, [b s] over keys, or [b t s] or [1 t s]; keys with False get no
      weight. A row that is all False gets finite numbers that mean nothing:
      with `xla` the mean of all values.
    causal: whether query i sees keys up to i only.
    implementation: one of `IMPLEMENTATIONS`; `auto` is splash on TPU and cudnn
      on GPU where they can run and there is much to attend to, else xla.
    axes: logical axes of the queries' first two dimensions.

  Returns:
    [b t h·k].

  Raises:
    AttentionError: the implementation cannot run here; says why.
  """
  by_query = (*axes, "heads", None)
  by_key = (axes[0], None, "heads", None)
  # Where time is split, a device has some queries and all keys.
  q = constrain(q, *by_query)
  k, v = constrain(k, *by_key), constrain(v, *by_key)
  chosen = _choose(implementation, q, k, mask, causal, axes)
  if chosen == "xla":
    out = _xla(q, k, v, mask, causal)
  else:
    kernel = functools.partial(
      {"splash": splash, "cudnn": _cudnn}[chosen], causal=causal
    )
    out = _on_shards(kernel, q, k, v, mask, by_query, by_key)
  return checkpoint_name(out.reshape(*out.shape[:2], -1), ATTENDED)


def _choose(implementation, q, k, mask, causal, axes) -> str:
  """Returns the implementation that runs."""
  if implementation not in IMPLEMENTATIONS:
    raise AttentionError(
      f"implementation={implementation!r} is not one of"
      f" {', '.join(IMPLEMENTATIONS)}"
    )
  if implementation == "xla":
    return "xla"
  reasons = {
    name: _hindrance(name, q, mask, causal, axes)
    for name in ("splash", "cudnn")
  }
  if implementation != "auto":
    if reason := reasons[implementation]:
      raise AttentionError(
        f"attention={implementation!r} cannot run: {reason}; use 'auto' or"
        " 'xla'"
      )
    return implementation
  can = [name for name, reason in reasons.items() if not reason]
  enough = q.shape[1] >= _FEWEST[0] and k.shape[1] >= _FEWEST[1]
  chosen = can[0] if can and enough else "xla"
  if chosen != "xla":
    _say_once(chosen, _platform(), str(q.dtype), q.shape[-1])
  return chosen


def _hindrance(name, q, mask, causal, axes) -> str:
  """Returns why an implementation cannot run, or ""."""
  platform = _platform()
  if platform not in _PLATFORMS[name]:
    return f"it is for {_PLATFORMS[name][0].upper()}, and this is {platform}"
  if mask is not None and mask.ndim == 3:
    return "it takes masks over keys, not over pairs"
  split = free_spec(q.shape[:2], axes)[1]
  if causal and split:
    return "causal queries are split over the axis 'context'"
  if name == "cudnn" and q.dtype not in _HALF:
    return f"it takes bfloat16 and float16, not {q.dtype}"
  if name == "cudnn" and (q.shape[-1] > 128 or q.shape[-1] % 8):
    return f"it takes heads of 8, 16, ... 128 features, not {q.shape[-1]}"
  return ""


def _platform() -> str:
  """Returns the platform of the mesh's devices, which need not be here."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


@functools.cache
def _say_once(name: str, platform: str, dtype: str, size: int) -> None:
  _log.info("attention: %s (%s, %s, heads of %s)", name, platform, dtype, size)


def _xla(q, k, v, mask, causal):
  if mask is not None:
    mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
  return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


def _cudnn(q, k, v, mask, *, causal):
  """Runs cuDNN's kernel; with a mask it wants even lengths."""
  t = q.shape[1]
  if mask is not None:
    q, k, v = (_pad(x, 1, 2) for x in (q, k, v))
    mask = _pad(mask, 1, 2)[:, None, None, :]
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], q.shape[1], k.shape[1]))
  out = jax.nn.dot_product_attention(
    q, k, v, mask=mask, is_causal=causal, implementation="cudnn"
  )
  return out[:, :t]


def splash(q, k, v, mask, *, causal: bool, interpret: bool = False):
  """Runs the Pallas kernel for TPU, on one device.

  Args:
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool [b s] over keys, or None.
    causal: whether query i sees keys up to i only.
    interpret: whether to emulate the kernel, on any device.

  Returns:
    [b t h k].
  """
  from jax.experimental.pallas.ops.tpu import splash_attention as kernels

  b, t, heads, size = q.shape
  s = k.shape[1]
  q = q * (1 / math.sqrt(size))
  # Heads of 64 features are taken as they are; others fill the lanes.
  unit = size if size == 64 else _LANES
  shape = lambda x: _pad(_pad(x, 3, unit), 1, _LANES).swapaxes(1, 2)
  q, k, v = shape(q), shape(k), shape(v)
  queries, keys = q.shape[2], k.shape[2]
  seen = jnp.ones((b, s), bool) if mask is None else mask
  segments = kernels.SegmentIds(
    q=jnp.ones((b, queries), jnp.int32),
    kv=_pad(seen, 1, _LANES).astype(jnp.int32),
  )
  pairs = kernels.CausalMask if causal else kernels.FullMask
  kernel = kernels.make_splash_mha_single_device(
    kernels.MultiHeadMask([pairs((queries, keys))] * heads),
    block_sizes=_block_sizes(kernels, queries, keys),
    interpret=interpret,
  )
  out = jax.vmap(kernel)(q, k, v, segments)
  return out.swapaxes(1, 2)[:, :t, :, :size].astype(v.dtype)


def _block_sizes(kernels, queries: int, keys: int):
  """Returns the largest blocks up to `_BLOCK` that divide the lengths."""
  divisor = lambda n: max(
    size for size in range(_LANES, _BLOCK + 1, _LANES) if n % size == 0
  )
  q, kv = divisor(queries), divisor(keys)
  return kernels.BlockSizes(
    block_q=q,
    block_kv=kv,
    block_kv_compute=kv,
    block_q_dkv=q,
    block_kv_dkv=kv,
    block_kv_dkv_compute=kv,
    block_q_dq=q,
    block_kv_dq=kv,
  )


def _pad(x, axis: int, unit: int):
  """Pads an axis with zeros, or False, to a multiple of `unit`."""
  missing = -x.shape[axis] % unit
  return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def _on_shards(kernel: Callable, q, k, v, mask, by_query, by_key):
  """Runs a kernel on every device's part, where there is a mesh.

  Args:
    kernel: `kernel(q, k, v, mask)` of one device.
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool [b s] or None.
    by_query: logical axes of queries.
    by_key: logical axes of keys and values.
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = set(mesh.axis_names) - set(mesh.manual_axes)
  if mesh.empty or not axes:
    return kernel(q, k, v, mask)
  queries, keys = free_spec(q.shape, by_query), free_spec(k.shape, by_key)
  masks = None if mask is None else PartitionSpec(*keys[:2])
  return jax.shard_map(
    kernel,
    in_specs=(queries, keys, keys, masks),
    out_specs=queries,
    axis_names=axes,
    check_vma=False,
  )(q, k, v, mask)
