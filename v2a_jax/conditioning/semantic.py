"""A second, slower stream of the frames, for their content.

Synchronisation needs every frame and little width; content needs width and few
frames (SlowFast, arXiv:1812.03982). The slow stream is a wider `VideoEncoder`,
or a published vision tower that encodes each frame alone:

  feature_i = tower(frame_i)          x = W feature / rms(feature)
  tokens    = norm(blocks(x, times))
"""

import dataclasses
from typing import Any

from flax import nnx

from v2a_jax.basics import settings
from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.conditioning import video
from v2a_jax.models import layers
from v2a_jax.models.config import check_heads
from v2a_jax.pretrained import vit

# Published vision towers that encode one frame at a time.
TOWERS = {"vit": vit.NETWORK}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticConfig:
  """The slow stream of the frames.

  Attributes:
    name: "" for no such stream, `pixels` for an encoder trained from pixels, or
      a published vision tower, one of `TOWERS`.
    stride: number of frames from one encoded frame to the next; tokens carry
      their frames' own times.
    temporal_depth: number of blocks along time.
    path: folder from which a new run reads the tower.
    sizes: sizes of the tower; empty reads them from the folder.
    patch_size: height and width of a patch of `pixels`, in pixels.
    spatial_width: number of features of a patch of `pixels`.
    spatial_heads: number of attention heads over the patches of `pixels`.
    spatial_depth: number of blocks over the patches of `pixels`.
    pool_queries: number of learned queries that pool the patches of `pixels`.
  """

  name: str = ""
  stride: int = 1
  temporal_depth: int = 2
  path: str = ""
  sizes: Any = settings.named(TOWERS)
  patch_size: int = 8
  spatial_width: int = 128
  spatial_heads: int = 2
  spatial_depth: int = 2
  pool_queries: int = 4

  def __post_init__(self):
    at_least_1 = "stride patch_size spatial_width spatial_heads pool_queries"
    settings.choose(self, name=("", "pixels", *TOWERS))
    settings.check(
      self,
      temporal_depth="[0, inf)",
      spatial_depth="[0, inf)",
      **dict.fromkeys(at_least_1.split(), "[1, inf)"),
    )
    check_heads(self, "spatial_width", "spatial_heads")


class TowerEncoder(video.FrameEncoder):
  """frames [b n h w 3] → tokens [b m width], through a vision tower."""

  frame_part = ("tower",)
  sees_neighbours = False

  def __init__(self, config, *, rngs, dtype=None):
    slow = config.semantic
    self.tower = TOWERS[slow.name].make(
      slow.sizes, rngs=rngs, dtype=dtype or "float32"
    )
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
    """Number of features of a frame."""
    return self.tower.config.feature_dim

  @property
  def settings(self) -> dict:
    """What the features depend on beside the weights."""
    return dataclasses.asdict(self.tower.config)

  def embed_frames(self, frames, mask, *, stride: int = 1):
    """Encodes every `stride`-th frame of [b n h w 3] to a feature [b m f]."""
    del mask  # Each frame is encoded alone.
    return self.tower(frames[:, ::stride])

  def attend_time(self, features, times, mask):
    """Maps features [b m f] at times [b m], of mask bool [b m], to tokens."""
    x = self.project(layers.rms_norm(features))
    return super().attend_time(x, times, mask)


def make_encoder(config, *, rngs, dtype) -> nnx.Module:
  """Makes the slow stream of a `ConditionerConfig`."""
  slow = config.semantic
  if slow.name in TOWERS:
    return TowerEncoder(config, rngs=rngs, dtype=dtype)
  shared = {f.name for f in settings.keys(type(config))}
  own = {k: v for k, v in settings.as_dict(slow).items() if k in shared}
  return video.VideoEncoder(
    dataclasses.replace(config, **own), rngs=rngs, dtype=dtype
  )


def encode(encoder, cond, null, *, stride: int = 1):
  """Encodes one stream of the frames.

  Args:
    encoder: `VideoEncoder` or `TowerEncoder`.
    cond: `Conditioning`; its `features`, if not None, stand for those that
      `encoder.embed_frames` would compute for every frame.
    null: token [d] of a clip without frames.
    stride: number of frames from one encoded frame to the next.

  Returns:
    (tokens [b m d], times [b m], mask bool [b m]).
  """
  times = cond.frame_times[:, ::stride]
  mask = cond.frame_mask[:, ::stride]
  if cond.features is None:
    features = encoder.embed_frames(cond.frames, cond.frame_mask, stride=stride)
  else:
    features = cond.features[:, ::stride]
  tokens = encoder.attend_time(features, times, mask)
  tokens, mask = tokens_lib.or_null(tokens, mask, null)
  return tokens, times, mask
