"""Raw pixels to one token a frame: a factorised space-time transformer.

Each frame is cut into patches, joined with their differences to both
neighbouring frames, so the first layer sees motion (tubelets of three frames,
arXiv:2103.15691, with stride one). Patches attend within their frame, a few
learned queries pool them, and frames attend along time by their timestamps.
Any number of frames, any frame rate and any multiple of the patch size work.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import attention, layers
from v2a_jax.models.config import check_heads
from v2a_jax.parallel.sharding import by_batch, split_by


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelConfig:
  """Sizes of a `VideoEncoder`.

  Attributes:
    patch_size: height and width of a patch in pixels; divides the frame's.
    spatial_width: number of features of a patch, a multiple of 4.
    spatial_heads: number of attention heads over the patches of a frame.
    spatial_depth: number of blocks over the patches of a frame.
    pool_queries: number of learned queries that pool a frame's patches.
    temporal_depth: number of blocks along time.
  """

  patch_size: int = 8
  spatial_width: int = 64
  spatial_heads: int = 2
  spatial_depth: int = 1
  pool_queries: int = 4
  temporal_depth: int = 2

  def __post_init__(self):
    at_least_1 = "patch_size spatial_width spatial_heads pool_queries".split()
    settings.check(
      self,
      **dict.fromkeys(at_least_1, "[1, inf)"),
      spatial_depth="[0, inf)",
      temporal_depth="[0, inf)",
    )
    check_heads(self, "spatial_width", "spatial_heads")
    if self.spatial_width % 4:
      raise settings.SettingError(
        f"spatial_width={self.spatial_width} is not a multiple of 4, which"
        " positions in two dimensions need"
      )


def patchify(frames, size: int):
  """Cuts [b n h w c] into patches [b n p size·size·c], row by row.

  Raises:
    ValueError: h or w is not a multiple of `size`.
  """
  b, n, h, w, c = frames.shape
  if h % size or w % size:
    raise ValueError(
      f"frames of {h}x{w} pixels are not a multiple of patch_size={size}:"
      " change data.frame_size or model.conditioner.patch_size"
    )
  x = frames.reshape(b, n, h // size, size, w // size, size, c)
  x = x.transpose(0, 1, 2, 4, 3, 5, 6)
  return x.reshape(b, n, (h // size) * (w // size), size * size * c)


def patch_positions(h: int, w: int, features: int):
  """Returns sine-cosine positions [h·w, features] in fractions of a frame."""
  quarter = features // 4
  frequency = jnp.pi * 2.0 ** jnp.linspace(0.0, 3.0, quarter)
  y = (jnp.arange(h) + 0.5)[:, None] / h * frequency
  x = (jnp.arange(w) + 0.5)[:, None] / w * frequency
  y = jnp.repeat(jnp.concatenate([jnp.sin(y), jnp.cos(y)], -1), w, axis=0)
  x = jnp.tile(jnp.concatenate([jnp.sin(x), jnp.cos(x)], -1), (h, 1))
  return jnp.concatenate([y, x], axis=-1)


class PoolQueries(nnx.Module):
  """Attention of `count` learned queries, joined to one vector a frame."""

  def __init__(self, width_in, width_out, *, count, rngs, dtype=None):
    self.queries = layers.learned(
      (count, width_in), axes=(None, "embed"), rngs=rngs, scale=1.0
    )
    common = dict(rngs=rngs, dtype=dtype)
    self.key_value = layers.fused(width_in, 2, width_in, axis=None, **common)
    self.out = layers.dense(
      count * width_in, width_out, axes=("embed", None), **common
    )

  def __call__(self, x):
    """Pools x [... p d_in] to [... d_out]."""
    key_value = self.key_value(layers.rms_norm(x))
    key, value = key_value[..., 0, :], key_value[..., 1, :]
    queries = self.queries[...].astype(key.dtype)
    score = jnp.einsum("qd,...pd->...qp", queries, layers.rms_norm(key))
    weight = jax.nn.softmax(score.astype(jnp.float32) / x.shape[-1] ** 0.5)
    pooled = weight.astype(value.dtype) @ value
    return self.out(pooled.reshape(*pooled.shape[:-2], -1))


class FrameEncoder(nnx.Module):
  """frames [b n h w 3] → tokens [b n width], in two parts.

  `embed_frames`, which subclasses write, gives a feature to each frame;
  `attend_time` lets the features attend along time. The first can be frozen and
  its features kept beside the data. Subclasses also write the properties
  `feature_dim`, and `settings`: what the features depend on beside weights.

  Attributes:
    frame_part: names of the attributes that belong to `embed_frames`.
    sees_neighbours: whether a frame's feature depends on those beside it.
  """

  frame_part: tuple[str, ...]
  sees_neighbours: bool

  def __init__(self, config, depth: int, *, rngs, dtype=None):
    self.temporal = attention.self_attention_stack(
      config, depth, rngs=rngs, dtype=dtype
    )
    self.norm = layers.RMSNorm(config.width, rngs=rngs)

  def attend_time(self, features, times, mask):
    """Maps features [b m f] at times [b m], of mask bool [b m], to tokens."""
    return self.norm(self.temporal(features, times, mask))


class VideoEncoder(FrameEncoder):
  """An encoder trained from raw pixels."""

  frame_part = ("embed", "spatial", "pool")
  sees_neighbours = True

  def __init__(self, config, *, rngs, dtype=None):
    c, common = config, dict(rngs=rngs, dtype=dtype)
    self.patch_size, self.spatial_heads = c.patch_size, c.spatial_heads
    inputs = 3 * 3 * c.patch_size**2
    self.embed = layers.dense(
      inputs, c.spatial_width, axes=(None, "embed"), use_bias=True, **common
    )
    within_frame = dataclasses.replace(
      c, width=c.spatial_width, num_heads=c.spatial_heads
    )
    self.spatial = attention.self_attention_stack(
      within_frame, c.spatial_depth, axes=("frames", None), **common
    )
    self.pool = PoolQueries(
      c.spatial_width, c.width, count=c.pool_queries, **common
    )
    super().__init__(c, c.temporal_depth, **common)

  @property
  def feature_dim(self) -> int:
    """Number of features of a frame."""
    return self.pool.out.out_features

  @property
  def settings(self) -> dict[str, int]:
    """What the features depend on beside the weights."""
    return {"patch_size": self.patch_size, "heads": self.spatial_heads}

  def embed_frames(self, frames, mask, *, stride: int = 1):
    """Encodes every `stride`-th frame to a feature: [b m width].

    Args:
      frames: uint8 [b n h w 3].
      mask: bool [b n].
      stride: number of frames from one encoded frame to the next; differences
        are to the neighbours in `frames`.
    """
    b, _, h, w, _ = frames.shape
    size = self.patch_size
    x = patchify(frames.astype(jnp.float32) / 127.5 - 1.0, size)
    x = by_batch(self.embed(motion(x, mask)[:, ::stride]))
    x = x + patch_positions(h // size, w // size, x.shape[-1]).astype(x.dtype)
    x = split_by(x.reshape(-1, *x.shape[2:]), "frames")
    still = jnp.zeros((1, x.shape[1]))  # Patches of a frame share its time.
    x = self.spatial(x, still, None)
    return by_batch(self.pool(x).reshape(b, -1, self.feature_dim))


def motion(x, mask):
  """Joins each frame's patches with their differences to both neighbours.

  Args:
    x: patches [b n p c].
    mask: bool [b n]; differences to a missing frame are zero.

  Returns:
    [b n p 3c].
  """
  change = x[:, 1:] - x[:, :-1]
  both = mask[:, 1:] & mask[:, :-1]
  change = jnp.where(both[..., None, None], change, 0.0)
  before = jnp.pad(change, ((0, 0), (1, 0), (0, 0), (0, 0)))
  after = jnp.pad(change, ((0, 0), (0, 1), (0, 0), (0, 0)))
  x = jnp.where(mask[..., None, None], x, 0.0)
  return jnp.concatenate([x, before, after], axis=-1)
