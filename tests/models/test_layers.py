"""Layers against closed forms, scipy and unrolled loops."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, special

from v2a_jax.models import layers


def test_rms_norm_divides_by_the_root_mean_square_in_float32():
  x = np.random.default_rng(0).normal(size=(3, 8)) * [[1e-2], [1.0], [1e3]]
  expected = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(layers.rms_norm(jnp.asarray(x)), expected, 1e-5)
  # Squares of these are infinite in float16.
  large = layers.rms_norm(jnp.full((4,), 3e4, jnp.float16))
  assert large.dtype == jnp.float16
  np.testing.assert_allclose(large, 1.0, rtol=1e-3)


def test_rotary_turns_each_pair_by_its_own_period():
  x = np.random.default_rng(0).normal(size=(2, 5, 3, 8))
  times = np.random.default_rng(1).uniform(0, 2, (2, 5))
  periods = 0.04 * (40.0 / 0.04) ** (np.arange(4) / 3)
  turn = np.exp(2j * np.pi * times[..., None, None] / periods)
  pairs = (x[..., :4] + 1j * x[..., 4:]) * turn
  expected = np.concatenate([pairs.real, pairs.imag], axis=-1)
  out = layers.rotary(jnp.asarray(x, jnp.float32), jnp.asarray(times))
  np.testing.assert_allclose(out, expected, atol=1e-3)


def test_rotary_scores_depend_on_time_differences_only():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 5, 2, 8))
  times = jnp.asarray([[0.0, 0.1, 0.35, 0.4, 2.0]])

  def scores(shift):
    return jnp.einsum(
      "bthk,bshk->bhts",
      layers.rotary(q, times + shift),
      layers.rotary(k, times + shift),
    )

  np.testing.assert_allclose(scores(0.0), scores(3.7), atol=1e-3)
  assert np.abs(scores(0.0) - jnp.einsum("bthk,bshk->bhts", q, k)).max() > 0.1


def test_times_of_all_rows_may_be_shared():
  x = jax.random.normal(jax.random.key(0), (3, 4, 2, 8))
  times = jnp.linspace(0, 1, 4)
  np.testing.assert_array_equal(
    layers.rotary(x, times),
    layers.rotary(x, jnp.broadcast_to(times, (3, 4))),
  )


def test_sinusoidal_features_are_cosines_and_sines_of_falling_frequency():
  value = np.array([[0.0, 0.25], [0.6, 1.0]])
  frequency = 1e-4 ** (np.arange(4) / 4)
  angle = 1000 * value[..., None] * frequency
  expected = np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)
  out = layers.sinusoidal(jnp.asarray(value), 8)
  np.testing.assert_allclose(out, expected, atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_convolved_feed_forward_equals_scipys_convolution(masked):
  width, hidden, kernel = 4, 6, 3
  mlp = layers.FeedForward(width, hidden, kernel=kernel, rngs=nnx.Rngs(0))
  x = np.random.default_rng(0).normal(size=(2, 7, width))
  mask = (
    np.arange(7) < np.array([[7], [4]]) if masked else np.ones((2, 7), bool)
  )
  taps = np.asarray(mlp.up.kernel[...], np.float64)
  taps = taps.reshape(kernel, width, 2 * hidden)
  clean = np.where(mask[..., None], x, 0.0)
  wide = np.zeros((2, 7, 2 * hidden))
  for b, i, o in np.ndindex(2, width, 2 * hidden):
    full = signal.correlate(clean[b, :, i], taps[:, i, o], mode="full")
    # Output t of "full" sees inputs t - 2 to t; "same" is one step later.
    wide[b, :, o] += full[1:8]
  gate, value = np.split(wide, 2, axis=-1)
  expected = gate * special.expit(gate) * value
  expected = expected @ np.asarray(mlp.down.kernel[...], np.float64)
  out = mlp(
    jnp.asarray(x, jnp.float32), mask=jnp.asarray(mask) if masked else None
  )
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_causal_convolution_sees_the_newest_tokens_alone():
  """In one piece or in two, of which the second is given the first's end."""
  mlp = layers.FeedForward(4, 6, kernel=3, rngs=nnx.Rngs(0))
  x = jax.random.normal(jax.random.key(0), (2, 7, 4))
  past = jax.random.normal(jax.random.key(1), (2, 2, 4))
  whole = mlp(x, past=past)
  # What follows and precedes: the middle of a kernel of both sides.
  padded = jnp.concatenate([past, x], axis=1)
  np.testing.assert_allclose(whole, mlp(padded)[:, 1:-1], atol=1e-5)
  first, rest = mlp(x[:, :4], past=past), mlp(x[:, 4:], past=x[:, 2:4])
  np.testing.assert_allclose(
    jnp.concatenate([first, rest], axis=1), whole, atol=1e-5
  )


