"""Parts from outside of the package: one class, one line in a table.

docs/architecture.md gives these as recipes.
"""

import dataclasses
import types
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from configs import diffusion_tiny
from tests import tiny
from v2a_jax.conditioning.semantic import TOWERS
from v2a_jax.experiment import sections
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.models import BACKBONES, layers
from v2a_jax.models.config import TransformerConfig
from v2a_jax.objectives import OBJECTIVES, base
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.sampling.windows import Windows
from v2a_jax.training.program import make_program

SMALL = {
  "codec": "patches:16000:512:1",
  "data.seconds": 1.0,
  "data.fps": 5.0,
  "data.frame_size": 8,
  "data.batch_size": 2,
  "sampler.num_steps": 2,
  "model.conditioner.temporal_depth": 1,
}
SIZES = dict(
  width=16, num_heads=2, depth=1, joint_depth=1, mlp_dim=16, unroll=1
)


def experiment(**changes):
  config = sections.complete(diffusion_tiny.get_config())
  for key, value in (SMALL | changes).items():
    *path, name = key.split(".")
    node = config
    for part in path:
      node = node[part]
    node[name] = value
  return Experiment.from_config(config)


def one_step(exp):
  """The metrics of the program that `train` runs, on an empty batch."""
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1), jax.devices()[:1])
  with jax.set_mesh(mesh):
    program = make_program(exp, mesh)
    state = tiny.train_state(program.state)
    before = state.params
    state = jax.device_put(state, program.shardings)
    state, metrics = program.step(state, exp.frozen(), exp.blank_batch(2))
  moved = jax.tree.map(lambda a, b: np.any(a != b), before, state.params)
  assert any(jax.tree.leaves(moved)) and np.isfinite(metrics["loss"])
  return metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixerConfig(TransformerConfig):
  """Sizes of a backbone that only mixes neighbours.

  Attributes:
    kernel: number of latents that each sees.
  """

  family: ClassVar[str] = "diffusion"
  target: ClassVar[str] = "latents"
  kernel: int = 3

  def make(self, *, rngs):
    return Mixer(self, rngs=rngs)


class Mixer(nnx.Module):
  def __init__(self, config, *, rngs):
    self.config = types.SimpleNamespace(channels=512)
    self.kernel = config.kernel
    self.out = layers.dense(
      512 * config.kernel, 512, axes=(None, "embed"), rngs=rngs
    )

  def __call__(self, x, time, tokens, **_):
    x = layers.neighbours(x, self.kernel) * time[:, None, None]
    return self.out(x) + tokens.summary.mean()


def test_a_backbone_from_outside_trains_and_samples(monkeypatch):
  monkeypatch.setitem(BACKBONES, "mixer", MixerConfig)
  model = dict(name="mixer", width=16, num_heads=2, depth=1, mlp_dim=16)
  config = sections.complete(diffusion_tiny.get_config())
  model["conditioner"] = config["model"]["conditioner"]
  exp = experiment(model=model | {"kernel": 5})
  assert exp.config["model"]["kernel"] == 5
  one_step(exp)
  generator = tiny.drawn(lambda: exp.make_model(nnx.Rngs(0)))
  length = 32
  latents = tiny.sample(
    exp.sampler,
    generator,
    exp.objective,
    exp.blank_batch(2).cond,
    keys=jax.random.split(jax.random.key(0), 2),
    times=(jnp.arange(length) + 0.5) / 31.25,
    windows=Windows(length, length),
  )
  assert latents.shape == (2, length, 512) and np.isfinite(latents).all()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regress(base.GeneratorObjective):
  """Regresses the latents from the conditions alone.

  Attributes:
    weight: factor of the loss.
  """

  family: ClassVar[str] = "diffusion"
  weight: float = 1.0

  def loss(self, model, batch, *, key, train):
    zeros = jnp.zeros_like(batch.target)
    x = model(
      zeros,
      jnp.ones(len(zeros)),
      model.encode(batch.cond),
      times=batch.target_times,
      mask=batch.target_mask,
    )
    error = jnp.square(x - batch.target + 1).mean(axis=(1, 2))
    return self.weight * error, {"error": error}


def test_an_objective_from_outside_trains(monkeypatch):
  monkeypatch.setitem(OBJECTIVES, "regress", Regress)
  sizes = {f"model.{key}": value for key, value in SIZES.items()}
  exp = experiment(objective={"name": "regress", "weight": 2.0}, **sizes)
  metrics = one_step(exp)
  np.testing.assert_allclose(metrics["loss"], 2 * metrics["error"], rtol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanColourConfig:
  """Sizes of a tower that sees the mean colour of a frame.

  Attributes:
    gain: factor of the colour.
  """

  gain: float = 1.0

  @property
  def feature_dim(self):
    return 3


class MeanColour(nnx.Module):
  def __init__(self, config):
    self.config = config
    self.gain = nnx.Param(jnp.full((1,), config.gain))

  def __call__(self, frames):
    return frames.mean(axis=(2, 3)) / 255 * self.gain[...]


def test_a_published_tower_from_outside_is_a_stream(monkeypatch, tmp_path):
  tower = types.SimpleNamespace(
    config=MeanColourConfig,
    make=lambda sizes, **_: MeanColour(sizes),
    read_config=lambda folder: MeanColourConfig(gain=3.0),
    load=lambda folder: MeanColour(MeanColourConfig(gain=3.0)),
  )
  monkeypatch.setitem(TOWERS, "colour", tower)
  sizes = {f"model.{key}": value for key, value in SIZES.items()}
  exp = experiment(
    **sizes,
    **{
      "model.conditioner.semantic": {"name": "colour", "path": str(tmp_path)},
      "model.conditioner.tune": "frozen",
    },
  )
  assert exp.conditioner.semantic.sizes.gain == 3.0  # read from the folder
  assert exp.config["model"]["conditioner"]["semantic"]["sizes"] == {
    "gain": 3.0
  }
  weights = exp.first_weights()
  assert [name[-1] for name in weights] == ["gain"]
  one_step(exp)
