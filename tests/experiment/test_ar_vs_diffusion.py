"""The comparison of the arms is fair: they differ in what is predicted alone."""

import functools

import jax
import pytest

from configs.sweeps import ar_vs_diffusion
from launch import config as config_lib
from launch.parsing import UsageError
from launch.sweep import points as points_lib
from v2a_jax.experiment import cost
from v2a_jax.experiment.experiment import Experiment

FILE = "configs/sweeps/ar_vs_diffusion.py"


@functools.cache
def arm(name: str, size: str) -> Experiment:
  config = config_lib.parse(f"{FILE}:arm={name},size={size}")
  return Experiment.from_config(config)


def parameters(experiment: Experiment) -> int:
  return sum(x.size for x in jax.tree.leaves(experiment.abstract[1]))


@pytest.mark.parametrize("size", ar_vs_diffusion.SIZES)
def test_arms_of_a_size_have_equally_many_parameters(size):
  counts = [parameters(arm(name, size)) for name in ar_vs_diffusion.ARMS]
  assert max(counts) < 1.02 * min(counts)


def test_sizes_are_far_apart():
  counts = [parameters(arm("ar", size)) for size in ar_vs_diffusion.SIZES]
  assert all(b > 1.8 * a for a, b in zip(counts, counts[1:]))


@pytest.mark.parametrize("size", ["small"])
def test_arms_of_a_size_cost_equally_many_flops(size):
  flops = [
    cost.flops_of_clip(arm(name, size))[0] for name in ar_vs_diffusion.ARMS
  ]
  assert max(flops) < 1.06 * min(flops)


@pytest.mark.parametrize("size", ar_vs_diffusion.SIZES)
def test_arms_share_data_encoders_codec_budget_and_guidance(size):
  def shared(name):
    config = arm(name, size).config
    model = {
      k: config["model"][k] for k in ("conditioner", "width", "num_heads")
    }
    run = "seed num_train_steps ema_decay accumulate eval_every codec".split()
    data = {k: v for k, v in config["data"].items() if k != "target"}
    return [
      *(model, data, config["optimizer"], [config[key] for key in run]),
      *(config["sampler"]["guidance"], config["objective"]["cond_drop_rate"]),
    ]

  first, *others = map(shared, ar_vs_diffusion.ARMS)
  assert all(other == first for other in others)


def test_the_grid_is_arms_by_sizes_by_seeds():
  points = points_lib.points(
    [FILE], names=["arm", "size"], seeds=3, overrides={}
  )
  assert len(points) == 27 == len({p.fingerprint for p in points})
  assert {p.overrides["seed"] for p in points} == {0, 1, 2}
  assert len({p.num_train_steps for p in points}) == 1


def test_arms_can_start_from_one_encoder():
  points = points_lib.points(
    [FILE], names=["arm", "start"], seeds=1, overrides={}
  )
  seeing = [p for p in points if p.overrides["init_from"]]
  assert len(points) == 6 and len(seeing) == 3
  for point in seeing:
    config = config_lib.parse(point.config, point.changes())
    experiment = Experiment.from_config(config)
    assert {name[0] for name in experiment.first_weights()} == {"conditioner"}


def test_an_unknown_arm_is_refused_with_those_that_there_are():
  with pytest.raises(UsageError, match="'gan' is not one of diffusion, ar, la"):
    config_lib.parse(f"{FILE}:arm=gan")
