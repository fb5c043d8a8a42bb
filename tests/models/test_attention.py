"""Attention against a float64 softmax, and its invariances."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from v2a_jax.models import attention
from v2a_jax.models.attend import attend
from v2a_jax.models.config import TransformerConfig

B, T, S, HEADS, SIZE = 2, 5, 7, 3, 4
WIDTH = HEADS * SIZE


def softmax_attention(q, k, v, mask=None):
  """softmax(q k^T / sqrt(size)) v in float64, one head at a time."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  out = np.zeros((*q.shape[:3], v.shape[-1]))
  for b, h in np.ndindex(q.shape[0], q.shape[2]):
    scores = q[b, :, h] @ k[b, :, h].T / np.sqrt(q.shape[-1])
    if mask is not None:
      scores = np.where(np.broadcast_to(mask[b], scores.shape), scores, -np.inf)
    out[b, :, h] = special.softmax(scores, axis=-1) @ v[b, :, h]
  return out.reshape(*q.shape[:2], -1)


@pytest.fixture
def qkv():
  draw = lambda i, t: jax.random.normal(jax.random.key(i), (B, t, HEADS, SIZE))
  return draw(0, T), draw(1, S), draw(2, S)


@pytest.mark.parametrize("kind", ["none", "keys", "pairs", "shared"])
def test_attention_is_a_softmax_over_the_keys_of_its_mask(qkv, kind):
  rng = np.random.default_rng(0)
  shape = {"keys": (B, S), "pairs": (B, T, S), "shared": (1, T, S)}.get(kind)
  mask = None
  if shape:
    mask = rng.uniform(size=shape) < 0.6
    mask[..., 0] = True
  rows = mask
  if kind == "keys":
    rows = mask[:, None]
  elif kind == "shared":
    rows = np.repeat(mask, B, axis=0)
  out = attend(*qkv, mask=None if mask is None else jnp.array(mask))
  np.testing.assert_allclose(out, softmax_attention(*qkv, rows), atol=1e-5)


def test_a_row_without_any_key_gets_the_mean_of_the_values(qkv):
  mask = jnp.zeros((B, S), bool)
  out = attend(*qkv, mask=mask)
  mean = np.asarray(qkv[2]).mean(axis=1).reshape(B, 1, -1)
  np.testing.assert_allclose(out, np.repeat(mean, T, axis=1), atol=1e-5)


def test_masked_keys_and_values_do_not_matter(qkv):
  q, k, v = qkv
  mask = jnp.arange(S)[None] < jnp.asarray([[4], [7]])
  hidden = ~mask[..., None, None]
  np.testing.assert_allclose(
    attend(q, k, v, mask=mask),
    attend(
      q, jnp.where(hidden, 100.0, k), jnp.where(hidden, 9.0, v), mask=mask
    ),
    atol=1e-6,
  )


