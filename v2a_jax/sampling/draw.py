"""The arguments of a sampler beside the model and its conditions."""

import dataclasses
from typing import Any

from v2a_jax.sampling.windows import Windows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
  """One batch of b clips to generate.

  Attributes:
    keys: random keys [b], one per clip.
    times: times [length] of the steps of a window, in seconds.
    windows: how windows tile a clip.
    negative: (ids int [b·windows.count l], mask) of negative prompts, or None.
    known: (latents [b windows.total c] or codes [b windows.total q], mask
      [b windows.total]), the steps that are given; None for none. The mask is
      bool or float: the diffusion time until which a step is held, 1 for good
      and 0 for not at all. Models that do not diffuse hold those of 1.
    mask: bool [b windows.total], True where the clip exists, as in training;
      None for everywhere.
    shares: float [p windows.total] that sum to 1 over p: how much each of p
      sets of conditions says at each step. Conditions and negative prompts are
      then those of p·b clips, set by set. None for one set. Of a diffusion
      model only.
    like: latents [b windows.total c] to begin from instead of pure noise, of a
      diffusion model; None for noise.
    begin: diffusion time in [0, 1) to which they are brought by noise; more
      keeps more of them.
  """

  keys: Any
  times: Any
  windows: Windows
  negative: Any = None
  known: Any = None
  mask: Any = None
  shares: Any = None
  like: Any = None
  begin: float = 0.0
