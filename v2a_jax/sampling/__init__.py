"""From a trained model to latents or codes.

To add a sampler, write a file with a settings class that is called like
`ode.ODESampler` and name it here; solvers are in `solvers.SOLVERS`.
"""

from v2a_jax.sampling.autoregressive import LatentSampler, TokenSampler
from v2a_jax.sampling.ode import ODESampler

SAMPLERS: dict[str, type] = {
  "ode": ODESampler,
  "tokens": TokenSampler,
  "latents": LatentSampler,
}
