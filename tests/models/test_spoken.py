"""Words reach the latents at whose time they are said, and no others."""

import functools
import types

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny
from v2a_jax.models import spoken

WIDTH = 6


def said(starts, lengths, *, seed=0, mask=None):
  """Tokens of one clip whose words are said at given times."""
  rng = np.random.default_rng(seed)
  words = jnp.asarray(rng.normal(size=(1, len(starts), WIDTH)), jnp.float32)
  mask = np.ones(len(starts), bool) if mask is None else np.asarray(mask)
  return types.SimpleNamespace(
    words=(words, jnp.asarray([starts], jnp.float32)),
    word_durations=jnp.asarray([lengths], jnp.float32),
    word_mask=jnp.asarray(mask[None]),
  )


MODULE = spoken.Spoken(WIDTH, rngs=nnx.Rngs(0))
TIMES = jnp.arange(100) * 0.02


def test_nothing_is_said_far_from_every_word_and_without_words():
  out = np.abs(np.asarray(MODULE(said([0.5], [0.3]), TIMES)))[0].max(axis=-1)
  near = (TIMES > 0.5) & (TIMES < 0.8)
  far = (TIMES < 0.25) | (TIMES > 1.05)
  assert out[near].min() > 100 * out[far].max()
  none = MODULE(said([0.5], [0.3], mask=[False]), TIMES)
  assert not np.asarray(none).any()


def test_what_is_said_is_the_closed_form():
  starts, lengths = np.array([0.2, 0.5, 1.1]), np.array([0.3, 0.25, 0.4])
  tokens = said(starts, lengths)
  t = np.asarray(TIMES, np.float64)[:, None]
  step = lambda x: 1 / (1 + np.exp(-x / spoken.EDGE))
  inside = step(t - starts) * step(starts + lengths - t)
  share = inside / np.maximum(inside.sum(axis=1, keepdims=True), 1)
  place = np.clip((t - starts) / lengths, 0, 1)
  waves = np.cos(np.pi * place[..., None] * np.arange(spoken.WAVES))
  x = share @ np.asarray(tokens.words[0][0], np.float64) @ kernel(MODULE.word)
  x = x + np.einsum("ts,tsk->tk", share, waves) @ kernel(MODULE.place)
  expected = MODULE.mlp(jnp.asarray(x[None], jnp.float32))
  np.testing.assert_allclose(MODULE(tokens, TIMES), expected, atol=1e-5)


def kernel(linear):
  return np.asarray(linear.kernel[...], np.float64)


def test_a_word_sounds_otherwise_at_its_end_than_at_its_start():
  out = np.asarray(MODULE(said([0.2], [1.0]), TIMES))[0]
  early, late = out[20], out[50]
  assert np.abs(early - late).max() > 0.1 * np.abs(early).max()


def test_predicted_times_have_a_gradient():
  tokens = said([0.5], [0.3])

  def loss(start):
    words = (tokens.words[0], start)
    moved = types.SimpleNamespace(**vars(tokens) | {"words": words})
    return jnp.square(MODULE(moved, TIMES)[:, :30]).sum()

  gradient = jax.grad(loss)(tokens.words[1])
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-4


def test_a_words_time_moves_what_either_arm_makes_of_a_clip():
  cond = tiny.conditioning(1)
  later = cond.replace(transcript_times=cond.transcript_times + 0.2)
  for model in (tiny.diffusion(), tiny.tokens()):
    first, second = (model.encode(c) for c in (cond, later))
    read = functools.partial(model.backbone.spoken, times=tiny.times(9))
    assert np.abs(read(first) - read(second)).max() > 1e-3
