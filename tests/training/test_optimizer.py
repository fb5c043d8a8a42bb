"""Schedules, decay, partitions and the choice of optimizer."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import kernel

from v2a_jax.training.optimizer import (
  OptimizerConfig,
  make_optimizer,
  make_schedule,
)


def params():
  ones = lambda *shape: jnp.ones(shape)
  stacked = nnx.Param(ones(3, 4), out_sharding=("layers", "embed"))
  return nnx.State(
    {
      "codec": {"kernel": nnx.Param(ones(4, 4)), "bias": nnx.Param(ones(4))},
      "critic": {"kernel": nnx.Param(ones(4, 4)), "gate": stacked},
    }
  )


def moved(config, grads=0.0):
  """Returns how far each leaf goes, by path."""
  optimizer = make_optimizer(config, 100)
  start = params()

  @jax.jit
  def run(now):
    state = optimizer.init(now)
    gradient = jax.tree.map(lambda p: jnp.full_like(p, grads), now)
    updates, _ = optimizer.update(gradient, state, now)
    return jax.tree.map(jnp.add, now, updates)

  now = run(start)
  names = jax.tree_util.tree_leaves_with_path(
    nnx.to_pure_dict(jax.tree.map(lambda a, b: a - b, now, start))
  )
  return {
    jax.tree_util.keystr(k, simple=True, separator="/"): np.asarray(v)
    for k, v in names
  }


def test_schedules():
  make = lambda **kw: make_schedule(
    OptimizerConfig(learning_rate=2.0, warmup_steps=10, **kw), 110
  )
  cosine = make(schedule="cosine", final_fraction=0.1)
  np.testing.assert_allclose(cosine(0), 0.2)
  np.testing.assert_allclose(cosine(10), 2.0)
  np.testing.assert_allclose(cosine(60), 2 * (0.1 + 0.9 / 2), rtol=1e-5)
  np.testing.assert_allclose(cosine(500), 0.2, rtol=1e-5)
  np.testing.assert_allclose(make(schedule="constant")(99), 2.0)
  np.testing.assert_allclose(make(schedule="rsqrt")(40), 1.0)


def test_decay_spares_biases_and_stacked_vectors():
  config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
  far = moved(config)
  np.testing.assert_allclose(far["codec/kernel"], -0.05, rtol=1e-5)
  for name in ("codec/bias", "critic/gate"):
    np.testing.assert_array_equal(far[name], 0.0)


def test_partitions_have_their_own_settings():
  config = OptimizerConfig(
    learning_rate=0.1,
    partitions={"critic": {"learning_rate": 0.01}},
    max_grad_norm=0.0,
  )
  far = moved(config, grads=1.0)
  np.testing.assert_allclose(far["codec/kernel"], -0.1, rtol=1e-3)
  np.testing.assert_allclose(far["critic/kernel"], -0.01, rtol=1e-3)


def test_a_partition_without_a_learning_rate_stays_as_it_is():
  config = OptimizerConfig(
    learning_rate=0.1,
    weight_decay=0.5,
    partitions={"critic": {"learning_rate": 0.0}},
  )
  far = moved(config, grads=1.0)
  assert np.all(far["codec/kernel"] != 0)
  for name in ("critic/kernel", "critic/gate"):
    np.testing.assert_array_equal(far[name], 0.0)


def test_what_does_not_exist_is_refused_by_name():
  with pytest.raises(ValueError, match=r"no parameter under \['critics'\]"):
    moved(OptimizerConfig(partitions={"critics": {}}))
  with pytest.raises(ValueError, match=r"critic.lr: no such key"):
    OptimizerConfig(partitions={"critic": {"lr": 1}})
  with pytest.raises(ValueError, match="adamw"):
    OptimizerConfig(name="adam")


@pytest.mark.parametrize(
  "name, rate", [("adamw", 0.05), ("muon", 0.2), ("adafactor", 0.05)]
)
def test_each_optimizer_solves_a_regression(name, rate):
  model = nnx.Linear(4, 4, kernel_init=kernel("embed", "mlp"), rngs=nnx.Rngs(0))
  graphdef, weights = nnx.split(model)
  x = jax.random.normal(jax.random.key(0), (32, 4))
  loss = lambda w: jnp.mean((nnx.merge(graphdef, w)(x) - x[:, ::-1]) ** 2)
  optimizer = make_optimizer(
    OptimizerConfig(name=name, learning_rate=rate, weight_decay=1e-3), 200
  )

  def body(carry, _):
    w, state = carry
    updates, state = optimizer.update(jax.grad(loss)(w), state, w)
    return (jax.tree.map(jnp.add, w, updates), state), None

  start = (weights, optimizer.init(weights))
  (weights, _), _ = jax.jit(lambda c: jax.lax.scan(body, c, length=200))(start)
  assert loss(weights) < 0.02


def test_a_limit_of_time_brings_the_cosine_to_its_end():
  config = OptimizerConfig(warmup_steps=10, final_fraction=0.1)
  rate = lambda step, spent: float(make_schedule(config, 10**6, spent)(step))
  peak = config.learning_rate
  # At step 60 half the time is over, so the last will be 120.
  by_steps = make_schedule(config, 120)
  np.testing.assert_allclose(rate(60, 0.5), by_steps(60), rtol=1e-5)
  np.testing.assert_allclose(rate(60, 1.0), 0.1 * peak, rtol=1e-5)
  # The limit shortens a run and never prolongs it, nor its warmup.
  few = make_schedule(config, 70, 0.5)
  np.testing.assert_allclose(few(60), make_schedule(config, 70)(60))
  assert rate(4, 0.9) == pytest.approx(0.5 * peak)
