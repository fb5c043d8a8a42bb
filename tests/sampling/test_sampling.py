"""Guidance, windows, infilling and autoregressive sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from v2a_jax.basics.settings import SettingError
from v2a_jax.batch import UNKNOWN
from v2a_jax.models.pattern import PATTERNS
from v2a_jax.objectives.corruption import Corruption
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.sampling.autoregressive import (
  LatentSampler,
  TokenSampler,
  restrict,
)
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.guidance import Guidance, combine, rescaled, spread
from v2a_jax.sampling.ode import ODESampler
from v2a_jax.sampling.solvers import SOLVERS, time_grid
from v2a_jax.sampling.windows import Windows

T = 8
KEYS = jax.vmap(jax.random.key)(jnp.arange(2))
ONE = Windows(T, T)
PATTERN = pytest.mark.parametrize("pattern", sorted(PATTERNS))


def _rows(cond, count):
  return jax.tree.map(lambda x: np.repeat(x, count, axis=0), cond)


def sample(
  sampler, model, cond, objective=None, *, keys=KEYS, windows=ONE, known=None
):
  """Steps of windows of T, compiled as one."""
  return tiny.sample(
    sampler,
    model,
    objective,
    cond,
    keys=keys,
    times=tiny.times(windows.length),
    windows=windows,
    known=known,
  )


def test_scale_1_is_no_guidance_and_costs_no_branch():
  cond = tiny.conditioning()
  stacked, weights = Guidance().branches(cond)
  assert weights.tolist() == [1.0]
  jax.tree.map(np.testing.assert_array_equal, stacked, cond)


def test_guidance_weights_by_hand():
  cond = tiny.conditioning()
  negative = (cond.transcript, cond.transcript_mask)
  stacked, weights = Guidance(
    video=3.0, prompt=1.5, negative_prompt=2.0
  ).branches(cond, negative)
  np.testing.assert_allclose(weights, [4.5, -2.0, -0.5, -1.0])
  assert float(weights.sum()) == pytest.approx(1.0)
  b = 2
  assert not stacked.frame_mask[b : 2 * b].any()
  assert not stacked.prompt_mask[2 * b : 3 * b].any()
  np.testing.assert_array_equal(stacked.prompt[3 * b :], cond.transcript)
  assert stacked.frame_mask[3 * b :].all()  # the picture stays
  outputs = jax.random.normal(jax.random.key(0), (4 * b, 3))
  by_hand = sum(w * outputs[i * b : (i + 1) * b] for i, w in enumerate(weights))
  np.testing.assert_allclose(combine(outputs, weights), by_hand, rtol=1e-5)
  same = combine(spread(outputs[:b], weights), weights)
  np.testing.assert_allclose(same, outputs[:b], rtol=1e-4)


@pytest.mark.parametrize("with_negative", [False, True])
def test_joint_guidance_leaves_from_the_negative_prompt_alone(with_negative):
  cond = tiny.conditioning()
  negative = (cond.transcript, cond.transcript_mask)
  stacked, weights = Guidance(joint=4.5).branches(
    cond, negative if with_negative else None
  )
  np.testing.assert_allclose(weights, [4.5, -3.5])
  b = 2
  jax.tree.map(
    lambda x, y: np.testing.assert_array_equal(x[:b], y), stacked, cond
  )
  for mask in (stacked.frame_mask, stacked.transcript_mask):
    assert not mask[b:].any()
  assert (stacked.presence[b:] == UNKNOWN).all()
  assert stacked.prompt_mask[b:].all() == with_negative
  if with_negative:
    np.testing.assert_array_equal(stacked.prompt[b:], cond.transcript)
  both, weights = Guidance(video=2.0, joint=3.0).branches(cond, None)
  np.testing.assert_allclose(weights, [4.0, -1.0, -2.0])
  assert both.prompt_mask[b : 2 * b].all() and not both.frame_mask[b:].any()


@pytest.mark.parametrize("total", [1, 8, 9, 12, 13, 31])
def test_windows_cover_everything_and_merge_undoes_split(total):
  windows = Windows.cover(total, length=8, overlap=0.5)
  assert windows.total >= total
  assert windows.count == 1 or windows.total - windows.stride < total
  x = jax.random.normal(jax.random.key(0), (3, windows.total, 2))
  parts = windows.split(x)
  assert parts.shape == (3 * windows.count, 8, 2)
  np.testing.assert_allclose(windows.merge(parts), x, atol=1e-5)


def test_a_clips_latents_depend_on_its_own_seed_only():
  model, cond = tiny.diffusion(), tiny.conditioning()
  sampler = ODESampler(num_steps=3)
  run = lambda cond, keys: sample(sampler, model, cond, Diffusion(), keys=keys)
  both = run(cond, KEYS)
  alone = run(jax.tree.map(lambda x: x[1:], cond), KEYS[1:])
  np.testing.assert_allclose(both[1:], alone, atol=1e-5)
  other = run(cond, KEYS[::-1])
  assert np.abs(both - other).max() > 0.1


class ByWindow:
  """Has a constant velocity: the number of the window in its clip."""

  class backbone:
    class config:
      channels = tiny.CHANNELS

  encode = staticmethod(lambda cond: cond)

  def __call__(self, x, time, tokens, **_):
    return x * 0 + jnp.tile(jnp.arange(3.0), len(x) // 3)[:, None, None]


def test_velocities_of_diffusion_windows_are_averaged_where_they_overlap():
  windows = Windows(T, T // 2, 3)
  cond = _rows(tiny.conditioning(), 3)
  latents = sample(
    ODESampler(num_steps=3), ByWindow(), cond, Diffusion(), windows=windows
  )
  shape = (windows.total, tiny.CHANNELS)
  noise = jax.vmap(lambda key: jax.random.normal(key, shape))(KEYS)
  ramp = np.array([1, 2, 3, 4, 4, 3, 2, 1])
  weights = [np.pad(ramp, (start, 8 - start)) for start in (0, 4, 8)]
  mean = (weights[1] + 2 * weights[2]) / sum(weights)
  wanted = np.broadcast_to(mean[:, None], noise.shape)
  np.testing.assert_allclose(latents - noise, wanted, atol=1e-5)


@PATTERN
def test_token_sampling_equals_step_by_step_argmax(pattern):
  """At low temperature sampling is greedy, which the whole-sequence model
  can check: each code is the best one given all before it."""
  model, cond = tiny.tokens(pattern=pattern), tiny.conditioning()
  sampler = TokenSampler(temperature=1e-6)
  codes = sample(sampler, model, cond)
  assert codes.shape == (2, T, tiny.BOOKS)
  score = jax.jit(lambda c: model(c, model.encode(cond), times=tiny.times(T)))
  np.testing.assert_array_equal(jnp.argmax(score(codes), axis=-1), codes)


@PATTERN
def test_token_windows_continue_the_last_one(pattern):
  model, windows = tiny.tokens(pattern=pattern), Windows(T, 3, 3)
  cond = _rows(tiny.conditioning(), 3)
  sampler = TokenSampler(temperature=1e-6)
  codes = sample(sampler, model, cond, windows=windows)
  assert codes.shape == (2, windows.total, tiny.BOOKS)
  assert int(codes.min()) >= 0 and int(codes.max()) < tiny.CODES
  # Window 1 holds the end of window 0 and continues greedily from it.
  second = codes[:, 3 : 3 + T]
  row = jax.tree.map(lambda x: x[1::3], cond)
  score = jax.jit(lambda c: model(c, model.encode(row), times=tiny.times(T)))
  best = jnp.argmax(score(second), axis=-1)
  np.testing.assert_array_equal(best[:, T - 3 :], second[:, T - 3 :])


def resolved(model, cond, latents, guidance):
  """What the head samples from zero noise for each of the latents [b t c],
  given all before it by the whole-sequence model."""
  b, t, _ = latents.shape
  cond, weights = guidance.branches(cond)
  z = model.backbone.vectors(
    spread(latents, weights), model.encode(cond), times=tiny.times(t)
  )

  def velocity(x, time):
    x = spread(x, weights)[:, :, None]
    velocities = model.backbone.head(x, jnp.full(x.shape[:3], time), z)[:, :, 0]
    return combine(velocities, weights)

  return SOLVERS["euler"](
    velocity,
    jnp.zeros_like(latents),
    grid=time_grid(4),
    corruption=Corruption(),
  )


def test_latents_at_temperature_0_are_those_of_the_whole_sequence():
  model, cond = tiny.latents(), tiny.conditioning()
  guidance = Guidance(video=2.5)
  latents = sample(
    LatentSampler(temperature=0.0, num_steps=4, guidance=guidance),
    model,
    cond,
    NextLatents(),
  )
  assert latents.shape == (2, T, tiny.CHANNELS)
  check = jax.jit(lambda latents: resolved(model, cond, latents, guidance))
  np.testing.assert_allclose(check(latents), latents, atol=1e-4)
  plain = jax.jit(lambda latents: resolved(model, cond, latents, Guidance()))
  assert np.abs(plain(latents) - latents).max() > 1e-2


def test_windows_of_latents_continue_the_last_one():
  model, windows = tiny.latents(), Windows(T, 3, 3)
  cond = _rows(tiny.conditioning(), 3)
  latents = sample(
    LatentSampler(temperature=0.0, num_steps=4),
    model,
    cond,
    NextLatents(),
    windows=windows,
  )
  assert latents.shape == (2, windows.total, tiny.CHANNELS)
  second = latents[:, 3 : 3 + T]
  row = jax.tree.map(lambda x: x[1::3], cond)
  check = jax.jit(lambda latents: resolved(model, row, latents, Guidance()))
  new = slice(T - 3, T)
  np.testing.assert_allclose(check(second)[:, new], second[:, new], atol=1e-4)


def test_latents_depend_on_their_own_seed_only():
  model, cond = tiny.latents(), tiny.conditioning()
  run = lambda cond, keys: sample(
    LatentSampler(num_steps=2), model, cond, NextLatents(), keys=keys
  )
  both = run(cond, KEYS)
  alone = run(jax.tree.map(lambda x: x[1:], cond), KEYS[1:])
  np.testing.assert_allclose(both[1:], alone, atol=1e-4)
  assert np.abs(both - run(cond, KEYS[::-1])).max() > 0.1


class Walk:
  """The exact model of x_i ~ N(m + r x_{i-1}, s²), x_{-1} = 0; its vector of a
  step is the mean of the next latent."""

  m, r, s = 0.4, 0.8, 0.5
  frame = jax.ShapeDtypeStruct((2,), jnp.float32)

  def start(self, tokens, *, times):
    return ()

  def step(self, before, index, cache):
    return self.m + self.r * before, cache

  def head(self, noisy, time, z):
    t, mean = time[..., None], z[..., None, :]
    variance = (t * self.s) ** 2 + (1 - t) ** 2
    gain = (t * self.s**2 - (1 - t)) / variance
    return mean + gain * (noisy - t * mean)


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_known_process_of_latents_is_sampled(solver, temperature):
  """Each frame has its conditional mean, and variance (temperature s)²."""

  class Model:
    backbone = Walk()
    encode = staticmethod(lambda cond: cond)

  b, t = 4000, 5
  latents = tiny.sample(
    LatentSampler(num_steps=40, solver=solver, temperature=temperature),
    Model(),
    NextLatents(),
    tiny.conditioning(b, n=1, size=1, words=1),
    keys=jax.vmap(jax.random.key)(jnp.arange(b)),
    times=tiny.times(t),
    windows=Windows(t, t),
  )
  latents = np.asarray(latents, np.float64)
  before = np.pad(latents, ((0, 0), (1, 0), (0, 0)))[:, :-1]
  rest = latents - (Walk.m + Walk.r * before)
  np.testing.assert_allclose(rest.mean(axis=0), 0.0, atol=0.03)
  spread_ = temperature * Walk.s
  np.testing.assert_allclose(rest.std(axis=0), spread_, rtol=0.05)
  # Noise of frames and channels is independent.
  flat = rest.reshape(b, -1)
  np.testing.assert_allclose(
    np.corrcoef(flat.T), np.eye(flat.shape[1]), atol=0.07
  )


@pytest.mark.parametrize(
  "kind", ["infill", "diffusion", "delay", "parallel", "latents"]
)
def test_known_steps_are_kept_and_the_others_depend_on_them(kind):
  windows = Windows(T, T // 2, 2)
  cond = _rows(tiny.conditioning(), 2)
  mask = np.zeros((2, windows.total), bool)
  mask[0, :5], mask[1, 7:] = True, True
  if kind in PATTERNS:
    model, sampler = tiny.tokens(pattern=kind), TokenSampler()
    values = np.full((2, windows.total, tiny.BOOKS), 3, np.int32)
  else:
    settings = dict(num_steps=2, guidance=Guidance(video=2.0))
    if kind == "latents":
      model, sampler = tiny.latents(), LatentSampler(**settings)
    else:
      model = tiny.diffusion(infill=kind == "infill")
      sampler = ODESampler(**settings)
    values = np.full((2, windows.total, tiny.CHANNELS), 0.7, np.float32)
  run = lambda known: sample(
    sampler, model, cond, Diffusion(), windows=windows, known=known
  )
  latents, free = run((values, mask)), run(None)
  np.testing.assert_array_equal(latents[mask], values[mask])
  assert not np.array_equal(free[mask], values[mask])
  assert not np.array_equal(latents[~mask], values[~mask])
  assert not np.array_equal(latents[~mask], free[~mask])


def test_steps_that_are_held_for_a_while_go_on_from_there():
  model, cond = tiny.diffusion(), tiny.conditioning()
  values = np.full((2, T, tiny.CHANNELS), 0.7, np.float32)

  def run(num_steps, **draw):
    return tiny.sample(
      ODESampler(num_steps=num_steps),
      model,
      Diffusion(),
      cond,
      keys=KEYS,
      times=tiny.times(T),
      windows=ONE,
      **draw,
    )

  held = lambda until: run(8, known=(values, np.full((2, T), until)))
  # Of eight steps the fifth, from 0.5 to 0.625, is the last that is held.
  begun = run(3, like=jnp.asarray(values), begin=0.625)
  np.testing.assert_allclose(held(np.float32(0.55)), begun, atol=1e-5)
  np.testing.assert_allclose(held(np.float32(0)), run(8), atol=1e-5)
  np.testing.assert_array_equal(held(np.float32(1)), values)


def test_restrict_keeps_the_likeliest():
  logits = jnp.log(jnp.asarray([0.5, 0.3, 0.15, 0.05]))
  kept = lambda **k: np.isfinite(restrict(logits, **k)).tolist()
  assert kept(top_k=2) == [True, True, False, False]
  assert kept(top_p=0.75) == [True, True, False, False]
  assert kept(top_p=0.5) == [True, False, False, False]
  assert kept() == [True] * 4
  cold = jax.nn.softmax(restrict(logits, temperature=0.5))
  np.testing.assert_allclose(
    cold, np.square([0.5, 0.3, 0.15, 0.05]) / 0.365, rtol=1e-4
  )


def test_samplers_are_hashable_settings():
  sampler = ODESampler(num_steps=4, guidance=Guidance(video=2.0))
  assert hash(sampler) == hash(dataclasses.replace(sampler))


def test_what_comes_after_a_clip_does_not_change_it():
  """The noise after the end is another; clips end in the second window."""
  model, windows = tiny.diffusion(), Windows(T, T // 2, count=2)
  sampler = ODESampler(num_steps=3, guidance=Guidance(video=2.0))
  cond = _rows(tiny.conditioning(), windows.count)
  ends = np.array([9, 11])
  mask = np.arange(windows.total) < ends[:, None]
  shape = (2, windows.total, model.backbone.config.channels)
  first, second = np.random.default_rng(0).normal(size=(2, *shape))
  second = np.where(mask[..., None], first, second).astype(np.float32)

  def run(noise, mask):
    draw = Draw(keys=KEYS, times=tiny.times(T), windows=windows, mask=mask)
    carry = jax.jit(lambda x: sampler.carry(x, model, Diffusion(), cond, draw))
    return np.asarray(carry(noise.astype(np.float32)))

  seen, again = (run(noise, mask) for noise in (first, second))
  np.testing.assert_allclose(seen[mask], again[mask], atol=1e-6)
  assert np.abs(run(first, None) - run(second, None))[mask].max() > 1e-3


def test_guidance_of_an_interval_is_none_outside_of_it():
  model, cond = tiny.diffusion(), tiny.conditioning()

  def run(scale, **settings):
    guidance = Guidance(video=scale)
    sampler = ODESampler(num_steps=4, guidance=guidance, **settings)
    return np.asarray(sample(sampler, model, cond, Diffusion()))

  plain, guided = run(1.0), run(3.0)
  np.testing.assert_allclose(run(3.0, guide_from=0.9), plain, atol=1e-5)
  np.testing.assert_allclose(run(3.0, guide_to=0.76), guided, atol=1e-5)
  part = run(3.0, guide_from=0.2, guide_to=0.6)  # steps at 0.25 and 0.5
  assert min(np.abs(part - plain).max(), np.abs(part - guided).max()) > 1e-3
  with pytest.raises(SettingError, match="guide_to=0.2 is not in"):
    ODESampler(guide_from=0.5, guide_to=0.2)


def test_rescaled_guidance_has_the_deviation_of_no_guidance():
  outputs = jax.random.normal(jax.random.key(3), (4, 9, 5))
  weights = jnp.asarray([4.0, -3.0])
  guided = combine(outputs, weights)
  deviation = lambda x: np.asarray(x).reshape(2, -1).std(axis=1)
  whole = rescaled(guided, outputs, 1.0)
  np.testing.assert_allclose(deviation(whole), deviation(outputs[:2]), 1e-5)
  half = rescaled(guided, outputs, 0.5)
  np.testing.assert_allclose(half, (guided + whole) / 2, rtol=1e-5)
  model, cond = tiny.diffusion(), tiny.conditioning()
  sampler = ODESampler(
    num_steps=3, guidance=Guidance(video=4.0), rescale_guidance=0.7
  )
  assert np.isfinite(sample(sampler, model, cond, Diffusion())).all()