def reference_heads(x, kernel, norms, times, parts):
  """Projects, normalises per head and rotates as complex numbers, float64."""
  x = np.tensordot(np.asarray(x, np.float64), np.asarray(kernel), axes=1)
  x = x.reshape(*x.shape[:2], parts, HEADS, SIZE)
  out = []
  for i, norm in enumerate(norms):
    y = x[:, :, i]
    if norm is not None:
      y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(norm)
      periods = np.geomspace(0.04, 40.0, SIZE // 2)
      turn = np.exp(2j * np.pi * np.asarray(times)[..., None, None] / periods)
      z = (y[..., : SIZE // 2] + 1j * y[..., SIZE // 2 :]) * turn
      y = np.concatenate([z.real, z.imag], axis=-1)
    out.append(y)
  return out


@pytest.fixture
def x():
  return jax.random.normal(jax.random.key(3), (B, T, WIDTH))


@pytest.fixture
def times():
  return np.sort(np.random.default_rng(1).uniform(0, 4, (B, T)), axis=1)


def stirred(module, seed=0):
  """The same module with random weights, gains included."""
  graphdef, state = nnx.split(module)
  rng = np.random.default_rng(seed)
  draw = lambda w: jnp.asarray(w + 0.3 * rng.normal(size=w.shape), w.dtype)
  return nnx.merge(graphdef, jax.tree.map(draw, state))


def test_self_attention_normalises_and_rotates_queries_and_keys(x, times):
  module = stirred(attention.Projection(WIDTH, HEADS, rngs=nnx.Rngs(0)))
  norms = (module.q_norm.scale[...], module.k_norm.scale[...], None)
  reference = reference_heads(x, module.qkv.kernel[...], norms, times, 3)
  for out, expected in zip(module(x, jnp.asarray(times)), reference):
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_cross_attention_does_so_with_two_streams(x, times):
  module = stirred(attention.CrossProjection(WIDTH, HEADS, rngs=nnx.Rngs(0)))
  (q,) = reference_heads(
    x, module.q.kernel[...], [module.q_norm.scale[...]], times, 1
  )
  k, v = reference_heads(
    x, module.kv.kernel[...], [module.k_norm.scale[...], None], times, 2
  )
  times = jnp.asarray(times)
  np.testing.assert_allclose(module.queries(x, times), q, atol=1e-3)
  for out, expected in zip(module.keys(x, times), (k, v)):
    np.testing.assert_allclose(out, expected, atol=1e-3)


@pytest.fixture
def encoder():
  config = TransformerConfig(width=WIDTH, num_heads=HEADS, depth=2, mlp_dim=8)
  return stirred(attention.self_attention_stack(config, 2, rngs=nnx.Rngs(0)))


def test_an_encoder_knows_order_by_times_alone(encoder, x, times):
  mask = jnp.arange(T)[None] < jnp.asarray([[T], [T - 2]])
  run = jax.jit(encoder)
  plain = run(x, jnp.asarray(times), mask)
  order = np.random.default_rng(2).permutation(T)
  mixed = run(x[:, order], jnp.asarray(times)[:, order], mask[:, order])
  np.testing.assert_allclose(mixed, plain[:, order], atol=1e-4)
  still = run(x[:, order], jnp.asarray(times), mask[:, order])
  assert np.abs(still - plain[:, order]).max() > 1e-2


def test_an_encoder_block_is_prenorm_attention_and_swiglu(encoder, x, times):
  graphdef, state = nnx.split(encoder.blocks)
  block = nnx.merge(graphdef, jax.tree.map(lambda w: w[0], state))
  weights = lambda w: np.asarray(w[...], np.float64)
  norm = lambda y, module: (
    y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * weights(module.scale)
  )
  own = block.attention
  scales = (own.q_norm.scale[...], own.k_norm.scale[...], None)
  expected = np.asarray(x, np.float64)
  q, k, v = reference_heads(
    norm(expected, block.norm_attention), own.qkv.kernel[...], scales, times, 3
  )
  expected = expected + softmax_attention(q, k, v) @ weights(own.out.kernel)
  gate, value = (
    norm(expected, block.norm_mlp) @ weights(block.mlp.up.kernel)[:, i]
    for i in range(2)
  )
  expected = expected + gate * special.expit(gate) * value @ weights(
    block.mlp.down.kernel
  )
  out = block(x, jnp.asarray(times), None)
  np.testing.assert_allclose(out, expected, atol=2e-4)


def test_bfloat16_changes_the_products_only(x):
  """Norms, angles and softmax stay float32, so large times keep their phase."""
  make = lambda dtype: attention.Projection(
    WIDTH, HEADS, rngs=nnx.Rngs(0), dtype=dtype
  )
  times = jnp.full((B, T), 1000.01)
  q, _, _ = make(jnp.bfloat16)(x, times)
  expected, _, _ = make(jnp.float32)(x, times)
  assert q.dtype == jnp.bfloat16
  error = np.asarray(q, np.float32) - expected
  assert np.sqrt(np.mean(error**2) / np.mean(np.square(expected))) < 0.02
