"""Averages of the weights whose length is chosen after the training.

An average of power γ weighs the weights θ of step τ by τ^γ:

  (1)  avg_γ(t) = sum over τ to t of ((τ^(γ+1) - (τ-1)^(γ+1)) / t^(γ+1)) θ(τ)

which is updated at step t = 1, 2, ... with 1 - (1 - 1/t)^(γ+1). Its length is the
standard deviation of those shares as a share of the training,

  (2)  length = sqrt(γ+1) / ((γ+2) sqrt(γ+3))

A run keeps two, and any other one is nearly a sum of those in its checkpoints:
the one whose shares over τ are nearest in least squares, scaled to sum to 1.

Karras et al., "Analyzing and improving the training dynamics of diffusion
models", https://arxiv.org/abs/2312.02696, section 3 and appendix C.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics.settings import SettingError

# The averages that are kept, by name, and their lengths.
LENGTHS = {"short": 0.05, "long": 0.1}
_LONGEST = 12**-0.5  # of all steps alike
_MOST_OFF = 0.25  # root mean square that the shares may be off, relative


def power(length: float) -> float:
  """Returns γ of (2).

  Raises:
    SettingError: no average has this length.
  """
  if not 0 < length < _LONGEST:
    raise SettingError(
      f"average_length={length:g} is not in (0, {_LONGEST:.3f}), the share of"
      " the training that an average is long"
    )
  precision = length**-2
  roots = np.roots([1, 7, 16 - precision, 12 - precision])
  return float(roots.real.max())


def update(averages: dict[str, Any], params: Any, step) -> dict[str, Any]:
  """Adds the weights after step `step`, counted from 1, to averages by name."""
  updated = {}
  for name, average in averages.items():
    # Rounding would change 1 - (1 - 1/t)^(γ+1) of late steps.
    late = jnp.log1p(-1 / jnp.asarray(step, jnp.float32))
    share = -jnp.expm1((power(LENGTHS[name]) + 1) * late)
    add = lambda old, new, share=share: old + share * (new - old)
    updated[name] = jax.tree.map(add, average, params)
  return updated


def shares(
  snapshots: Sequence[tuple[int, str]], *, step: int, length: float
) -> np.ndarray:
  """Returns how much of each snapshot makes the average of a length.

  Args:
    snapshots: (step, name in `LENGTHS`) of each.
    step: step at which the average ends.
    length: its length, of all the training until then.

  Raises:
    SettingError: no average has that length, or nothing near it is a sum of
      these snapshots.
  """
  steps = np.array([taken for taken, _ in snapshots], float)
  powers = np.array([power(LENGTHS[name]) for _, name in snapshots])
  between = _overlap(steps[:, None], powers[:, None], steps[None], powers[None])
  end, target = float(step), power(length)
  wanted = _overlap(steps, powers, end, target)
  found = np.linalg.lstsq(between, wanted, rcond=None)[0]
  found /= found.sum()
  square = _overlap(end, target, end, target)
  more = (found @ between @ found - 2 * found @ wanted) / square
  off = np.sqrt(max(1 + more, 0))
  if not off <= _MOST_OFF:
    raise SettingError(
      f"average_length={length:g} cannot be made from the {len(set(steps))}"
      f" checkpoints until step {step}: the nearest average is {off:.0%} off; ask"
      f" for one nearer to {' or '.join(map(str, LENGTHS.values()))}, or keep"
      " more checkpoints with config.keep_period"
    )
  return found


def _overlap(t, g, u, h):
  """Integrates the product of two averages' shares over τ.

  Args:
    t: step at which the first one ends.
    g: its power.
    u: step at which the second one ends.
    h: its power.
  """
  ratio = np.where(t < u, (t / u) ** h, (u / t) ** g)
  return (g + 1) * (h + 1) * ratio / ((g + h + 1) * np.maximum(t, u))
