"""Softmax attention by one of three implementations.

  xla     scores [b h t s] in memory, in float32; runs everywhere
  cudnn   cuDNN's fused kernel: NVIDIA from Ampere on, bfloat16 or float16
  splash  a Pallas kernel (`splash.py`): TPU

The last two keep no scores in memory. They know masks of keys and the causal
mask; a mask of pairs, such as that of a decoding step, is XLA's. Neither has
forward-mode derivatives.
"""

import functools
import logging

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from v2a_jax.basics.settings import SettingError
from v2a_jax.models import splash
from v2a_jax.parallel.sharding import constrain, free_spec, platform

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "splash")
CAUSAL = "causal"  # The mask by which query i sees keys up to i only.

# With fewer scores in a head, `auto` takes XLA's: a kernel's blocks would be
# mostly padding, and the memory saved is small.
FEW_SCORES = 2**15

ATTENDED = "attended"  # Name of the result, for rematerialisation.
_log = logging.getLogger(__name__)


def attend(
  q, k, v, *, mask=None, implementation="auto", axes=("batch", "length")
):
  """Computes softmax attention.

  Args:
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool, [b s] over keys, or [b t s] or [1 t s]; or `CAUSAL`. Keys with
      False get no weight, but a row that is all False weighs all keys equally.
    implementation: one of `IMPLEMENTATIONS`.
    axes: logical axes of the queries' first two dimensions.

  Returns:
    [b t h·k].

  Raises:
    SettingError: the implementation cannot run on these devices, in this dtype
      or with heads of this size.
  """
  # Where time is split, a device has some queries and all keys.
  q = constrain(q, *axes, "heads", None)
  k, v = (constrain(x, axes[0], None, "heads", None) for x in (k, v))
  chosen = choose(implementation, q.dtype, q.shape[-1])
  if chosen != "xla" and _is_for_xla(q, k, mask, implementation, axes):
    chosen = "xla"
  out = (
    _xla(q, k, v, mask)
    if chosen == "xla"
    else _fused(chosen, q, k, v, mask, axes)
  )
  return checkpoint_name(out.reshape(*out.shape[:2], -1), ATTENDED)


def choose(implementation: str, dtype, head_size: int) -> str:
  """Returns the implementation that runs, for `auto` the best one.

  Raises:
    SettingError: that one cannot run here.
  """
  why_not = {
    "splash": _why_not_splash(dtype),
    "cudnn": _why_not_cudnn(dtype, head_size),
    "xla": "",
  }
  able = [name for name, reason in why_not.items() if not reason]
  chosen = able[0] if implementation == "auto" else implementation
  if chosen not in able:
    raise SettingError(
      f"attention={chosen!r} cannot run here: {why_not[chosen]}; use"
      f" {' or '.join(able)}, or auto"
    )
  if platform() != "cpu":
    _say(chosen, platform().upper(), jnp.dtype(dtype).name, head_size)
  return chosen


@functools.cache
def _say(*choice):
  _log.info("attention: %s (%s, %s, heads of %d)", *choice)


def _why_not_splash(dtype) -> str:
  if platform() != "tpu":
    return f"splash is a kernel for TPU, and this is a {platform().upper()}"
  if dtype not in (jnp.float32, jnp.bfloat16):
    return f"splash takes float32 or bfloat16, not {jnp.dtype(dtype).name}"
  return ""


def _why_not_cudnn(dtype, head_size: int) -> str:
  if platform() != "gpu":
    return f"cudnn is for NVIDIA GPUs, and this is a {platform().upper()}"
  generation = _cuda_generation()
  if generation < 8:
    return "cudnn needs an NVIDIA GPU of compute capability 8.0 or more"
  if dtype not in (jnp.float16, jnp.bfloat16):
    return f"cudnn takes bfloat16 or float16, not {jnp.dtype(dtype).name}"
  largest = 256 if generation >= 9 else 128
  if head_size > largest:
    return f"cudnn takes heads of up to {largest} here, not {head_size}"
  return ""


def _cuda_generation() -> int:
  """Returns the major compute capability; 0 for a GPU without CUDA."""
  capability = getattr(jax.local_devices()[0], "compute_capability", "")
  major = str(capability).partition(".")[0]
  return int(major) if major.isdigit() else 0


