"""A conditional generator: condition encoders and a backbone."""

from typing import Any, ClassVar, Protocol

from flax import nnx
import jax


class BackboneConfig(Protocol):
  """Settings of a backbone.

  Attributes:
    family: `diffusion`, `tokens` or `next_latents`; objectives and samplers of
      the same family go with it.
    target: what it generates, `latents` or `codes`.
    conditioner: name of its condition encoders, of `conditioning.CONDITIONERS`.
    width: number of features of a condition token.
    num_heads: number of attention heads, also of the condition encoders.
    remat: rematerialisation policy, also of the condition encoders.
    unroll: number of blocks unrolled in each scan, likewise.
    dtype: dtype of the computation, likewise.
  """

  family: ClassVar[str]
  target: ClassVar[str]
  conditioner: ClassVar[str]
  width: int
  num_heads: int
  remat: str
  unroll: int
  dtype: str

  def make(self, *, rngs: nnx.Rngs) -> nnx.Module:
    """Makes the backbone."""
    ...


class Generator(nnx.Module):
  """Condition encoders, run once a clip, and a backbone, run at every step.

  A call is one of the backbone: it predicts a velocity (`dit.DiT`,
  `ar_latents.LatentModel`) or logits (`ar.TokenModel`).
  """

  def __init__(self, conditioner: nnx.Module, backbone: nnx.Module):
    self.conditioner = conditioner
    self.backbone = backbone

  def encode(self, cond) -> Any:
    """Encodes a `Conditioning` to `CondTokens`."""
    with jax.named_scope("conditioner"):
      return self.conditioner(cond)

  def __call__(self, x, *args, **kwargs) -> Any:
    """Calls the backbone."""
    with jax.named_scope("backbone"):
      return self.backbone(x, *args, **kwargs)

  def represent(self, x, *args, **kwargs) -> Any:
    """Predicts and regresses a teacher's features; see `dit.DiT.represent`."""
    with jax.named_scope("backbone"):
      return self.backbone.represent(x, *args, **kwargs)
