"""How long do models take to make sound, beside each other and their own steps?

  python -m benchmarks.generation_time runs/diffusion runs/ar --clips 1 8

Makes clips as long as each model's window, from conditions to samples, as `v2a
generate` and `v2a eval` do, in one process and in turn, with the samplers that
the checkpoints name. Prints the median of the seconds a clip with its quartiles,
and its ratio to the first model round by round. One clip at a time is latency;
several at a time are what an evaluation pays.

Of diffusion models, also the ratio, round by round, to as many calls as there are
steps of the network alone, with all branches of guidance and all clips as one
batch: of making the samples, of its parts, and of whole takes of one video
(`Soundtracker`, from its file to samples and scores). With --processor_time all
are seconds of processors, of this process and its children: on a CPU that others
use, they change less.
"""

import argparse
from collections.abc import Callable, Iterator
import dataclasses
import os
import pathlib
import tempfile
import time

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import scenes
from v2a_jax import media
from v2a_jax.experiment import load
from v2a_jax.sampling.ode import ODESampler
from v2a_jax.soundtrack.synthesizer import DEFAULT
from v2a_jax.soundtrack.tracker import Soundtracker

SAMPLES, STEPS = "conditions to samples", "steps x one batched forward"


@dataclasses.dataclass(frozen=True)
class Timed:
  """A model, what it does in a round, and the seconds of each round."""

  model: Soundtracker
  work: dict[str, Callable[[int], object]]
  seconds: dict[str, list[float]]
  clock: Callable[[], float]

  def round(self, number: int) -> None:
    """Does everything once."""
    for name, do in self.work.items():
      began = self.clock()
      jax.block_until_ready(do(number))
      self.seconds[name].append(self.clock() - began)

  def of(self, name: str) -> np.ndarray:
    """Returns the seconds of all rounds but the first, which compiles."""
    return np.array(self.seconds[name][1:])


def processor_time() -> float:
  """Returns the seconds that processors have worked for this process."""
  return sum(os.times()[:4])


def timed(checkpoint: str, clips: int, video: pathlib.Path, clock) -> Timed:
  """Loads a model and lists what it does in a round."""
  trained = load.load(checkpoint)
  model = Soundtracker(trained)
  cond = model.experiment.blank_batch(clips).cond
  work = {SAMPLES: lambda seed: model.sample(cond, seed=seed)}
  if isinstance(model.experiment.sampler, ODESampler):
    work |= _steps(trained.model, model, cond)
    latents = model.draw(cond)
    work |= {
      "to latents": lambda seed: model.draw(cond, seed=seed),
      "decoding": lambda seed: model.decode(latents),
      "whole takes": lambda seed: (
        model(video, num_candidates=clips, seed=seed).best.samples
      ),
    }
  return Timed(model, work, {name: [] for name in work}, clock)


def _steps(generator, model: Soundtracker, cond) -> dict[str, Callable]:
  """Returns the encoding of conditions, and the network's steps after it."""
  sampler = model.experiment.sampler
  branches, _ = sampler.guidance.branches(cond)
  graphdef, state = nnx.split(generator)
  rate = model.codec.config.latent_rate
  length = round(model.window_seconds * rate)
  times = (jnp.arange(length, dtype=jnp.float32) + 0.5) / rate
  rows = branches.presence.shape[0]
  channels = generator.backbone.config.channels
  noise = jax.random.normal(jax.random.key(0), (rows, length, channels))

  @jax.jit
  def encode(state, cond):
    return nnx.merge(graphdef, state).encode(cond)

  @jax.jit
  def forward(state, x, t, tokens):
    every = jnp.full((rows,), t)
    return nnx.merge(graphdef, state)(x, every, tokens, times=times)

  tokens = encode(state, branches)

  def steps(seed: int):
    for step in range(sampler.num_steps):
      out = forward(state, noise, step / sampler.num_steps, tokens)
    return out

  return {STEPS: steps, "encoding": lambda seed: encode(state, branches)}


def lines_of(own: Timed, first: Timed, clips: int) -> Iterator[str]:
  """Says what was measured of a model."""
  seconds = own.of(SAMPLES) / clips
  middle, low, high = _quartiles(1000 * seconds)
  ratio = _quartiles(seconds / (first.of(SAMPLES) / clips))
  yield (
    f"{own.model.experiment.run.name}, {clips} at a time: {middle:.0f}"
    f" [{low:.0f}, {high:.0f}] ms for {own.model.window_seconds:g} s of sound,"
    f" {ratio[0]:.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}] times the first"
  )
  if STEPS in own.work:
    steps = own.of(STEPS)
    count = own.model.experiment.sampler.num_steps
    yield (
      f"  {count} {STEPS}: {_quartiles(1000 * steps / clips)[0]:.0f} ms a clip;"
      " in its measure"
    )
    for name in own.work:
      if name != STEPS:
        middle, low, high = _quartiles(own.of(name) / steps)
        yield f"  {name}: {middle:.2f} [{low:.2f}, {high:.2f}]"


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
  """Returns the median and the quartiles below and above it."""
  low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
  return middle, low, high


def main():
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("checkpoint", nargs="*", default=[DEFAULT])
  parser.add_argument("--clips", type=int, nargs="+", default=[1, 8])
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--processor_time", action="store_true")
  args = parser.parse_args()
  clock = processor_time if args.processor_time else time.monotonic
  device = jax.devices()[0].device_kind
  print(f"{device}, {args.rounds} rounds in turn, median [quartiles]")
  with tempfile.TemporaryDirectory() as folder:
    video = pathlib.Path(folder, "clip.mp4")
    media.encode_video(scenes.make_scene(0).frames, fps=25, path=video)
    for clips in args.clips:
      models = [timed(path, clips, video, clock) for path in args.checkpoint]
      for number in range(args.rounds + 1):
        for model in models:
          model.round(number)
      for model in models:
        print("\n".join(lines_of(model, models[0], clips)), flush=True)


if __name__ == "__main__":
  main()
