"""A second, slower stream of the frames: what is there, beside when.

Synchronisation needs every frame and little width; meaning needs width and few
frames (SlowFast, arXiv:1812.03982). The slow stream is a wider `VideoEncoder`,
or a published vision tower that looks at each frame alone:

  feature_i = tower(frame_i)          x = W feature / rms(feature)
  tokens    = norm(blocks(x, times))

Both have the two parts of `VideoEncoder`: `look` and `follow`.
"""

import dataclasses

from flax import nnx

from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.conditioning import video
from v2a_jax.models import layers
from v2a_jax.pretrained import vit

NAMES = ("pixels", "vit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticConfig:
  """What the slow stream is made of.

  Attributes:
    name: `pixels`, an encoder of our own, or `vit`, a vision tower of CLIP or
      SigLIP.
    stride: every so many frames one is encoded. They carry their own times.
    temporal_depth: blocks along time.
    path: of `vit`: the folder from which a new run reads the tower.
    sizes: of `vit`: the tower's.
    patch_size: of `pixels`; this and what follows as in `ConditionerConfig`.
    spatial_width: of `pixels`.
    spatial_heads: of `pixels`.
    spatial_depth: of `pixels`.
    pool_queries: of `pixels`.
  """

  name: str
  stride: int = 1
  temporal_depth: int = 2
  path: str = ""
  sizes: vit.ViTConfig | None = None
  patch_size: int = 8
  spatial_width: int = 128
  spatial_heads: int = 2
  spatial_depth: int = 2
  pool_queries: int = 4

  def __post_init__(self):
    if self.name not in NAMES:
      raise ValueError(f"name={self.name!r} is not one of {', '.join(NAMES)}")
    if self.stride < 1:
      raise ValueError(f"stride={self.stride}, should be at least 1")
    if (self.name == "vit") != (self.sizes is not None):
      raise ValueError(f"name={self.name!r} with sizes={self.sizes}")


class TowerEncoder(video.FrameEncoder):
  """frames [b n h w 3] → tokens [b m width], through a vision tower."""

  frame_part = ("tower",)
  sees_neighbours = False

  def __init__(self, config, *, rngs, dtype=None):
    slow = config.semantic
    self.tower = vit.ViT(slow.sizes, rngs=rngs, dtype=dtype or "float32")
    self.tower.stack.remat = config.remat
    self.project = layers.dense(
      slow.sizes.feature_dim,
      config.width,
      axes=(None, "embed"),
      rngs=rngs,
      dtype=dtype,
    )
    super().__init__(config, slow.temporal_depth, rngs=rngs, dtype=dtype)

  @property
  def feature_dim(self) -> int:
    return self.tower.config.feature_dim

  @property
  def settings(self) -> dict:
    return dataclasses.asdict(self.tower.config)

  def look(self, frames, mask, *, stride: int = 1):
    """A feature [b m f] of every `stride`-th of frames [b n h w 3]."""
    del mask  # A frame is seen alone.
    return self.tower(frames[:, ::stride])

  def follow(self, features, times, mask):
    """Tokens of features [b m f] at times [b m], of mask bool [b m]."""
    x = self.project(layers.rms_norm(features))
    return super().follow(x, times, mask)

  def look_flops(self, frames: int, size: tuple[int, int]) -> int:
    """Of so many frames of (h, w) pixels."""
    return frames * self.tower.flops(size)

  def follow_flops(self, frames: int) -> int:
    """Of one clip with so many features."""
    projected = layers.matmul_flops(self.project, frames)
    return projected + super().follow_flops(frames)


def make_encoder(config, *, rngs, dtype) -> nnx.Module:
  """The slow stream of a `ConditionerConfig`."""
  slow = config.semantic
  if slow.name == "vit":
    return TowerEncoder(config, rngs=rngs, dtype=dtype)
  shared = {f.name for f in dataclasses.fields(config)} - {"semantic", "tune"}
  own = {k: v for k, v in dataclasses.asdict(slow).items() if k in shared}
  return video.VideoEncoder(
    dataclasses.replace(config, **own), rngs=rngs, dtype=dtype
  )


def encode(encoder, cond, null, *, stride: int = 1):
  """One stream of the frames.

  Args:
    encoder: a `VideoEncoder` or `TowerEncoder`.
    cond: `Conditioning`; its `features`, if there are any, are what
      `encoder.look` would give for every frame.
    null: [d], what stands for the frames where there are none.
    stride: every so many frames one is encoded.

  Returns:
    (tokens [b m d], times [b m], mask bool [b m]).
  """
  times = cond.frame_times[:, ::stride]
  mask = cond.frame_mask[:, ::stride]
  if cond.features is None:
    features = encoder.look(cond.frames, cond.frame_mask, stride=stride)
  else:
    features = cond.features[:, ::stride]
  tokens = encoder.follow(features, times, mask)
  tokens, mask = tokens_lib.or_null(tokens, mask, null)
  return tokens, times, mask
