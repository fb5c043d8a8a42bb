"""A conditional generator: a condition encoder and a backbone."""

from flax import nnx


class Generator(nnx.Module):
  """Encodes the conditions once, then predicts as often as is asked.

  `encode(cond)` gives the tokens; calling the generator calls its backbone,
  whatever that predicts: a velocity (`dit.DiT`) or logits (`ar.TokenModel`).
  """

  def __init__(self, conditioner: nnx.Module, backbone: nnx.Module):
    self.conditioner = conditioner
    self.backbone = backbone

  def encode(self, cond):
    return self.conditioner(cond)

  def __call__(self, *args, **kwargs):
    return self.backbone(*args, **kwargs)
