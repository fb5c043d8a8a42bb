"""Settings shared by all transformers."""

import dataclasses
from typing import ClassVar

from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.models.attend import IMPLEMENTATIONS
from v2a_jax.models.layers import REMAT_POLICIES

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """Sizes of a transformer.

  Attributes:
    width: number of features of a token.
    num_heads: number of attention heads; each has an even number of features.
    depth: number of blocks.
    mlp_dim: hidden size of the feed-forward layers.
    modulation_rank: rank of each block's modulation map; 0 for full rank.
    attention: implementation of attention, `auto`, `xla`, `cudnn` (NVIDIA,
      bfloat16) or `splash` (TPU); `auto` takes what these devices have.
    remat: rematerialisation policy, one of `layers.REMAT_POLICIES`.
    unroll: number of blocks unrolled in each scan.
    dtype: dtype of the computation, `float32` or `bfloat16`.
  """

  conditioner: ClassVar[str] = "streams"

  width: int
  num_heads: int
  depth: int
  mlp_dim: int
  modulation_rank: int = 0
  attention: str = "auto"
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
    choose(self, attention=IMPLEMENTATIONS, remat=REMAT_POLICIES, dtype=DTYPES)
    check_heads(self)


def check_heads(
  settings, width: str = "width", heads: str = "num_heads", *, even: bool = True
) -> None:
  """Checks that heads divide a width.

  Args:
    settings: dataclass instance.
    width: name of its field with the number of features.
    heads: name of its field with the number of heads.
    even: whether a head's size must be even, as rotary positions need.

  Raises:
    SettingError: names the numbers of heads that fit.
  """
  size, num_heads = getattr(settings, width), getattr(settings, heads)
  unit = 2 if even else 1
  if size % (unit * num_heads):
    fits = [n for n in range(1, size // unit + 1) if size % (unit * n) == 0]
    advice = f"use one of {', '.join(map(str, fits))}" if fits else "change it"
    raise SettingError(
      f"{heads}={num_heads} does not divide {width}={size} into heads of an"
      f" {'even' if even else 'equal'} size: {advice}"
    )
