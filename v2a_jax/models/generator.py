"""A conditional generator: a condition encoder and a backbone."""

from flax import nnx


class Generator(nnx.Module):
  """Encodes the conditions once, then predicts as often as is asked.

  `encode(cond)` gives the tokens; calling the generator calls its backbone,
  whatever that predicts: a velocity (`dit.DiT`, `ar_latents.LatentModel`) or
  logits (`ar.TokenModel`).
  """

  def __init__(self, conditioner: nnx.Module, backbone: nnx.Module):
    self.conditioner = conditioner
    self.backbone = backbone

  def encode(self, cond):
    return self.conditioner(cond)

  def __call__(self, x, *args, **kwargs):
    return self.backbone(x, *args, **kwargs)

  def flops_per_example(self, cond, length: int) -> int:
    """Analytic FLOPs of one forward pass, for `length` latents.

    Args:
      cond: conditions of any batch; only shapes are read.
      length: latents, or latent frames of codes.
    """
    text = cond.prompt.shape[1] + cond.transcript.shape[1]
    sync = cond.frame_mask.shape[1]
    frames = self.conditioner.slow_frames(sync)
    return self.conditioner.flops(cond) + self.backbone.flops(
      length, frames, text, sync=sync
    )
