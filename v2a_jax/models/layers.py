"""The layers that every transformer here is made of.

Parameters carry logical axis names (`parallel/sharding.py` maps them to the
mesh). Norms, softmax and rotary angles are float32 whatever `dtype` is.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

from v2a_jax.parallel import rows
from v2a_jax.parallel.sharding import partitioned, split_by

_lecun = nnx.initializers.lecun_normal()
_zeros = nnx.initializers.zeros_init()

# What is kept for the backward pass; the rest is computed again. `attention`
# keeps its outputs beside each block's input, `offload` the latter alone in the
# host's memory.
BLOCK_INPUT = "block_input"
REMAT_POLICIES = {
  "none": None,
  "attention": jax.checkpoint_policies.save_only_these_names("attended"),
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[BLOCK_INPUT],
    offload_src="device",
    offload_dst="pinned_host",
  ),
}


def dense(
  features_in: int,
  features_out: int,
  *,
  axes: tuple[str | None, str | None],
  rngs: nnx.Rngs,
  use_bias: bool = False,
  zero: bool = False,
  dtype: Any = None,
) -> nnx.Linear:
  """Makes a linear map whose kernel [in, out] has logical axes `axes`."""
  init = _zeros if zero else _lecun
  return nnx.Linear(
    features_in,
    features_out,
    use_bias=use_bias,
    kernel_init=partitioned(init, axes),
    kernel_metadata=rows.used_in(dtype),
    bias_init=partitioned(_zeros, (axes[1],)),
    dtype=dtype,
    rngs=rngs,
  )


def fused(
  features_in: int,
  parts: int,
  features: int,
  *,
  axis: str | None,
  rngs: nnx.Rngs,
  use_bias: bool = False,
  dtype: Any = None,
) -> nnx.LinearGeneral:
  """Makes `parts` linear maps of one input that run as one.

  Each part is split over the mesh by itself, so that a device holds the same
  features of all parts: the same heads of queries, keys and values.

  Args:
    features_in: number of features of the input.
    parts: number of maps.
    features: number of features that each gives.
    axis: logical axis of those; None where they are not split.
    rngs: random stream of the weights.
    use_bias: whether each adds a bias.
    dtype: dtype of the computation.

  Returns:
    A map [... features_in] to [... parts features].
  """
  return nnx.LinearGeneral(
    features_in,
    (parts, features),
    use_bias=use_bias,
    kernel_init=partitioned(_lecun, ("embed", "parts", axis)),
    kernel_metadata=rows.used_in(dtype),
    bias_init=partitioned(_zeros, ("parts", axis)),
    dtype=dtype,
    rngs=rngs,
  )


def learned(shape, *, axes, rngs: nnx.Rngs, scale: float = 0.02) -> nnx.Param:
  """Makes a free parameter, normal with standard deviation `scale`."""
  init = partitioned(nnx.initializers.normal(scale), axes)
  return nnx.Param(init(rngs.params(), shape, jnp.float32))


def rms_norm(x, *, epsilon: float = 1e-6):
  """Returns x / rms(x) over the last axis, in float32 (arXiv:1910.07467)."""
  y = x.astype(jnp.float32)
  y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
  return y.astype(x.dtype)


class RMSNorm(nnx.Module):
  """RMS norm with a learned gain over the last axis of `size`."""

  def __init__(self, size: int, *, rngs: nnx.Rngs, axis: str | None = "embed"):
    ones = nnx.initializers.ones_init()
    init = partitioned(ones, (axis,))
    self.scale = nnx.Param(init(rngs.params(), (size,), jnp.float32))

  def __call__(self, x):
    return rms_norm(x) * self.scale[...].astype(x.dtype)


def rotary(x, times, *, shortest: float = 0.04, longest: float = 40.0):
  """Rotates queries or keys by their times (arXiv:2104.09864).

  Pair i of a head is turned by 2π · times / period_i, with periods spaced
  geometrically from `shortest` to `longest` seconds. Scores thus depend on
  time differences only, whatever the rate of either token stream.

  Args:
    x: queries or keys [b t h k]; k even.
    times: [b t] or [t], seconds.
    shortest: shortest period, seconds.
    longest: longest period, seconds.
  """
  half = x.shape[-1] // 2
  ramp = jnp.arange(half, dtype=jnp.float32) / max(half - 1, 1)
  periods = shortest * (longest / shortest) ** ramp
  angle = 2 * jnp.pi * times[..., None].astype(jnp.float32) / periods
  cos, sin = jnp.cos(angle)[..., None, :], jnp.sin(angle)[..., None, :]
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  out = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return out.astype(x.dtype)


def sinusoidal(value, size: int, *, scale: float = 1000.0):
  """Returns sinusoidal features [..., size] of scalars [...] in [0, 1]."""
  half = size // 2
  # Rounded as published models have them: scale · frequency may be large.
  ramp = np.float32(np.arange(half) / half)
  frequency = 1 / np.float32(10_000.0 ** np.float64(ramp)) * np.float32(scale)
  angle = value[..., None].astype(jnp.float32) * frequency
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class FeedForward(nnx.Module):
  """SwiGLU (arXiv:2002.05202), its first map convolved over `kernel` tokens.

  A kernel of 3 along time is the conv-MLP of MMAudio (arXiv:2412.15322),
  written as one product of shifted copies, which suits matrix units.
  """

  def __init__(self, width, hidden, *, rngs, kernel=1, dtype=None):
    self.kernel = kernel
    common = dict(rngs=rngs, dtype=dtype)
    self.up = fused(width * kernel, 2, hidden, axis="mlp", **common)
    self.down = dense(hidden, width, axes=("mlp", "embed"), **common)

  def __call__(self, x, *, mask=None, past=None):
    """Maps x [b t d]; `mask` and `past` are those of `neighbours`."""
    if self.kernel > 1:
      x = neighbours(x, self.kernel, mask=mask, past=past)
    gate_value = self.up(x)
    gate, value = gate_value[..., 0, :], gate_value[..., 1, :]
    return self.down(jax.nn.silu(gate) * value)


class Modulation(nnx.Module):
  """Shift, scale and gate of adaptive norms per token (adaLN-zero,
  arXiv:2212.09748): `parts` such triples from a condition [b t d]."""

  def __init__(self, width, parts, *, rank, rngs, dtype):
    self.parts = parts
    linear = functools.partial(dense, rngs=rngs, dtype=dtype)
    self.down = linear(width, rank, axes=("embed", None)) if rank else None
    self.up = linear(
      rank or width,
      3 * parts * width,
      axes=("embed", None),
      use_bias=True,
      zero=True,
    )

  def __call__(self, condition):
    """Returns 3 · parts arrays [b t d]: shift, scale, gate, shift, ..."""
    x = jax.nn.silu(condition)
    x = self.up(x if self.down is None else self.down(x))
    return jnp.split(x, 3 * self.parts, axis=-1)


def modulate(x, shift, scale):
  """Returns rms_norm(x) · (1 + scale) + shift."""
  return rms_norm(x) * (1 + scale) + shift


def neighbours(x, kernel: int, *, mask=None, past=None):
  """Joins each token with its neighbours: [b t d] → [b t kernel·d].

  Args:
    x: [b t d].
    kernel: number of tokens that are joined; the token is the middle one.
    mask: bool [b t]; tokens with False, like those outside, are zeros.
    past: [b kernel-1 d], tokens before the first one; the token is then the last
      one that is joined.
  """
  if mask is not None:
    x = x * mask[..., None].astype(x.dtype)
  if past is not None:
    padded = jnp.concatenate([past, x], axis=1)
  else:
    before = (kernel - 1) // 2
    padded = jnp.pad(x, ((0, 0), (before, kernel - 1 - before), (0, 0)))
  shifts = [padded[:, i : i + x.shape[1]] for i in range(kernel)]
  return jnp.concatenate(shifts, axis=-1)


class Stack(nnx.Module):
  """`depth` equal blocks with stacked parameters, run by one scan.

  Compile time does not grow with depth; `unroll` trades that for speed. At
  every block's boundary the carry is split along its first axes, `axes`.
  """

  def __init__(
    self,
    make_block: Callable[[nnx.Rngs], nnx.Module],
    depth: int,
    *,
    rngs: nnx.Rngs,
    remat: str = "none",
    unroll: int = 1,
    axes: tuple[str | None, ...] = ("batch", "length"),
  ):
    self.depth, self.remat, self.unroll = depth, remat, unroll
    self.axes = axes

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(
      in_axes=0,
      out_axes=0,
      transform_metadata={nnx.PARTITION_NAME: "layers"},
    )
    def create(rngs):
      return make_block(rngs)

    self.blocks = create(rngs) if depth else None

  def __call__(self, x, *args):
    """Folds x, any pytree, through the blocks; `args` go to every block."""
    x, _ = self.scan(lambda block, x, _: (block(x, *args), None), x)
    return x

  def scan(self, body, x, per_layer=None):
    """Runs `body(block, x, slice of per_layer) -> (x, y)` block by block.

    Args:
      body: function that applies one block.
      x: carry, any pytree.
      per_layer: pytree with a leading axis of `depth`, or None.

    Returns:
      (x, ys stacked over depth); ys are None for no blocks.
    """
    if not self.depth:
      return x, None
    graphdef, state = nnx.split(self.blocks)

    def step(x, layer):
      state, extra = layer
      x = jax.tree.map(lambda a: checkpoint_name(a, BLOCK_INPUT), x)
      block = nnx.merge(graphdef, rows.whole_block(state))
      x, y = body(block, x, extra)
      return split_by(x, *self.axes), y

    policy = REMAT_POLICIES[self.remat]
    if policy is None and rows.is_split(state):
      policy = rows.gather_again
    if policy is not None:
      step = jax.checkpoint(step, policy=policy, prevent_cse=False)
    return jax.lax.scan(
      step,
      split_by(x, *self.axes),
      (state, per_layer),
      unroll=min(self.unroll, self.depth),
    )
