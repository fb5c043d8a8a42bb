"""Averages of the weights whose length is chosen after the training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_training import experiment

from v2a_jax.basics.settings import SettingError
from v2a_jax.training import posthoc
from v2a_jax.training.checkpoint import CheckpointError
from v2a_jax.training.loop import train
from v2a_jax.training.restore import restore_average
from v2a_jax.weights import names


def profile(step, length):
  """Shares of steps 1 to `step` in an average, by their closed form."""
  edges = (np.arange(step + 1) / step) ** (posthoc.power(length) + 1)
  return np.diff(edges)


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.25])
def test_the_length_is_the_deviation_of_the_shares(length):
  shares, at = profile(100_000, length), (np.arange(100_000) + 0.5) / 100_000
  mean = (shares * at).sum()
  deviation = np.sqrt((shares * (at - mean) ** 2).sum())
  assert deviation == pytest.approx(length, rel=1e-4)


def test_updates_give_the_closed_form():
  walk = np.cumsum(np.random.default_rng(0).normal(size=(300, 4)), axis=0)
  averages = {name: {"w": jnp.full(4, 9.0)} for name in posthoc.LENGTHS}

  @jax.jit
  def run(averages, walk):
    step = lambda old, x: (posthoc.update(old, {"w": x[0]}, x[1]), None)
    return jax.lax.scan(step, averages, (walk, jnp.arange(1, 301)))[0]

  averages = run(averages, jnp.asarray(walk, jnp.float32))
  for name, length in posthoc.LENGTHS.items():
    expected = profile(300, length) @ walk
    np.testing.assert_allclose(averages[name]["w"], expected, rtol=2e-4)


def test_late_updates_are_not_lost_to_rounding():
  step = 10**7
  run = jax.jit(lambda old, new: posthoc.update(old, new, step))
  new = run({"long": jnp.zeros(())}, jnp.ones(()))["long"]
  wanted = (posthoc.power(0.1) + 1) / step
  assert float(new) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("length", [0.06, 0.08, 0.15])
def test_another_length_is_a_sum_of_snapshots(length):
  """In float64, of a walk that has come far from where it began."""
  steps = 4000
  walk = np.cumsum(np.random.default_rng(1).normal(size=(steps, 8)), axis=0)
  snapshots = [
    (taken, name)
    for taken in range(250, steps + 1, 250)
    for name in posthoc.LENGTHS
  ]
  kept = [
    profile(taken, posthoc.LENGTHS[name]) @ walk[:taken]
    for taken, name in snapshots
  ]
  shares = posthoc.shares(snapshots, step=steps, length=length)
  wanted = profile(steps, length) @ walk
  assert np.abs(shares @ np.array(kept) - wanted).max() < 0.01 * walk.std()
  assert shares.sum() == pytest.approx(1, abs=0.01)


def test_a_run_keeps_what_the_average_is_made_of(tmp_path):
  settings = dict(num_train_steps=8, checkpoint_every=2, keep=9)
  state = train(experiment(posthoc_averages=True, **settings), tmp_path)
  for name, length in posthoc.LENGTHS.items():
    made = restore_average(tmp_path, length).state["params"]
    kept = names.flatten(state.averages[name])
    assert made.keys() == kept.keys()
    for key, array in made.items():
      np.testing.assert_allclose(array, kept[key], rtol=1e-4, atol=1e-6)
  early = restore_average(tmp_path, 0.1, step=4)
  assert early.step == 4
  again = train(
    experiment(posthoc_averages=True, **settings | {"num_train_steps": 9}),
    tmp_path,
  )
  assert int(again.step) == 9
  with pytest.raises(SettingError, match="average_length=0.3 is not in"):
    restore_average(tmp_path, 0.3)


def test_few_snapshots_give_lengths_near_theirs_and_no_others():
  """Shares of one checkpoint summed up to 0.67 for the length 0.2."""
  last = [(1000, name) for name in posthoc.LENGTHS]
  found = posthoc.shares(last, step=1000, length=0.07)
  assert found.sum() == pytest.approx(1)
  for length in (1e-6, 0.01, 0.2):
    with pytest.raises(SettingError, match="from the 1 checkpoints until step"):
      posthoc.shares(last, step=1000, length=length)


def test_damaged_checkpoints_are_left_out(tmp_path):
  settings = dict(num_train_steps=8, checkpoint_every=2, keep=9)
  state = train(experiment(posthoc_averages=True, **settings), tmp_path)

  def damage(step):
    part = tmp_path / "checkpoints" / str(step) / "state" / "_sharding"
    part.write_text("{")

  damage(4)
  made = restore_average(tmp_path, 0.05).state["params"]
  for key, array in names.flatten(state.averages["short"]).items():
    np.testing.assert_allclose(made[key], array, rtol=1e-4, atol=1e-6)
  damage(2)
  with pytest.raises(CheckpointError, match="step 2 there is no sound check"):
    restore_average(tmp_path, 0.05, step=2)
  damage(8)  # Nothing ends at its step any more.
  with pytest.raises(
    SettingError, match="checkpoints until step 8: the nearest"
  ):
    restore_average(tmp_path, 0.05)


def test_a_run_without_them_says_what_to_set(tmp_path):
  train(experiment(num_train_steps=2), tmp_path)
  with pytest.raises(CheckpointError, match="config.posthoc_averages=True"):
    restore_average(tmp_path, 0.07)