def test_modulation_is_the_identity_until_it_is_trained():
  modulation = layers.Modulation(8, 2, rank=3, rngs=nnx.Rngs(0), dtype=None)
  parts = modulation(jax.random.normal(jax.random.key(0), (2, 5, 8)))
  assert len(parts) == 6
  assert all(part.shape == (2, 5, 8) and not part.any() for part in parts)
  x = jax.random.normal(jax.random.key(1), (2, 5, 8))
  np.testing.assert_array_equal(
    layers.modulate(x, parts[0], parts[1]), layers.rms_norm(x)
  )


def test_modulation_of_low_rank_has_fewer_parameters():
  make = lambda rank: nnx.state(
    layers.Modulation(64, 3, rank=rank, rngs=nnx.Rngs(0), dtype=None)
  )
  size = lambda state: sum(x.size for x in jax.tree.leaves(state))
  bias = 9 * 64
  assert size(make(0)) == 64 * 9 * 64 + bias
  assert size(make(4)) == 64 * 4 + 4 * 9 * 64 + bias


def make_stack(depth=3, **settings):
  make = lambda rngs: layers.FeedForward(4, 6, rngs=rngs)
  return layers.Stack(make, depth, rngs=nnx.Rngs(0), **settings)


def unrolled(stack):
  """The blocks of a stack as modules of their own."""
  graphdef, state = nnx.split(stack.blocks)
  return [
    nnx.merge(graphdef, jax.tree.map(lambda w, i=i: w[i], state))
    for i in range(stack.depth)
  ]


X = jax.random.normal(jax.random.key(1), (2, 5, 4))


@pytest.mark.parametrize("unroll", [1, 2, 9])
def test_a_stack_equals_its_blocks_one_after_another(unroll):
  stack, expected = make_stack(unroll=unroll), X
  blocks = unrolled(stack)
  for block in blocks:
    expected = block(expected)
  np.testing.assert_allclose(stack(X), expected, atol=1e-6)
  assert np.abs(blocks[0](X) - blocks[1](X)).max() > 1e-2  # drawn apart


def test_a_scan_passes_each_block_its_slice_and_stacks_what_it_returns():
  stack, expected, rows = make_stack(), X, []
  gains = jnp.asarray([1.0, -2.0, 0.5])
  body = lambda block, x, gain: (x + gain * block(x), x.mean())
  out, means = stack.scan(body, X, gains)
  for block, gain in zip(unrolled(stack), gains):
    expected, row = body(block, expected, gain)
    rows.append(row)
  np.testing.assert_allclose(out, expected, atol=1e-6)
  np.testing.assert_allclose(means, jnp.stack(rows), atol=1e-6)


@pytest.mark.parametrize(
  "policy", sorted(set(layers.REMAT_POLICIES) - {"none"})
)
def test_rematerialisation_changes_neither_values_nor_gradients(policy):
  def loss(state, remat):
    stack = make_stack(remat=remat)
    nnx.update(stack, state)
    return jnp.sin(stack(X)).sum()

  state = nnx.state(make_stack())
  run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  plain, remat = run(state, "none"), run(state, policy)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  text = str(jax.make_jaxpr(lambda s: loss(s, policy))(state))
  assert "remat" in text or "checkpoint" in text


def test_a_stack_without_blocks_is_the_identity():
  stack = make_stack(0)
  assert stack(X) is X
  assert not jax.tree.leaves(nnx.state(stack))


def test_stacked_parameters_name_their_first_axis_layers():
  kernel = make_stack().blocks.up.kernel
  assert kernel.shape == (3, 4, 2, 6)
  assert kernel.out_sharding == ("layers", "embed", "parts", "mlp")