def _is_for_xla(q, k, mask, implementation, axes) -> bool:
  """Says whether XLA's takes a call that a kernel cannot, or should not."""
  if implementation == "auto" and q.shape[1] * k.shape[1] < FEW_SCORES:
    return True
  if mask is CAUSAL:  # A kernel does not know which queries a device has.
    return free_spec(q.shape[:2], axes)[1] is not None
  return mask is not None and mask.ndim != 2


def _xla(q, k, v, mask):
  if mask is CAUSAL:
    mask = jnp.tril(jnp.ones((1, q.shape[1], k.shape[1]), bool))
  if mask is not None:
    mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
  return jax.nn.dot_product_attention(q, k, v, mask=mask)


def _fused(name: str, q, k, v, mask, axes):
  causal = mask is CAUSAL
  kernel = {"splash": splash.attend, "cudnn": cudnn}[name]
  kernel = functools.partial(kernel, causal=causal)
  return on_shards(kernel, q, k, v, None if causal else mask, axes=axes)


def on_shards(kernel, q, k, v, mask, *, axes=("batch", "length")):
  """Runs a kernel, which XLA cannot split, on the part of each device.

  Rows, heads and queries are independent, so nothing moves between devices but
  gradients: those of keys where `context` splits the queries, and all where
  the heads do not divide over `tensor`.

  Args:
    kernel: maps q, k, v and a mask of keys to [b t h k].
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool [b s], or None.
    axes: logical axes of the queries' first two dimensions.
  """
  arguments = (q, k, v) if mask is None else (q, k, v, mask)

  def run(q, k, v, mask=None):
    out = kernel(q, k, v, mask)
    return out if mask is None else _or_mean(out, v, mask)

  mesh = jax.sharding.get_abstract_mesh()
  free = set(mesh.axis_names) - set(mesh.manual_axes)
  if not free:
    return run(*arguments)
  queries = free_spec(q.shape, (*axes, "heads", None))
  keys = free_spec(k.shape, (axes[0], None, "heads", None))
  of_mask = jax.sharding.PartitionSpec(keys[0], None)
  return jax.shard_map(
    run,
    in_specs=(queries, keys, keys, of_mask)[: len(arguments)],
    out_specs=queries,
    axis_names=free,
    check_vma=False,
  )(*arguments)


def _or_mean(out, v, mask):
  """Gives rows without any key the mean of the values, as XLA's softmax does."""
  mean = v.mean(axis=1, keepdims=True).astype(out.dtype)
  return jnp.where(mask.any(axis=1)[:, None, None, None], out, mean)


def cudnn(q, k, v, mask=None, *, causal=False):
  """Computes softmax attention with cuDNN, on one device.

  cuDNN takes a mask as the number of first keys that count; any other it adds
  to the scores, as an array of their size. So the keys that count are moved to
  the front, which changes no sum over keys. Heads are padded to a multiple of 8
  features with zeros, which change no score.

  Args:
    q: queries [b t h k].
    k: keys [b s h k].
    v: values [b s h k].
    mask: bool [b s]; a row without any key sees all. None for all keys.
    causal: whether query i sees keys up to i only; without a mask.

  Returns:
    [b t h k].
  """
  (b, s), (t, _, size) = k.shape[:2], q.shape[1:]
  count = None
  if mask is not None:
    order = jnp.argsort(~mask, axis=1, stable=True)
    k, v = (_take(x, order) for x in (k, v))
    count = mask.sum(axis=1, dtype=jnp.int32)
    count = jnp.where(count == 0, s, count)
  elif s % 2 and not causal:
    count = jnp.full(b, s, jnp.int32)
  out = jax.nn.dot_product_attention(
    *map(_padded, (q, k, v)),
    scale=size**-0.5,
    is_causal=causal,
    key_value_seq_lengths=count,
    implementation="cudnn",
  )
  return out[:, :t, :, :size]


def _padded(x):
  """Pads heads to a multiple of 8 features, and to an even length.

  JAX refuses cuDNN's backward pass of odd lengths.
  """
  _, length, _, size = x.shape
  return jnp.pad(x, ((0, 0), (0, length % 2), (0, 0), (0, -size % 8)))


@jax.vmap
def _take(x, order):
  return x.at[order].get(mode="promise_in_bounds", unique_indices=True)
