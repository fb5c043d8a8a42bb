"""Conditions of MMAudio's flow network: features of frames and of the prompt.

  clip   features of an image tower, 8 frames a second
  sync   features of a synchronisation network, 8 each 16 frames
  text   features of every token of the prompt

Each has an input layer; means of frames and prompt make the clip's condition.
An absent condition becomes the features that were learned, or measured, for it.
The two towers of the frames run once a clip (`embed`), not in `__call__`.

Cheng et al., https://arxiv.org/abs/2412.15322, section 3;
https://github.com/hkchengrex/MMAudio.
"""

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.batch import Conditioning
from v2a_jax.models import layers
from v2a_jax.models.mmaudio_layers import GatedMLP, Stem
from v2a_jax.parallel.sharding import by_batch

SEGMENT = 8  # synchronisation features of a segment


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
  """Encoded conditions; an absent one is already its learned features.

  Attributes:
    clip: [b n d], one token a frame.
    sync: [b m d], features of synchronisation.
    text: [b l d], one token for each of the prompt.
    summary: [b d], condition of the whole clip.
  """

  clip: Any
  sync: Any
  text: Any
  summary: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMAudioConditionerConfig:
  """Sizes of the features of frames and prompt.

  Attributes:
    clip_dim: number of features of a frame.
    sync_dim: number of features of synchronisation.
    text_dim: number of features of a token of the prompt.
    text_length: number of tokens of the prompt, with padding.
    seconds: length of the window in seconds.
    width: number of features of a condition token; the backbone's width.
    version: version of the network; the backbone's.
    dtype: dtype of the computation.
  """

  clip_dim: int = 1024
  sync_dim: int = 768
  text_dim: int = 1024
  text_length: int = settings.derived("data.prompt_length", default=77)
  seconds: float = settings.derived("data.seconds", default=8.0)
  width: int = settings.derived("model.width")
  version: int = settings.derived("model.version", default=1)
  dtype: str = settings.derived("model.dtype", default="float32")

  def __post_init__(self):
    settings.check(
      self, clip_dim="[1, inf)", sync_dim="[1, inf)", text_dim="[1, inf)"
    )

  def make(self, *, rngs: nnx.Rngs) -> "MMAudioConditioner":
    """Makes the encoders."""
    return MMAudioConditioner(self, rngs=rngs)


class MMAudioConditioner(nnx.Module):
  """`Conditioning` → `Tokens`."""

  def __init__(self, config: MMAudioConditionerConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    common = dict(rngs=rngs, dtype=jnp.dtype(c.dtype))
    stem = functools.partial(Stem, width=c.width, version=c.version, **common)
    self.clip_stem = stem(c.clip_dim, kernel=1, mlp_kernel=3)
    self.sync_stem = stem(c.sync_dim, kernel=7, mlp_kernel=3)
    self.text_stem = stem(c.text_dim, kernel=1, mlp_kernel=1)
    learned = lambda *shape: layers.learned(
      shape, axes=(None,) * len(shape), rngs=rngs
    )
    self.no_clip = learned(1, c.clip_dim)
    self.no_sync = learned(1, c.sync_dim)
    self.no_text = learned(c.text_length, c.text_dim)
    self.sync_positions = learned(1, 1, SEGMENT, c.sync_dim)
    dense = functools.partial(
      layers.dense, axes=("embed", None), use_bias=True, **common
    )
    self.clip_summary = dense(c.width, c.width)
    self.text_summary = dense(c.width, c.width)
    self.summary = GatedMLP(c.width, 1, **common)

  def __call__(self, cond: Conditioning) -> Tokens:
    """Encodes conditions; `features` are a mapping with `clip` and `sync`."""
    seen, told = (m.any(axis=1) for m in (cond.frame_mask, cond.prompt_mask))
    clip = or_none(cond.features["clip"], seen, self.no_clip[...])
    sync = or_none(cond.features["sync"], seen, self.no_sync[...])
    text = or_none(cond.prompt, told, self.no_text[...])
    clip, text = self.clip_stem(clip), self.text_stem(text)
    segments = sync.reshape(len(sync), -1, SEGMENT, sync.shape[-1])
    sync = (segments + self.sync_positions[...]).reshape(sync.shape)
    mean = lambda x: x.mean(axis=1, keepdims=True)
    summary = self.clip_summary(mean(clip)) + self.text_summary(mean(text))
    return Tokens(
      clip=clip,
      sync=self.sync_stem(sync),
      text=text,
      summary=by_batch(self.summary(by_batch(summary)))[:, 0],
    )


def or_none(features, present, none):
  """Replaces the features [b n f] of rows that are not `present` by `none`."""
  none = jnp.broadcast_to(none, features.shape[1:]).astype(features.dtype)
  return jnp.where(present[:, None, None], features, none)
