"""The visual half of Synchformer: features of motion for synchronisation.

A segment of 16 frames at 25 a second becomes patches of 2 frames and 16 x 16
pixels, 8 in time and 14 x 14 in space, and a class token. Each of the blocks
attends along time, then within a moment, from patches to patches and the class
token; the class token attends to all. At the end a layer with a class token of
its own pools each of the 8 moments.

  x += time(norm3(x)),  x += space(norm1(x)),  x += mlp(norm2(x))

Iashin et al., "Synchformer: Efficient synchronization from sparse cues",
https://arxiv.org/abs/2401.16423; blocks are those of Motionformer, Patrick et
al., https://arxiv.org/abs/2106.05392. Files are those of
https://github.com/v-iashin/Synchformer and of MMAudio, which has the same.
"""

import dataclasses
import os
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import layers
from v2a_jax.models.config import check_heads
from v2a_jax.pretrained import pixels as pixels_lib
from v2a_jax.pretrained import transformer
from v2a_jax.weights import published
from v2a_jax.weights.registry import MissingWeightsError
from v2a_jax.weights.tables import Row, Table

FPS = 25.0
FILES = ("synchformer_state_dict.safetensors", "synchformer_state_dict.pth")
_PREFIX = "vfeat_extractor."
_MEAN = _STD = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynchformerConfig:
  """Sizes; the defaults are the published ones.

  Attributes:
    hidden_size: number of features of a patch.
    num_hidden_layers: number of blocks.
    num_attention_heads: number of attention heads; divides `hidden_size`.
    intermediate_size: hidden size of the MLPs.
    image_size: height and width of the frames in pixels.
    patch_size: height and width of a patch in pixels.
    segment: number of frames of a segment.
    stride: number of frames from one segment to the next.
    tubelet: number of frames of a patch.
  """

  hidden_size: int = 768
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  intermediate_size: int = 3072
  image_size: int = 224
  patch_size: int = 16
  segment: int = 16
  stride: int = 8
  tubelet: int = 2

  def __post_init__(self):
    names = [field.name for field in dataclasses.fields(self)]
    settings.check(self, **dict.fromkeys(names, "[1, inf)"))
    check_heads(self, "hidden_size", "num_attention_heads", even=False)

  @property
  def feature_dim(self) -> int:
    """Number of features of a moment."""
    return self.hidden_size

  @property
  def moments(self) -> int:
    """Number of features of a segment."""
    return self.segment // self.tubelet


