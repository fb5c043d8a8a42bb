"""Settings that every transformer here shares."""

import dataclasses

from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.models.layers import REMAT_POLICIES

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """Sizes of a transformer.

  Attributes:
    width: number of features of a token.
    num_heads: number of attention heads; divides the width into even parts.
    depth: number of blocks.
    mlp_dim: hidden size of the feed-forward layers.
    modulation_rank: rank of each block's modulation map; 0 for full rank.
    remat: rematerialisation policy, one of `layers.REMAT_POLICIES`.
    unroll: number of blocks unrolled in each scan.
    dtype: dtype of the computation, `float32` or `bfloat16`.
  """

  width: int
  num_heads: int
  depth: int
  mlp_dim: int
  modulation_rank: int = 0
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"

  def __post_init__(self):
    check(
      self,
      width="[1, inf)",
      num_heads="[1, inf)",
      depth="[0, inf)",
      mlp_dim="[1, inf)",
      modulation_rank="[0, inf)",
      unroll="[1, inf)",
    )
    choose(self, remat=REMAT_POLICIES, dtype=DTYPES)
    check_heads(self.width, self.num_heads)


def check_heads(
  width: int, num_heads: int, *, names: tuple[str, str] = ("width", "num_heads")
) -> None:
  """Checks that heads divide a width evenly, into even parts for rotation.

  Raises:
    SettingError: says which numbers of heads would.
  """
  if width % (2 * num_heads):
    fits = [n for n in range(1, width // 2 + 1) if width % (2 * n) == 0]
    advice = f"use one of {', '.join(map(str, fits))}" if fits else "change it"
    raise SettingError(
      f"{names[1]}={num_heads} does not divide {names[0]}={width} into heads of"
      f" an even size: {advice}"
    )
