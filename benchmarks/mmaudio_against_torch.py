"""Is MMAudio's flow network as fast here as the original in PyTorch?

  git clone https://github.com/hkchengrex/MMAudio     # not part of this project
  python -m benchmarks.mmaudio_against_torch MMAudio --network small_16k

Both get the same drawn weights and conditions, float32, the same number of
threads, one clip of 8 seconds. In turn: the velocity at one time, and all guided
Euler steps. Prints their relative difference, and the ratio of the times of each
round, ours over PyTorch's, with its range.
"""

import argparse
from collections.abc import Callable
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from tests.pretrained import mmaudio_networks as networks
from v2a_jax.experiment import mmaudio
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.guidance import Guidance
from v2a_jax.sampling.ode import ODESampler
from v2a_jax.sampling.windows import Windows
from v2a_jax.weights import tables

GUIDANCE = 4.5


def draw_original(folder: str, network: str, rng: np.random.Generator):
  """Makes the original's network with drawn weights."""
  sys.path.insert(0, folder)
  from mmaudio.model.networks import get_my_mmaudio

  original = get_my_mmaudio(network).eval().requires_grad_(False)
  for name, value in original.state_dict().items():
    scale = 1 / np.sqrt(max(np.prod(value.shape[1:]), 16))
    drawn = scale * rng.standard_normal(value.shape)
    if name.endswith(("norm.weight", "latent_std")):
      drawn = np.abs(drawn) + 1
    value.copy_(torch.from_numpy(drawn.astype(np.float32)))
  return original


def draw_inputs(original, rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Draws noise, and features of frames and of two prompts."""
  shapes = {
    "latent": (original.latent_seq_len, original.latent_dim),
    "clip": (original.clip_seq_len, 1024),
    "sync": (original.sync_seq_len, 768),
    "text": (77, 1024),
    "negative": (77, 1024),
  }
  return {
    name: rng.standard_normal((1, *shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


def theirs(original, given, steps: int) -> tuple[Callable, Callable]:
  """Makes functions of the original: the velocity, all guided steps."""
  x, clip, sync, text, negative = map(torch.from_numpy, given.values())

  @torch.inference_mode()
  def velocity():
    return original(x, clip, sync, text, torch.tensor([0.3])).numpy()

  @torch.inference_mode()
  def sample():
    conditions = original.preprocess_conditions(clip, sync, text)
    without = original.get_empty_conditions(1, negative_text_features=negative)
    now, grid = x, torch.linspace(0, 1, steps + 1)
    for t in grid[:-1]:  # Euler's, as the original's `FlowMatching`.
      flow = original.ode_wrapper(t, now, conditions, without, GUIDANCE)
      now = now + flow / steps
    return now.numpy()

  return velocity, sample


def ours(
  original, given, network: str, steps: int
) -> tuple[Callable, Callable]:
  """Makes the same functions of this project's network."""
  weights = {k: v.numpy() for k, v in original.state_dict().items()}
  sizes = networks.published_sizes(network, original.latent_dim)
  model = mmaudio.load_network(
    tables.in_memory(weights), *sizes, source=network
  )
  times = networks.times(sizes[0], original.latent_seq_len)
  x, negative = given["latent"], given["negative"]
  cond = networks.conditioning(given["clip"], given["sync"], given["text"])
  draw = Draw(
    keys=None,
    times=times,
    windows=Windows(len(times), len(times)),
    negative=(negative, jnp.ones(negative.shape[:2], bool)),
  )
  sampler = ODESampler(num_steps=steps, guidance=Guidance(joint=GUIDANCE))

  @jax.jit
  def velocity():
    return model(x, jnp.full(1, 0.3), model.encode(cond), times=times)

  @jax.jit
  def sample():
    return sampler.carry(x, model, Diffusion(), cond, draw)

  return (lambda: np.asarray(velocity())), (lambda: np.asarray(sample()))


def timed(function: Callable) -> tuple[np.ndarray, float]:
  """Returns what a function returns, and the seconds it took."""
  began = time.monotonic()
  return function(), time.monotonic() - began


def main() -> None:
  """Compares both in turn."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("folder", help="checkout of the original")
  parser.add_argument("--network", default="small_16k")
  parser.add_argument("--steps", type=int, default=25)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  original = draw_original(args.folder, args.network, rng)
  given = draw_inputs(original, rng)
  pairs = zip(
    theirs(original, given, args.steps),
    ours(original, given, args.network, args.steps),
  )
  print(f"{args.network}, {torch.get_num_threads()} threads, float32")
  for what, (their, our) in zip(("velocity", f"{args.steps} steps"), pairs):
    wanted, got = their(), our()  # Compiles, and warms up.
    apart = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
    rows = np.array(
      [[timed(our)[1], timed(their)[1]] for _ in range(args.rounds)]
    )
    ratios = rows[:, 0] / rows[:, 1]
    print(
      f"{what}: {np.median(rows[:, 0]):.3f} s here,"
      f" {np.median(rows[:, 1]):.3f} s in PyTorch, ratio"
      f" {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f},"
      f" {args.rounds} rounds); relative difference {apart:.1e}"
    )


if __name__ == "__main__":
  main()