class DividedAttention(transformer.Attention):
  """Attention within groups of patches, each with the class token."""

  def __call__(self, x, shape, *, along_time: bool):
    """Attends.

    Args:
      x: class token and patches [b 1+t·p d].
      shape: (t, p), numbers of moments and of patches in each.
      along_time: whether a group is one place at all moments; else it is all
        places at one moment.
    """
    b, (t, p) = len(x), shape
    heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_dim)
    q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
    first = jax.nn.dot_product_attention(q[:, :1], k, v)

    def groups(y):
      y = y[:, 1:].reshape(b, t, p, *y.shape[2:])
      y = y.swapaxes(1, 2) if along_time else y
      return y.reshape(-1, *y.shape[2:])

    def with_first(y):
      rest = groups(y)
      own = jnp.repeat(y[:, :1], len(rest) // b, axis=0)
      return jnp.concatenate([own, rest], axis=1)

    rest = jax.nn.dot_product_attention(groups(q), with_first(k), with_first(v))
    rest = rest.reshape(b, *((p, t) if along_time else (t, p)), *q.shape[2:])
    rest = rest.swapaxes(1, 2) if along_time else rest
    out = jnp.concatenate([first, rest.reshape(b, t * p, *q.shape[2:])], axis=1)
    return self.out(out.reshape(x.shape))


class Block(nnx.Module):
  """Attention along time, attention within a moment, and an MLP."""

  def __init__(self, config: SynchformerConfig, *, rngs, dtype):
    c, common = config, dict(rngs=rngs, dtype=dtype)
    width, heads = c.hidden_size, c.num_attention_heads
    self.norm_time = norm(width, **common)
    self.norm_space = norm(width, **common)
    self.norm_mlp = norm(width, **common)
    self.time = DividedAttention(width, heads, **common)
    self.space = DividedAttention(width, heads, **common)
    self.mlp = mlp(c, **common)

  def __call__(self, x, shape):
    """Maps class token and patches [b 1+t·p d]; `shape` is (t, p)."""
    x = x + self.time(self.norm_time(x), shape, along_time=True)
    x = x + self.space(self.norm_space(x), shape, along_time=False)
    return x + self.mlp(self.norm_mlp(x))


def norm(width, *, rngs, dtype):
  """Makes a layer norm."""
  return transformer.layer_norm(width, epsilon=1e-6, rngs=rngs, dtype=dtype)


def mlp(config: SynchformerConfig, *, rngs, dtype):
  """Makes an MLP."""
  return transformer.MLP(
    config.hidden_size,
    config.intermediate_size,
    activation="gelu",
    rngs=rngs,
    dtype=dtype,
  )


class Synchformer(nnx.Module):
  """Frames → features of motion."""

  def __init__(
    self,
    config: SynchformerConfig,
    *,
    rngs: nnx.Rngs,
    dtype: Any = "float32",
  ):
    c = self.config = config
    self.dtype = jnp.dtype(dtype)
    common, width = dict(rngs=rngs, dtype=self.dtype), c.hidden_size
    size = (c.tubelet, c.patch_size, c.patch_size)
    self.patches = nnx.Conv(
      3, width, size, strides=size, padding="VALID", **common
    )
    tokens = lambda count: layers.learned(
      (1, count, width), axes=(None, None, "embed"), rngs=rngs
    )
    places = (c.image_size // c.patch_size) ** 2
    self.class_token, self.pool_token = tokens(1), tokens(1)
    self.positions, self.moments = tokens(1 + places), tokens(c.moments)
    self.stack = layers.Stack(
      lambda rngs: Block(c, rngs=rngs, dtype=self.dtype),
      c.num_hidden_layers,
      rngs=rngs,
    )
    self.norm = norm(width, **common)
    self.pool = transformer.Block(
      attention=transformer.Attention(width, c.num_attention_heads, **common),
      mlp=mlp(c, **common),
      norm=lambda: norm(width, **common),
    )

  def preprocess(self, frames):
    """Resizes and normalises frames [b n h w 3]; see `pixels.preprocess`."""
    size = self.config.image_size
    return pixels_lib.preprocess(
      frames, size=size, mean=_MEAN, std=_STD, crop=True
    )

  def encode_clip(self, pixels, *, batch_size: int = 4):
    """Encodes the preprocessed frames of one clip, a few segments at a time.

    Args:
      pixels: [n image_size image_size 3] at `FPS`, n at least `segment`; frames
        after the last whole segment are left out.
      batch_size: number of segments that are encoded at a time.

    Returns:
      [s·moments hidden_size] in `dtype`, of s segments.
    """
    c = self.config
    starts = range(0, len(pixels) - c.segment + 1, c.stride)
    segments = jnp.stack([pixels[i : i + c.segment] for i in starts])
    encode = lambda one: self.encode(one[None])[0]
    features = jax.lax.map(encode, segments, batch_size=batch_size)
    return features.reshape(-1, features.shape[-1])

  def encode(self, segments):
    """Encodes preprocessed segments.

    Args:
      segments: [s segment image_size image_size 3], in [-1, 1].

    Returns:
      [s moments hidden_size] in `dtype`.
    """
    x = self.patches(segments.astype(self.dtype))
    s, t, *places, d = x.shape
    p = places[0] * places[1]
    cast = lambda parameter: parameter[...].astype(x.dtype)
    positions = cast(self.positions)
    x = x.reshape(s, t, p, d) + positions[:, None, 1:]
    x = (x + cast(self.moments)[:, :, None]).reshape(s, t * p, d)
    first = cast(self.class_token) + positions[:, :1]
    x = jnp.concatenate([jnp.broadcast_to(first, (s, 1, d)), x], axis=1)
    x, _ = self.stack.scan(lambda block, x, _: (block(x, (t, p)), None), x)
    x = self.norm(x[:, 1:]).reshape(s * t, p, d)
    first = jnp.broadcast_to(cast(self.pool_token), (s * t, 1, d))
    x = self.pool(jnp.concatenate([first, x], axis=1))
    return x[:, 0].reshape(s, t, d)


def _attention(path: str, name: str, weight: str, bias: str) -> Table:
  """Returns where queries, keys and values are."""
  return {
    f"{path}/{part}/{ours}": Row(name=f"{name}{theirs}", maps=3, part=i)
    for i, part in enumerate("qkv")
    for ours, theirs in (("kernel", weight), ("bias", bias))
  }


def _table(_) -> Table:
  blocks, layer = "stack/blocks", f"{_PREFIX}blocks.{{}}"
  pool, aggregate = "pool", f"{_PREFIX}spatial_attn_agg"
  table = {
    "patches": f"{_PREFIX}patch_embed_3d.proj",
    "class_token": f"{_PREFIX}cls_token",
    "positions": f"{_PREFIX}pos_embed",
    "moments": f"{_PREFIX}temp_embed",
    "norm": f"{_PREFIX}norm",
    "pool_token": f"{aggregate}.cls_token",
    f"{pool}/norm_attention": f"{aggregate}.norm1",
    f"{pool}/norm_mlp": f"{aggregate}.norm2",
    f"{pool}/attention/out": f"{aggregate}.self_attn.out_proj",
    f"{pool}/mlp/up": f"{aggregate}.linear1",
    f"{pool}/mlp/down": f"{aggregate}.linear2",
    f"{blocks}/norm_time": f"{layer}.norm3",
    f"{blocks}/norm_space": f"{layer}.norm1",
    f"{blocks}/norm_mlp": f"{layer}.norm2",
    f"{blocks}/time/out": f"{layer}.timeattn.proj",
    f"{blocks}/space/out": f"{layer}.attn.proj",
    f"{blocks}/mlp/up": f"{layer}.mlp.fc1",
    f"{blocks}/mlp/down": f"{layer}.mlp.fc2",
  }
  for part, name in (("time", "timeattn"), ("space", "attn")):
    table |= _attention(
      f"{blocks}/{part}", f"{layer}.{name}.qkv", ".weight", ".bias"
    )
  return table | _attention(
    f"{pool}/attention",
    f"{aggregate}.self_attn.in_proj",
    "_weight",
    "_bias",
  )


def _rename(name: str) -> str | None:
  """Leaves out the other half, and patches of single frames, not used here."""
  unused = f"{_PREFIX}patch_embed."
  if name.startswith(unused) or not name.startswith(_PREFIX):
    return None
  return name


class _Visual(published.Network):
  """How the visual half is read."""

  def files(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the file of a folder's tensors; see `published.Network`."""
    for name in FILES:
      if (folder / name).is_file():
        return [folder / name]
    raise MissingWeightsError(f"{folder} has neither {' nor '.join(FILES)}")

  def read_config(self, folder: str | os.PathLike[str]) -> SynchformerConfig:
    """Returns the published sizes, which no file states."""
    del folder
    return SynchformerConfig()


VISUAL = _Visual(
  config=SynchformerConfig,
  make=Synchformer,
  table=_table,
  model_types={},
  rename=_rename,
)
