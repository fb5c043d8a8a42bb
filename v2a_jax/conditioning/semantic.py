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
from v2a_jax.pretrained import open_clip, vit

# Published vision towers that encode one frame at a time: `config` (class of the
# sizes), `make(sizes, rngs=, dtype=)`, `read_config(folder)`, `load(folder)`.
TOWERS = {"vit": vit.NETWORK, "open_clip": open_clip.VISION}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticConfig(video.PixelConfig):
  """The slow stream of the frames; see also `PixelConfig`, for `pixels`.

  Attributes:
    name: "" for no such stream, `pixels` for an encoder trained from pixels, or
      a published vision tower, one of `TOWERS`.
    stride: number of frames from one encoded frame to the next; tokens carry
      their frames' own times.
    path: folder from which a new run reads the tower.
    sizes: sizes of the tower; empty reads them from the folder.
  """

  name: str = ""
  stride: int = 1
  path: str = ""
  sizes: Any = settings.named(TOWERS)
  spatial_width: int = 128
  spatial_depth: int = 2

  def __post_init__(self):
    super().__post_init__()
    settings.choose(self, name=("", "pixels", *TOWERS))
    settings.check(self, stride="[1, inf)")


class TowerEncoder(video.FrameEncoder):
  """frames [b n h w 3] → tokens [b m width], through a vision tower."""

  frame_part = ("tower",)
  sees_neighbours = False

  def __init__(self, config, *, rngs, dtype):
    slow, common = config.semantic, dict(rngs=rngs, dtype=dtype)
    self.tower = TOWERS[slow.name].make(slow.sizes, **common)
    for _, module in nnx.iter_modules(self.tower):
      if isinstance(module, layers.Stack):
        module.remat = config.remat
    self.project = layers.dense(
      slow.sizes.feature_dim, config.width, axes=(None, "embed"), **common
    )
    super().__init__(config, slow.temporal_depth, **common)

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
  fields = dataclasses.fields(video.PixelConfig)
  config = dataclasses.replace(
    config, **{field.name: getattr(slow, field.name) for field in fields}
  )
  return video.VideoEncoder(config, rngs=rngs, dtype=dtype)


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
