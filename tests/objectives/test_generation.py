"""Flow matching and next-token prediction against closed forms."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from v2a_jax.batch import UNKNOWN
from v2a_jax.objectives import base
from v2a_jax.objectives.corruption import Corruption
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.objectives.next_token import NextToken
from v2a_jax.sampling.solvers import SOLVERS, time_grid

T = 8


@dataclasses.dataclass
class Exact:
  """Knows the velocity of a path to one known point: (data - x) / (1 - t)."""

  data: jax.Array

  def encode(self, cond):
    return cond

  def __call__(self, x, time, tokens, *, times, mask, known=None):
    return (self.data - x) / (1 - time[:, None, None])


def _latents(b=2):
  return jax.random.normal(jax.random.key(5), (b, T, tiny.CHANNELS))


def test_the_true_velocity_has_no_loss():
  latents = _latents()
  loss, metrics = tiny.loss(
    Diffusion(),
    Exact(latents),
    tiny.batch(latents),
    key=jax.random.key(0),
    train=False,
  )
  assert loss.shape == (2,) and metrics["error"].shape == (2,)
  np.testing.assert_allclose(loss, 0.0, atol=1e-4)


def test_the_loss_of_zeros_is_the_variance_of_the_velocity():
  silent = lambda x, *a, **k: jnp.zeros_like(x)
  model = type(
    "Silent",
    (),
    {
      "encode": lambda self, cond: cond,
      "__call__": lambda self, *a, **k: silent(*a, **k),
    },
  )()
  latents = jnp.zeros((512, T, tiny.CHANNELS))
  batch = tiny.batch(latents, b=512)
  loss, _ = tiny.loss(
    Diffusion(), model, batch, key=jax.random.key(0), train=False
  )
  # latents = 0, so the velocity is minus unit noise.
  assert float(loss.mean()) == pytest.approx(1.0, abs=0.03)


def test_loss_ignores_latents_after_the_clip():
  model, latents = tiny.diffusion(), _latents()
  mask = np.arange(T)[None] < np.array([[5], [8]])
  batch = tiny.batch(latents, target_mask=mask)
  objective = Diffusion(cond_drop_rate=0.0)
  key = jax.random.key(0)
  plain, _ = tiny.loss(objective, model, batch, key=key, train=True)
  spoiled = batch.replace(target=jnp.where(mask[..., None], latents, 50.0))
  again, _ = tiny.loss(objective, model, spoiled, key=key, train=True)
  np.testing.assert_allclose(plain, again, rtol=1e-4)


def test_conditions_are_dropped_independently_at_their_rate():
  cond = tiny.conditioning(4000, n=1, size=8, words=1)
  kept = base.drop_conditions(cond, key=jax.random.key(0), rate=0.25)
  masks = np.stack(
    [kept.frame_mask[:, 0], kept.prompt_mask[:, 0], kept.transcript_mask[:, 0]]
  ).astype(float)
  np.testing.assert_allclose(masks.mean(axis=1), 0.75, atol=0.03)
  corr = np.corrcoef(masks)
  np.testing.assert_allclose(corr, np.eye(3), atol=0.06)


def test_all_conditions_are_dropped_together_at_their_rate():
  cond = tiny.conditioning(4000, n=1, size=8, words=1)
  cond = cond.replace(presence=np.ones_like(cond.presence))
  objective = Diffusion(cond_drop_rate=0.0, cond_drop_all_rate=0.25)
  kept = objective.drop(cond, key=jax.random.key(0), train=True)
  gone = ~np.asarray(kept.frame_mask[:, 0])
  np.testing.assert_allclose(gone.mean(), 0.25, atol=0.03)
  for mask in (kept.prompt_mask, kept.transcript_mask):
    np.testing.assert_array_equal(mask[:, 0], ~gone)
  np.testing.assert_array_equal((kept.presence == UNKNOWN).all(axis=1), gone)
  same = objective.drop(cond, key=jax.random.key(0), train=False)
  jax.tree.map(np.testing.assert_array_equal, same, cond)


def test_a_share_of_the_examples_is_given_all_but_a_hole():
  given = base.draw_known(jax.random.key(0), (6000, 50), rate=0.3)
  infilled = np.asarray(given.any(axis=1))
  assert infilled.mean() == pytest.approx(0.3, abs=0.02)
  holes = ~np.asarray(given)[infilled]
  np.testing.assert_allclose(holes.mean(), 0.5, atol=0.02)
  assert 0.08 <= holes.mean(axis=1).min() and holes.mean(axis=1).max() <= 0.92
  edges = np.abs(np.diff(np.pad(holes, ((0, 0), (1, 1))), axis=1)).sum(axis=1)
  assert set(edges) == {2}  # one hole each
  at_start, at_end = holes[:, 0].mean(), holes[:, -1].mean()
  assert at_start == pytest.approx(1 / 3, abs=0.05)
  assert at_end == pytest.approx(1 / 3, abs=0.05)


def test_known_latents_are_an_input_and_add_no_loss():
  latents = _latents()
  seen = {}

  class WrongWhereKnown(Exact):
    def __call__(self, x, time, tokens, *, times, mask, known=None):
      seen["known"] = known
      right = super().__call__(
        x, time, tokens, times=times, mask=mask, known=known
      )
      return jnp.where(known[1][..., None], 99.0, right)

  objective = Diffusion(infill_rate=1.0)
  loss, _ = objective.loss(
    WrongWhereKnown(latents),
    tiny.batch(latents),
    key=jax.random.key(0),
    train=True,
  )
  np.testing.assert_allclose(loss, 0.0, atol=1e-4)
  assert seen["known"][1].any(axis=1).all()
  np.testing.assert_array_equal(seen["known"][0], latents)


def test_logit_normal_times():
  times = Diffusion(time_mean=0.4, time_std=0.5).sample_time(
    jax.random.key(0), (20_000,)
  )
  logits = np.log(times / (1 - times))
  assert logits.mean() == pytest.approx(0.4, abs=0.02)
  assert logits.std() == pytest.approx(0.5, abs=0.02)


def test_trained_on_a_gaussian_it_samples_that_gaussian():
  """Latents N(m, s²) have the velocity of a known linear field."""
  m, s = 1.5, 0.5

  def velocity(x, t):
    variance = (1 - t) ** 2 + (t * s) ** 2
    gain = (t * s**2 - (1 - t)) / variance
    return m + gain * (x - t * m)

  # That field is the minimiser of the loss: no affine change lowers it.
  latents = m + s * jax.random.normal(jax.random.key(0), (4096, 4, 1))
  batch = tiny.batch(latents, b=4096).replace(cond=None)

  class Affine:
    def __init__(self, a, b):
      self.a, self.b = a, b

    def encode(self, cond):
      return cond

    def __call__(self, x, time, tokens, *, times, mask, known=None):
      return self.a * velocity(x, time[:, None, None]) + self.b

  def loss(a, b):
    key = jax.random.key(1)
    objective = Diffusion()
    values, _ = tiny.loss(objective, Affine(a, b), batch, key=key, train=False)
    return float(values.mean())

  best = loss(1.0, 0.0)
  assert best < min(loss(0.9, 0), loss(1.1, 0), loss(1, 0.1), loss(1, -0.1))
  # And a solver carries noise along it to that Gaussian.
  noise = jax.random.normal(jax.random.key(2), (8192,))
  samples = SOLVERS["heun"](
    velocity, noise, grid=time_grid(64), corruption=Corruption()
  )
  assert float(samples.mean()) == pytest.approx(m, abs=0.03)
  assert float(samples.std()) == pytest.approx(s, abs=0.03)


def test_next_token_loss_is_the_mean_cross_entropy():
  model = tiny.tokens()
  codes = jax.random.randint(jax.random.key(0), (2, T, tiny.BOOKS), 0, 11)
  batch = tiny.batch(codes)
  loss, metrics = tiny.loss(
    NextToken(), model, batch, key=jax.random.key(0), train=False
  )
  score = jax.jit(
    lambda cond: model(codes, model.encode(cond), times=tiny.times(T))
  )
  logits = np.asarray(score(batch.cond), np.float64)
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  picked = np.take_along_axis(logp, np.asarray(codes)[..., None], -1)
  np.testing.assert_allclose(loss, -picked.mean(axis=(1, 2, 3)), rtol=1e-4)
  hits = (logits.argmax(-1) == codes).mean(axis=(1, 2))
  np.testing.assert_allclose(metrics["accuracy"], hits, rtol=1e-5)


def test_codes_that_are_read_are_corrupted_at_a_rate_and_in_training_alone():
  codes = jax.random.randint(jax.random.key(0), (64, T, tiny.BOOKS), 0, 11)
  read = lambda rate, train: NextToken(corrupt_rate=rate).read(
    codes, codebook_size=11, key=jax.random.key(1), train=train
  )
  np.testing.assert_array_equal(read(0.5, False), codes)
  np.testing.assert_array_equal(read(0.0, True), codes)
  corrupted = np.asarray(read(0.5, True))
  # One of eleven random codes is the true one.
  assert (corrupted != codes).mean() == pytest.approx(0.5 * 10 / 11, abs=0.03)
  assert corrupted.min() == 0 and corrupted.max() == 10
  every = np.asarray(read(1.0, True))
  counts = np.bincount(every.ravel(), minlength=11) / every.size
  np.testing.assert_allclose(counts, 1 / 11, atol=0.03)


def test_corrupted_codes_are_read_and_the_true_ones_predicted():
  model = tiny.tokens()
  codes = jax.random.randint(jax.random.key(0), (2, T, tiny.BOOKS), 0, 11)
  objective = NextToken(corrupt_rate=0.5, cond_drop_rate=0.0)
  batch, key = tiny.batch(codes), jax.random.key(1)
  loss, metrics = tiny.loss(objective, model, batch, key=key, train=True)
  read = objective.read(codes, codebook_size=11, key=key, train=True)
  logits = jax.jit(
    lambda cond: model(read, model.encode(cond), times=tiny.times(T))
  )(batch.cond)
  hits = (logits.argmax(-1) == codes).mean(axis=(1, 2))
  np.testing.assert_allclose(metrics["accuracy"], hits, rtol=1e-5)


class Gaussian:
  """The exact model of latents N(last one, s²), plus the constant `wrong`."""

  def __init__(self, s, wrong=0.0, num_draws=4):
    self.s, self.wrong = s, wrong
    config = type("Config", (), {"num_draws": num_draws})
    self.backbone = type("Backbone", (), {"config": config})

  def encode(self, cond):
    return cond

  def __call__(self, latents, tokens, *, times, noisy, time):
    t = time[..., None]
    mean = jnp.pad(latents, ((0, 0), (1, 0), (0, 0)))[:, :-1, None]
    variance = (t * self.s) ** 2 + (1 - t) ** 2
    gain = (t * self.s**2 - (1 - t)) / variance
    return mean + gain * (noisy - t * mean) + self.wrong


def test_next_latent_loss_of_the_truth_is_its_closed_form():
  """The minimum is the variance of the velocity at x_t, s² / var(x_t), over
  the logit-normal times; a bias adds its square."""
  s, b, mean, std = 0.5, 1024, -0.3, 0.8
  steps = s * jax.random.normal(jax.random.key(0), (b, T, tiny.CHANNELS))
  batch = tiny.batch(jnp.cumsum(steps, axis=1), b=b).replace(cond=None)
  objective = NextLatents(time_mean=mean, time_std=std)

  def loss(wrong):
    losses, _ = tiny.loss(
      objective,
      Gaussian(s, wrong),
      batch,
      key=jax.random.key(1),
      train=False,
    )
    assert losses.shape == (b,)
    return float(losses.mean())

  x = np.random.default_rng(0).normal(size=200_000)
  t = 1 / (1 + np.exp(-(mean + std * x)))
  expected = np.mean(s**2 / ((t * s) ** 2 + (1 - t) ** 2))
  assert loss(0.0) == pytest.approx(expected, rel=0.02)
  assert loss(0.5) == pytest.approx(expected + 0.25, rel=0.02)


def test_next_latent_loss_ignores_latents_after_the_clip():
  model, latents = tiny.latents(), _latents()
  mask = np.arange(T)[None] < np.array([[5], [8]])
  batch = tiny.batch(latents, target_mask=mask)
  key, objective = jax.random.key(0), NextLatents()
  plain, _ = tiny.loss(objective, model, batch, key=key, train=True)
  spoiled = batch.replace(target=jnp.where(mask[..., None], latents, 50.0))
  again, _ = tiny.loss(objective, model, spoiled, key=key, train=True)
  np.testing.assert_allclose(plain, again, rtol=1e-4)


@pytest.mark.parametrize("kind", ["diffusion", "tokens"])
def test_a_few_steps_of_training_learn_one_batch(kind):
  if kind == "diffusion":
    model, objective, target = tiny.diffusion(), Diffusion(), _latents()
  else:
    model, objective = tiny.tokens(), NextToken()
    target = jax.random.randint(jax.random.key(0), (2, T, tiny.BOOKS), 0, 11)
  batch = tiny.batch(target)
  graphdef, params = nnx.split(model)
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(params, state, i):
    def loss(params):
      model = nnx.merge(graphdef, params)
      key = jax.random.key(i)
      return objective.loss(model, batch, key=key, train=True)[0].mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state)
    return optax.apply_updates(params, updates), state, value

  state, values = optimizer.init(params), []
  for i in range(80):
    params, state, value = step(params, state, i)
    values.append(float(value))
  assert np.mean(values[-10:]) < 0.6 * np.mean(values[:5])
