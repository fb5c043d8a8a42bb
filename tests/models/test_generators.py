"""Generators: masks, dropped conditions, causality and cached decoding."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from v2a_jax.models.pattern import PATTERNS

T = 9
CASES = [*((pattern, 1) for pattern in sorted(PATTERNS)), ("delay", 3)]
EACH = pytest.mark.parametrize("pattern, kernel", CASES)


def _noisy(b=2, t=T, seed=3):
  return jax.random.normal(jax.random.key(seed), (b, t, tiny.CHANNELS))


def _codes(b=2, t=T, seed=3):
  return jax.random.randint(
    jax.random.key(seed), (b, t, tiny.BOOKS), 0, tiny.CODES
  )


@nnx.jit
def _velocity(model, cond, noisy, mask=None):
  time = jnp.linspace(0.7, 0.2, noisy.shape[0])
  times = tiny.times(noisy.shape[1])
  return model(noisy, time, model.encode(cond), times=times, mask=mask)


@nnx.jit
def _score(model, cond, codes):
  return model(codes, model.encode(cond), times=tiny.times(T))


@nnx.jit
def _vectors(model, cond, latents):
  times = tiny.times(latents.shape[1])
  return model.backbone.vectors(latents, model.encode(cond), times=times)


@nnx.jit
def _start(model, cond):
  return model.backbone.start(model.encode(cond), times=tiny.times(T))


def test_velocity_of_an_example_does_not_depend_on_its_batch():
  model, cond, noisy = tiny.diffusion(), tiny.conditioning(), _noisy()
  both = _velocity(model, cond, noisy)
  one = jax.tree.map(lambda x: x[:1], cond)
  alone = _velocity(model, one, noisy[:1])
  np.testing.assert_allclose(both[:1], alone, atol=1e-5)


def test_velocity_does_not_depend_on_masked_inputs():
  model, cond, noisy = tiny.diffusion(), tiny.conditioning(), _noisy()
  cond = cond.replace(
    frame_mask=np.arange(6)[None] < np.array([[4], [6]]),
    prompt_mask=np.arange(4)[None] < np.array([[2], [3]]),
  )
  mask = jnp.arange(T)[None] < jnp.asarray([[6], [9]])
  plain = _velocity(model, cond, noisy, mask)
  frames = cond.frames.copy()
  frames[0, 4:] = 255
  prompt = cond.prompt.copy()
  prompt[0, 2:] = 7
  spoiled = _velocity(
    model,
    cond.replace(frames=frames, prompt=prompt),
    jnp.where(mask[..., None], noisy, 9.0),
    mask,
  )
  np.testing.assert_allclose(plain[0, :6], spoiled[0, :6], atol=1e-5)


def test_shifting_every_clock_changes_nothing():
  model, noisy = tiny.diffusion(), _noisy()
  cond = tiny.conditioning().without("prompt", "transcript")
  later = cond.replace(frame_times=cond.frame_times + 5.0)
  # Nulls of absent texts stay at time 0, so they are made zero.
  model.conditioner.null_prompt[...] *= 0
  model.conditioner.null_transcript[...] *= 0

  @jax.jit
  def velocity(cond, late):
    tokens = model.encode(cond)
    tokens = dataclasses.replace(tokens, text_times=tokens.text_times + late)
    time = jnp.linspace(0.2, 0.7, 2)
    return model(noisy, time, tokens, times=tiny.times(T) + late)

  np.testing.assert_allclose(
    velocity(cond, 0.0), velocity(later, 5.0), atol=2e-3
  )


@pytest.mark.parametrize("name", ["video", "prompt", "transcript", "presence"])
def test_every_condition_matters_and_can_be_dropped(name):
  model, cond, noisy = tiny.diffusion(), tiny.conditioning(), _noisy()
  full = _velocity(model, cond, noisy)
  dropped = _velocity(model, cond.without(name), noisy)
  assert np.abs(full - dropped).max() > 1e-3
  other = tiny.conditioning(seed=9)
  field = {"video": "frames"}.get(name, name)
  changed = cond.replace(**{field: getattr(other, field)}).without(name)
  np.testing.assert_allclose(
    dropped, _velocity(model, changed, noisy), atol=1e-5
  )


def test_dropping_is_per_example():
  cond = tiny.conditioning()
  half = cond.without("video", where=np.array([True, False]))
  assert not half.frame_mask[0].any() and half.frame_mask[1].all()


def test_any_frame_rate_is_read_at_the_latents_times():
  model = tiny.diffusion()
  tokens = jax.jit(model.encode)(tiny.conditioning())
  frame = tokens.video_times[:1, 2]
  np.testing.assert_allclose(
    tokens.sync_at(frame)[0, 0], tokens.sync[0, 2], atol=1e-2
  )
  far = tokens.sync_at(jnp.asarray([100.0]))
  np.testing.assert_allclose(far[:, 0], tokens.sync[:, -1], atol=1e-5)


@EACH
def test_token_model_is_causal_in_its_pattern(pattern, kernel):
  model = tiny.tokens(pattern=pattern, mlp_kernel=kernel)
  cond = tiny.conditioning()
  codes = _codes()
  plain = _score(model, cond, codes)
  i, k = 4, 1
  changed = codes.at[:, i, k].set((codes[:, i, k] + 1) % tiny.CODES)
  other = _score(model, cond, changed)
  moved = np.abs(plain - other).max(axis=(0, 3)) > 1e-6
  late = {"delay": np.arange(tiny.BOOKS), "parallel": 0}[pattern]
  step = np.arange(T)[:, None] + np.broadcast_to(late, tiny.BOOKS)
  assert not moved[step <= step[i, k]].any()
  assert moved[step > step[i, k]].all()


@EACH
def test_cached_decoding_equals_the_whole_sequence(pattern, kernel):
  model = tiny.tokens(pattern=pattern, mlp_kernel=kernel)
  cond = tiny.conditioning()
  codes = _codes()
  expected = _score(model, cond, codes)
  backbone = model.backbone
  laid = backbone.pattern.lay_out(codes, backbone.pad)
  cache = _start(model, cond)
  before, rows = jnp.full_like(laid[:, 0], backbone.pad), []
  step = jax.jit(backbone.step)
  for s in range(laid.shape[1]):
    logits, cache = step(before, s, cache)
    rows.append(logits)
    before = laid[:, s]
  stepped = backbone.pattern.collect(jnp.stack(rows, axis=1))
  np.testing.assert_allclose(stepped, expected, atol=1e-4)


def test_vectors_of_latents_are_causal():
  model = tiny.latents(mlp_kernel=3)
  cond, latents = tiny.conditioning(), _noisy()
  plain = _vectors(model, cond, latents)
  other = _vectors(model, cond, latents.at[:, 4].add(1.0))
  moved = np.abs(plain - other).max(axis=(0, 2)) > 1e-6
  assert moved.tolist() == [i > 4 for i in range(T)]


def test_cached_decoding_of_latents_equals_the_whole_sequence():
  model = tiny.latents(mlp_kernel=3)
  cond, latents = tiny.conditioning(), _noisy()
  cache = _start(model, cond)
  before, rows = jnp.full_like(latents[:, 0], 9.0), []
  step = jax.jit(model.backbone.step)
  for i in range(T):
    z, cache = step(before, i, cache)
    rows.append(z)
    before = latents[:, i]
  np.testing.assert_allclose(
    jnp.stack(rows, axis=1), _vectors(model, cond, latents), atol=1e-5
  )


@pytest.mark.parametrize("make", [tiny.tokens, tiny.latents])
def test_autoregression_depends_on_neither_batch_nor_masked_conditions(make):
  model, cond = make(), tiny.conditioning()
  run = _score if make is tiny.tokens else _vectors
  past = _codes() if make is tiny.tokens else _noisy()
  cond = cond.replace(frame_mask=np.arange(6)[None] < np.array([[6], [4]]))
  both = run(model, cond, past)
  frames = cond.frames.copy()
  frames[1, 4:] = 255
  alone = jax.tree.map(lambda x: x[1:], cond.replace(frames=frames))
  np.testing.assert_allclose(both[1:], run(model, alone, past[1:]), atol=1e-5)
  unlike = run(model, cond.without("video"), past)
  assert np.abs(both - unlike).max() > 1e-3


def test_the_head_sees_its_own_frame_only():
  model, cond, latents = tiny.latents(), tiny.conditioning(), _noisy()
  noisy = jnp.stack([_noisy(seed=s) for s in (5, 6)], axis=2)
  time = jnp.full(noisy.shape[:3], 0.4)
  run = jax.jit(
    lambda noisy, time: model(
      latents, model.encode(cond), times=tiny.times(T), noisy=noisy, time=time
    )
  )
  plain = run(noisy, time)
  assert plain.shape == (2, T, 2, tiny.CHANNELS)
  for other in (
    run(noisy.at[:, 3, 1].add(1.0), time),
    run(noisy, time.at[:, 3, 1].add(0.3)),
  ):
    moved = np.abs(plain - other).max(axis=(0, 3)) > 1e-6
    assert np.argwhere(moved).tolist() == [[3, 1]]
