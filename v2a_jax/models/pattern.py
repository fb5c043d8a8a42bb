"""The order in which the residual codes of the frames are decoded.

Code k of latent frame i is decoded at step i + late(k), all codes of a step at
once (MusicGen, arXiv:2306.05284, section 2.2):

  delay     late(k) = k: a step sees the coarser codes of its frames
  parallel  late(k) = 0: fewer steps; the codes of a frame do not see each other

With `delay` the steps hold, `-` being padding:

  step       0    1    2    3
  codebook 0 c0   c1   c2   -
  codebook 1 -    c0   c1   c2
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

PATTERNS = {
  "delay": lambda num_codebooks: tuple(range(num_codebooks)),
  "parallel": lambda num_codebooks: (0,) * num_codebooks,
}


@dataclasses.dataclass(frozen=True)
class Pattern:
  """Delays of the codebooks.

  Attributes:
    late: number of steps by which each codebook is late; the least is 0.
  """

  late: tuple[int, ...]

  @property
  def extra(self) -> int:
    """Number of steps after that of the last frame's first code."""
    return max(self.late)

  def lay_out(self, codes, pad):
    """Lays codes [b t q] out by step [b t+extra q], the corners `pad`."""
    t, late = codes.shape[1], np.array(self.late)
    frame = np.arange(t + self.extra)[:, None] - late
    laid = codes[:, np.clip(frame, 0, t - 1), np.arange(late.size)]
    return jnp.where((frame >= 0) & (frame < t), laid, pad)

  def collect(self, x):
    """Undoes `lay_out`: [b t+extra q ...] → [b t q ...]."""
    t = x.shape[1] - self.extra
    columns = [x[:, n : n + t, k] for k, n in enumerate(self.late)]
    return jnp.stack(columns, axis=2)
