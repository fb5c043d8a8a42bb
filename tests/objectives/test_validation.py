"""Validation metrics: without each condition, by time and by codebook."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from v2a_jax.batch import CONDITIONS
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.objectives.mean_flow import MeanFlow
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.objectives.next_token import NextToken

T = 8
KEY = jax.random.key(3)
OBJECTIVES = {
  "diffusion": Diffusion(),
  "mean_flow": MeanFlow(),
  "next_latents": NextLatents(),
  "next_token": NextToken(),
}


def _model(name):
  if name == "next_token":
    return tiny.tokens()
  if name == "next_latents":
    return tiny.latents()
  return tiny.diffusion(average=name == "mean_flow")


def _batch(name, b=2):
  if name == "next_token":
    target = jax.random.randint(KEY, (b, T, tiny.BOOKS), 0, tiny.CODES)
  else:
    target = jax.random.normal(KEY, (b, T, tiny.CHANNELS))
  mask = np.arange(T)[None] < np.resize([5, T], b)[:, None]
  return tiny.batch(target, b, target_mask=mask)


def _evaluate(objective, model, batch):
  return jax.jit(lambda x: objective.evaluate(model, x, key=KEY))(batch)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_without_a_condition_is_that_of_the_batch_without_it(name):
  objective, model, batch = OBJECTIVES[name], _model(name), _batch(name)
  loss = jax.jit(
    lambda cond: objective.loss(
      model, batch.replace(cond=cond), key=KEY, train=False
    )[0]
  )
  metrics = _evaluate(objective, model, batch)
  np.testing.assert_allclose(metrics["loss"], loss(batch.cond), rtol=1e-4)
  for condition in CONDITIONS:
    wanted = loss(batch.cond.without(condition))
    actual = metrics[f"loss_without_{condition}"]
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, err_msg=condition)
    assert not np.allclose(actual, metrics["loss"], rtol=1e-4), condition


def _quarters(metrics):
  return np.stack([metrics[f"loss_time_{i}"] for i in range(4)])


@pytest.mark.parametrize("name", ["diffusion", "mean_flow"])
def test_quarters_of_diffusion_time_are_a_partition(name):
  """A mean over each quarter's clips, weighted by their number, is the loss."""
  objective, model, batch = OBJECTIVES[name], _model(name), _batch(name, 32)
  metrics = _evaluate(objective, model, batch)
  quarters, loss = _quarters(metrics), np.asarray(metrics["loss"])
  inside = ~np.isnan(quarters)
  np.testing.assert_array_equal(inside.sum(axis=0), 1)
  assert (inside.sum(axis=1) > 0).sum() > 1
  total = sum(
    row[here].mean() * here.sum()
    for row, here in zip(quarters, inside)
    if here.any()
  )
  assert total / 32 == pytest.approx(loss.mean(), rel=1e-5)


class WrongByTime:
  """Has an error equal to the diffusion time, so its loss gives the time."""

  def __init__(self, latents):
    self.latents = latents

  def encode(self, cond):
    return cond

  def __call__(self, x, time, tokens, *, times, mask, known=None):
    at = time[:, None, None]
    return (self.latents - x) / (1 - at) + at


def test_a_loss_belongs_to_the_quarter_of_its_own_time():
  batch = _batch("diffusion", 64)
  metrics = _evaluate(Diffusion(), WrongByTime(batch.target), batch)
  time = np.sqrt(metrics["loss"])
  quarter = np.argmax(~np.isnan(_quarters(metrics)), axis=0)
  sure = np.abs(4 * time - np.round(4 * time)) > 1e-3
  np.testing.assert_array_equal(quarter[sure], (4 * time[sure]).astype(int))
  assert set(quarter) == {0, 1, 2, 3}


def test_codebook_losses_average_to_the_loss():
  metrics = _evaluate(NextToken(), tiny.tokens(), _batch("next_token"))
  books = [metrics[f"loss_codebook_{k}"] for k in range(tiny.BOOKS)]
  assert f"loss_codebook_{tiny.BOOKS}" not in metrics
  np.testing.assert_allclose(
    jnp.mean(jnp.stack(books), axis=0), metrics["loss"], rtol=1e-5
  )
  assert len({round(float(b[0]), 4) for b in books}) == tiny.BOOKS
