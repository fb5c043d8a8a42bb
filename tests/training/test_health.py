"""Runs that go wrong: what is said, what is kept, and how they go on."""

import json
import logging

import numpy as np
import pytest
from toy_training import BATCH, Loader, experiment, losses_of

from v2a_jax.training.digests import list_steps
from v2a_jax.training.health import Health, NonFiniteError
from v2a_jax.training.loop import train
from v2a_jax.training.optimizer import OptimizerConfig


def spoiled(batches, value):
  """Returns a loader whose batches of those numbers hold `value`."""

  class Spoiled(Loader):
    def __next__(self):
      number, rows = self._step, super().__next__()
      return rows | {"x": rows["x"] * value} if number in batches else rows

  return lambda split, **place: Spoiled(**place)


def test_a_bad_update_is_named_with_its_step_norm_and_records(tmp_path, caplog):
  loader = spoiled({2}, np.float32(np.nan))
  state = train(experiment(open_loader=loader, log_every=100), tmp_path)
  assert (int(state.step), int(state.skipped)) == (6, 1)
  (said,) = [x for x in caplog.messages if "skipped" in x and "loss" in x]
  assert said.startswith("step 3: loss nan, gradient norm")
  assert f"records {2 * BATCH}, {2 * BATCH + 1}," in said


@pytest.mark.parametrize("value", [np.nan, 1e4])
def test_bad_batches_are_skipped_from_the_last_good_weights(
  value, tmp_path, caplog
):
  bad = range(40, 45)
  settings = dict(num_train_steps=50, checkpoint_every=10, max_skipped_steps=3)
  loader = spoiled(bad, np.float32(value))
  state = train(experiment(open_loader=loader, **settings), tmp_path)
  (said,) = [x for x in caplog.messages if "Back to step" in x]
  # Step 41 was the first bad one; the weights that it began with are of step
  # 40, of which nobody knows whether they are good.
  assert "steps 41 to 45" in said and "Back to step 30 (1 of at most 2" in said
  assert f"skipping the {15 * BATCH} clips since" in said
  assert int(state.step) == 50 and max(losses_of(tmp_path)[-5:]) < 10
  rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
  steps = [json.loads(row)["step"] for row in rows]
  assert steps == sorted(set(steps)) == list(range(1, 51))
  assert list_steps(tmp_path / "checkpoints")[0] == 50


def test_nothing_is_left_of_weights_that_one_update_ruined(tmp_path):
  """Loss and gradient of the ruinous update are finite; the next are not."""
  ruinous = OptimizerConfig(
    learning_rate=1e30, schedule="constant", warmup_steps=0
  )
  settings = dict(checkpoint_every=1, keep=1, max_skipped_steps=3)
  good = experiment(num_train_steps=4, **settings)
  train(good, tmp_path)
  with pytest.raises(NonFiniteError, match="the next run begins with .*/4"):
    train(
      experiment(num_train_steps=99, optimizer=ruinous, **settings), tmp_path
    )
  assert list_steps(tmp_path / "checkpoints")[0] == 4
  state = train(experiment(num_train_steps=8, **settings), tmp_path)
  assert int(state.step) == 8 and np.isfinite(losses_of(tmp_path)).all()


def test_a_new_run_that_is_ruined_at_once_begins_again(tmp_path):
  ruinous = OptimizerConfig(
    learning_rate=1e30, schedule="constant", warmup_steps=0
  )
  settings = dict(checkpoint_every=1, max_skipped_steps=3)
  with pytest.raises(NonFiniteError, match="no checkpoint from before"):
    train(
      experiment(num_train_steps=99, optimizer=ruinous, **settings), tmp_path
    )
  assert list_steps(tmp_path / "checkpoints") == []
  train(experiment(**settings), tmp_path)
  assert np.isfinite(losses_of(tmp_path)).all()


def test_losses_that_stay_high_are_taken_for_the_usual_ones(tmp_path, caplog):
  """A new phase of the objective must not end the run."""
  loader = spoiled(range(30, 1000), np.float32(1e4))
  settings = dict(num_train_steps=60, checkpoint_every=10, max_skipped_steps=3)
  state = train(experiment(open_loader=loader, **settings), tmp_path)
  assert int(state.step) == 60
  assert sum("Back to step" in x for x in caplog.messages) == 2
  assert any("taken as usual" in x for x in caplog.messages)


def test_losses_are_compared_with_the_median_of_those_before(caplog):
  caplog.set_level(logging.WARNING)
  health = Health(0, limit=3, spike_factor=10.0)
  rng = np.random.default_rng(0)
  for step in range(1, 101):  # Heavy tails are not spikes.
    health.observe(step, float(rng.lognormal(0.0, 0.5)), 1.0)
  assert not health.suspect and health.good == 99
  health.observe(101, 30.0, 1.0)
  assert health.suspect and health.good == 99 and health.failed is None
  health.observe(102, 1.0, 1.0)
  assert not health.suspect and health.good == 101
  unlimited = Health(0, limit=3, spike_factor=0.0)
  for step in range(1, 101):
    unlimited.observe(step, 10.0**step, 1.0)
  assert not unlimited.suspect
