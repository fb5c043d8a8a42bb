"""What a model is trained to do.

To add an objective, write a file with a settings class that has `loss` and
`evaluate` (see `base.Objective`) and name it here.
"""

from v2a_jax.objectives.base import Objective
from v2a_jax.objectives.codec import CodecObjective
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.objectives.mean_flow import MeanFlow
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.objectives.next_token import NextToken
from v2a_jax.objectives.sync import SyncObjective

OBJECTIVES: dict[str, type[Objective]] = {
  "diffusion": Diffusion,
  "mean_flow": MeanFlow,
  "next_token": NextToken,
  "next_latents": NextLatents,
  "codec": CodecObjective,
  "sync": SyncObjective,
}
