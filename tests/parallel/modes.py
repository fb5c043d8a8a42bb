"""Small experiments on several devices: their compiled steps and their losses."""

import dataclasses
import functools

import jax
import numpy as np

from configs import ar_latents_tiny, ar_tiny, codec_tiny, diffusion_tiny
from data_pipelines import example as example_lib
from tests import tiny
from v2a_jax.experiment import plan, sections
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import collectives, sharding
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training.program import make_program

ARMS = {
  "diffusion": diffusion_tiny,
  "ar": ar_tiny,
  "ar_latents": ar_latents_tiny,
  "codec": codec_tiny,
}
# No size of these models is a multiple of 7, so a dimension that is one belongs
# to the batch.
BATCH = 56
DATA = dict(
  **dict(batch_size=BATCH, seconds=0.512, fps=4.0, frame_size=16),
  **dict(prompt_length=8, transcript_length=8),
)
MODEL = dict(width=32, num_heads=2, mlp_dim=48, unroll=1, depth=3)
CODEC = dict(
  strides=(32, 16),
  encoder_widths=(16, 32),
  decoder_widths=(32, 48),
  dilations=((1, 3), (1,)),
  latent_dim=8,
  num_codebooks=2,
  codebook_size=64,
)
CRITIC = dict(fft_sizes=(256,), widths=(16, 32))
STEPS = 20
# How much losses may differ, relative. Codec and critics train against each
# other, which lets rounding errors grow.
TOLERANCE = dict.fromkeys(ARMS, 1e-5) | {"codec": 1e-4}
# Quicker to compile; what is sent is the same.
QUICK = {"xla_backend_optimization_level": "0"}


def experiment(arm, *, zero1=False, accumulate=1, **mesh):
  config = sections.complete(ARMS[arm].get_config())
  config["data"].update(DATA)
  config["mesh"], config["parallel"] = mesh, {"zero1": zero1}
  config["accumulate"] = accumulate
  if arm == "codec":
    config["model"].update(CODEC)
    config["model"]["discriminator"].update(CRITIC)
    config["objective"].update(crop=2048, fft_sizes=(128, 512))
  else:
    if arm != "ar":  # Quicker to compile than a codec, and as frozen.
      config["codec"] = "patches:1000:32:1"
    config["model"].update(MODEL)
    config["model"]["conditioner"].update(spatial_width=16)
  return Experiment.from_config(config)


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled step, as `train` runs it.

  Attributes:
    arm: which model it trains.
    experiment: what is trained.
    mesh: devices.
    program: the programs of the run.
    compiled: its step.
    moved: collectives of the step.
  """

  arm: str
  experiment: Experiment
  mesh: jax.sharding.Mesh
  program: object
  compiled: object
  moved: list

  @classmethod
  def of(cls, arm, **settings):
    exp = experiment(arm, **settings)
    devices = int(np.prod([n for n in exp.mesh.shape if n > 0]))
    mesh = mesh_lib.make_mesh(exp.mesh, jax.devices()[:devices])
    program, lowered = plan.lower_step(exp, mesh)
    compiled = lowered.compile(compiler_options=QUICK)
    moved = collectives.read(compiled.as_text())
    return cls(arm, exp, mesh, program, compiled, moved)

  def losses(self):
    """Losses of the first steps, on batches of noise."""
    exp, mesh = self.experiment, self.mesh
    state, frozen = start(self.arm)
    state = jax.device_put(state, self.program.shardings)
    frozen = jax.device_put(frozen, sharding.replicated(mesh))
    losses = []
    for step in range(STEPS):
      arrays = sharding.shard_batch(noise(exp, seed=step % 3), mesh)
      state, metrics = self.compiled(state, frozen, exp.make_batch(arrays))
      losses.append(float(metrics["loss"]))
    return np.asarray(losses)

  def of_batch(self):
    """Collectives with a dimension that is the batch, or a device's part of it."""
    return [c for c in self.moved if any(n % 7 == 0 for n in c.shape)]

  def sent(self):
    """Bytes that a device sends in a step."""
    return sum(c.moved for c in self.moved)

  def closed_form(self):
    """The same by arithmetic, for weights and their gradients.

    Weights that fsdp splits are gathered twice in a stack and once elsewhere,
    and their gradients summed and split once; then come the sums over `data`.
    """
    d, f = self.mesh.shape["data"], self.mesh.shape["fsdp"]
    total = 0.0
    leaves = jax.tree.leaves(
      self.program.state.params, is_leaf=lambda x: hasattr(x, "get_metadata")
    )
    for leaf, layout in zip(
      leaves, jax.tree.leaves(self.program.shardings.params)
    ):
      names = leaf.get_metadata().get("out_sharding") or ()
      size = leaf.get_value().size * 4
      split = "fsdp" in layout.spec
      if split:
        gathers = 2 if "layers" in names else 1
        total += (gathers + 1) * (f - 1) / f * size
      # A sum over a ring, or, with ZeRO-1, a part of it and a gather.
      groups, held = (d, size / f) if split else (d * f, size)
      total += 2 * (groups - 1) / groups * held
    return total


@functools.cache
def start(arm):
  """Returns the state and the frozen weights that an arm's runs begin with."""
  exp = experiment(arm, data=1)
  mesh = mesh_lib.make_mesh(exp.mesh, jax.devices()[:1])
  state = tiny.train_state(make_program(exp, mesh).state)
  return state, jax.tree.map(np.asarray, exp.frozen())


def noise(exp, *, seed):
  """A batch of random numbers in the loader's arrays."""
  rng = np.random.default_rng(seed)
  blank = example_lib.blank_example(exp.data.window, index=0)

  def fill(name, value):
    value = np.asarray(value)
    shape = (exp.batch_size, *value.shape)
    if name == "frames":
      return rng.integers(0, 255, shape, dtype=np.uint8)
    if value.dtype == bool:
      return rng.uniform(size=shape) < 0.8
    if "times" in name:
      times = np.linspace(0, 1, shape[-1], dtype=value.dtype)
      return np.broadcast_to(times, shape)
    if value.dtype.kind == "f":
      return (0.1 * rng.normal(size=shape)).astype(value.dtype)
    if name in ("prompt", "transcript"):
      return rng.integers(1, 50, shape).astype(value.dtype)
    return np.broadcast_to(value, shape)

  return {name: fill(name, value) for name, value in blank.items()}
