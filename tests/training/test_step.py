"""One update: accumulation, clipping, skipping, averaging, precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import Net, Regression, rows_of

from v2a_jax.parallel import sharding
from v2a_jax.training.optimizer import OptimizerConfig, make_optimizer
from v2a_jax.training.state import abstract_model, make_init
from v2a_jax.training.step import make_eval_step, make_train_step

OPTIMIZER = OptimizerConfig(learning_rate=0.1, schedule="constant")


def setup(objective=None, optimizer=OPTIMIZER, **settings):
  init = make_init(Net, make_optimizer(optimizer, 100), seed=0, ema=True)
  state = jax.jit(init)()
  graphdef, _, _ = abstract_model(Net)
  step = make_train_step(
    graphdef, objective or Regression(noise=0.0), optimizer, 100, **settings
  )
  return jax.jit(step), state


def batch(rows=16, start=0):
  return rows_of(np.arange(start, start + rows))


def assert_close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_accumulation_equals_the_big_batch():
  whole, state = setup()
  parts, _ = setup(accumulate=4)
  one, metrics = whole(state, None, batch())
  four, metrics4 = parts(state, None, batch())
  assert_close(one.params, four.params, rtol=1e-5, atol=1e-6)
  assert_close(metrics, metrics4, rtol=1e-5)


def test_microbatches_draw_different_noise():
  @dataclasses.dataclass(frozen=True)
  class Noisy:
    def loss(self, model, batch, *, key, train):
      noise = jax.random.normal(key, batch["example"].shape)
      return noise + 0 * model(batch["x"]).sum(-1), {}

  step, state = setup(Noisy(), accumulate=2)
  _, metrics = step(state, None, batch())
  key = jax.random.fold_in(jax.random.key(0), 0)
  draws = [jax.random.normal(jax.random.fold_in(key, i), (8,)) for i in (0, 1)]
  np.testing.assert_allclose(metrics["loss"], np.mean(draws), rtol=1e-5)


def test_accumulate_must_divide_the_batch():
  step, state = setup(accumulate=3)
  with pytest.raises(ValueError, match="16 is not a multiple of accumulate=3"):
    step(state, None, batch())


def test_update_that_is_not_finite_is_skipped_and_counted():
  step, state = setup(Regression(noise=0.0, poison=1))
  good, _ = step(state, None, batch())
  bad, metrics = step(good, None, batch(start=16))
  assert metrics["skipped"] == metrics["skipped_in_row"] == 1
  for part in ("params", "opt_state", "ema", "buffers"):
    before, after = getattr(good, part), getattr(bad, part)
    jax.tree.map(np.testing.assert_array_equal, before, after)
  assert bad.step == 2
  again, metrics = step(bad, None, batch())
  assert (metrics["skipped"], metrics["skipped_in_row"]) == (1, 0)
  assert jnp.isfinite(metrics["loss"])
  assert again.step == 3


def test_average_follows_with_a_decay_that_warms_up():
  step, first = setup(ema_decay=0.15)
  second, _ = step(first, None, batch())
  third, _ = step(second, None, batch())
  mix = lambda d, a, b: jax.tree.map(lambda x, y: d * x + (1 - d) * y, a, b)
  expected = mix(0.1, first.params, second.params)
  assert_close(expected, second.ema, rtol=1e-5, atol=1e-7)
  expected = mix(0.15, expected, third.params)
  assert_close(expected, third.ema, rtol=1e-5, atol=1e-7)
  assert jax.tree.leaves(third.buffers)[0] == 2.0


def test_gradients_are_clipped_but_logged_as_they_are():
  sgd_like = dict(name="adamw", eps=1e3, betas=(0.0, 0.0), schedule="constant")
  free, state = setup(
    optimizer=OptimizerConfig(learning_rate=1.0, max_grad_norm=0.0, **sgd_like)
  )
  clipped, _ = setup(
    optimizer=OptimizerConfig(learning_rate=1.0, max_grad_norm=0.5, **sgd_like)
  )
  far, metrics = free(state, None, batch())
  near, metrics2 = clipped(state, None, batch())
  assert metrics["grad_norm"] == metrics2["grad_norm"] > 0.5
  # With so large an eps the update is the gradient over eps.
  moved = lambda new: jnp.sqrt(
    sum(
      jnp.sum((a - b) ** 2)
      for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state.params))
    )
  )
  ratio = moved(near.params) / moved(far.params)
  np.testing.assert_allclose(ratio, 0.5 / metrics["grad_norm"], rtol=0.02)


def test_bfloat16_computes_low_and_keeps_masters():
  seen = []

  class Spy(Regression):
    def loss(self, model, batch, *, key, train):
      seen.append(model.layers[0].kernel.dtype)
      return super().loss(model, batch, key=key, train=train)

  low, state = setup(Spy(noise=0.0), compute_dtype="bfloat16")
  full, _ = setup()
  after, metrics = low(state, None, batch())
  _, expected = full(state, None, batch())
  assert set(seen) == {jnp.dtype("bfloat16")}
  assert {x.dtype for x in jax.tree.leaves(after.params)} == {
    jnp.dtype("float32")
  }
  np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=0.03)


def test_target_is_filled_in_from_frozen_state():
  target = lambda frozen, batch: batch | {"y": batch["y"] * frozen["scale"]}
  step, state = setup(target=target, accumulate=2)
  plain, _ = setup()
  _, metrics = step(state, {"scale": jnp.zeros(())}, batch())
  _, expected = plain(state, None, batch() | {"y": np.zeros((16, 4), "f")})
  np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)


def test_evaluation_is_per_example_and_repeats():
  graphdef, _, _ = abstract_model(Net)
  evaluate = jax.jit(make_eval_step(graphdef, Regression()))
  _, state = setup()
  first, second = (
    evaluate(state.params, state.buffers, None, batch(), 0) for _ in range(2)
  )
  assert first["loss"].shape == first["error"].shape == (16,)
  np.testing.assert_array_equal(first["loss"], second["loss"])


def test_sharded_step_equals_one_device_and_keeps_its_layout(mesh):
  optimizer = make_optimizer(OPTIMIZER, 100)
  init = make_init(Net, optimizer, seed=0, ema=True)
  state, layout = sharding.init_sharded(init, mesh)
  graphdef, _, _ = abstract_model(Net)
  step = make_train_step(
    graphdef, Regression(noise=0.0), OPTIMIZER, 100, accumulate=2
  )
  with jax.set_mesh(mesh):
    step = jax.jit(
      step,
      donate_argnums=0,
      out_shardings=(layout, sharding.replicated(mesh)),
    )
    state, metrics = step(state, None, sharding.shard_batch(batch(), mesh))
  alone, expected = (lambda f, s: f(s, None, batch()))(*setup(accumulate=2))
  assert_close(state.params, alone.params, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
  moments = jax.tree.leaves(state.opt_state)
  by_shape = {p.shape: p.sharding.spec for p in jax.tree.leaves(state.params)}
  assert any(spec[0] == "fsdp" for spec in by_shape.values() if spec)
  for leaf in [*jax.tree.leaves(state.ema), *moments]:
    if leaf.ndim:
      assert leaf.sharding.spec == by_shape[leaf.shape]
