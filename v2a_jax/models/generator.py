"""A conditional generator: a condition encoder and a backbone."""

from typing import Any, ClassVar, Protocol

from flax import nnx
import jax


class BackboneConfig(Protocol):
  """What a backbone's settings class says beside its sizes.

  Attributes:
    family: which objectives and samplers it goes with: those of the same
      family, `diffusion`, `tokens` or `next_latents`.
    target: what it generates, `latents` or `codes`.
    width: number of features of a condition token.
    num_heads: number of heads, for the condition encoders, too.
    remat: rematerialisation policy, likewise.
    unroll: number of blocks unrolled in each scan, likewise.
    dtype: dtype of the computation, likewise.
  """

  family: ClassVar[str]
  target: ClassVar[str]
  width: int
  num_heads: int
  remat: str
  unroll: int
  dtype: str

  def make(self, *, rngs: nnx.Rngs) -> nnx.Module:
    """Makes the backbone."""
    ...


class Generator(nnx.Module):
  """Encodes the conditions once, then predicts as often as is asked.

  `encode(cond)` gives the condition tokens; calling the generator calls its
  backbone, whatever that predicts: a velocity (`dit.DiT`,
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
