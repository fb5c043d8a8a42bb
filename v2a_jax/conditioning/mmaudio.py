"""Conditions of MMAudio's flow network: features of frames and of the prompt.

  clip   features of an image tower, 8 frames a second, of length 1
  sync   features of a synchronisation network, 8 each 16 frames at 25 a second
  text   features of every token of the prompt, of length 1

Each has an input layer; means of frames and prompt make the clip's condition.
An absent condition becomes the features that were learned, or measured, for it.
The towers of the frames see the footage at rates and sizes of their own
(`views`), so they run once a clip (`embed`), not in `__call__`.

Cheng et al., https://arxiv.org/abs/2412.15322, section 3;
https://github.com/hkchengrex/MMAudio.
"""

import dataclasses
import functools
from typing import Any, ClassVar

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.batch import Conditioning
from v2a_jax.conditioning.published import PublishedConfig
from v2a_jax.conditioning.semantic import TOWERS
from v2a_jax.conditioning.text import NETWORKS, PromptEncoderConfig
from v2a_jax.models import layers, lora
from v2a_jax.models.mmaudio_layers import GatedMLP, Stem
from v2a_jax.parallel.sharding import by_batch
from v2a_jax.pretrained import synchformer

CLIP_FPS = 8.0
SYNC_NETWORKS = {"synchformer": synchformer.VISUAL}
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
class View:
  """How a tower sees the footage.

  Attributes:
    name: name of its features.
    fps: frames a second, in Hz.
    pixels: height and width of its input in pixels.
  """

  name: str
  fps: float
  pixels: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig(PublishedConfig):
  """A published image tower that encodes frames; see `PublishedConfig`.

  Attributes:
    name: network: `vit` or `open_clip`; "" where features come with the data.
  """

  NETWORKS = TOWERS

  sizes: Any = settings.named(TOWERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig(PublishedConfig):
  """A published network that gives features of synchronisation.

  See `PublishedConfig`.

  Attributes:
    name: network: `synchformer`; "" where features come with the data.
  """

  NETWORKS = SYNC_NETWORKS

  sizes: Any = settings.named(SYNC_NETWORKS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMAudioConditionerConfig:
  """Sizes of the features of frames and prompt, and the towers they are of.

  Attributes:
    prompt_encoder: published network that reads the prompt; without a name the
      prompt is given as features.
    clip: published network that encodes frames.
    sync: published network that gives features of synchronisation.
    clip_dim: number of features of a frame.
    sync_dim: number of features of synchronisation.
    text_dim: number of features of a token of the prompt.
    text_length: number of tokens of the prompt, with padding.
    seconds: length of the window in seconds.
    width: number of features of a condition token; the backbone's width.
    version: version of the network; the backbone's.
    dtype: dtype of the computation.
  """

  tune: ClassVar[str] = "frozen"  # the towers; the input layers are trained
  reads_transcript: ClassVar[bool] = False
  reads_frames: ClassVar[bool] = False  # beside their features

  prompt_encoder: PromptEncoderConfig = PromptEncoderConfig()
  clip: ClipConfig = ClipConfig()
  sync: SyncConfig = SyncConfig()
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
    for name, size in (("clip", "feature_dim"), ("sync", "feature_dim")):
      self._check_size(name, getattr(self, name), size, f"{name}_dim")
    self._check_size(
      "prompt_encoder", self.prompt_encoder, "features", "text_dim"
    )

  def _check_size(self, section: str, network, theirs: str, ours: str) -> None:
    """Refuses a network whose features are not of the size that is set."""
    if network.sizes is None:
      return
    found = getattr(network.sizes, theirs)
    if found != getattr(self, ours):
      raise settings.SettingError(
        f"{ours}={getattr(self, ours)}, but {section} {network.name!r} has"
        f" {found} features: set {ours}={found}"
      )

  @property
  def sync_per_frame(self) -> int:
    """Number of features of synchronisation for each frame that CLIP sees.

    Raises:
      SettingError: it is no whole number for windows of this length.
    """
    frames = round(CLIP_FPS * self.seconds)
    sizes = self.sync.sizes or synchformer.SynchformerConfig()
    segments = (round(synchformer.FPS * self.seconds) - sizes.segment) // (
      sizes.stride
    ) + 1
    count, rest = divmod(sizes.moments * segments, frames)
    if rest:
      raise settings.SettingError(
        f"seconds={self.seconds:g}: features of its frames cannot be kept with"
        " a data set; use 8"
      )
    return count

  @property
  def views(self) -> tuple[View, ...]:
    """How the towers see the footage; none for a tower that is left out."""
    views = []
    if self.clip.name:
      pixels = self.clip.sizes.image_size
      views.append(View(name="clip", fps=CLIP_FPS, pixels=pixels))
    if self.sync.name:
      pixels = self.sync.sizes.image_size
      views.append(View(name="sync", fps=synchformer.FPS, pixels=pixels))
    return tuple(views)

  def make(self, *, rngs: nnx.Rngs) -> "MMAudioConditioner":
    """Makes the encoders."""
    return MMAudioConditioner(self, rngs=rngs)


class Prompt(nnx.Module):
  """Prompt ids → features of each token, of length 1, by a frozen encoder."""

  def __init__(self, config: PromptEncoderConfig, *, rngs, dtype):
    make = NETWORKS[config.name].make
    self.encoder = lora.freeze(make(config.sizes, rngs=rngs, dtype=dtype))

  def __call__(self, ids, mask):
    """Encodes ids int [b l] of mask bool [b l] to [b l features]."""
    return unit(self.encoder(ids, mask))


class MMAudioConditioner(nnx.Module):
  """`Conditioning` → `Tokens`."""

  # Networks that only some models have.
  prompt = clip = sync = None

  def __init__(self, config: MMAudioConditionerConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    common = dict(rngs=rngs, dtype=jnp.dtype(c.dtype))
    if c.prompt_encoder.name:
      self.prompt = Prompt(c.prompt_encoder, **common)
    if c.clip.name:
      tower = TOWERS[c.clip.name].make(c.clip.sizes, **common)
      self.clip = lora.freeze(tower)
    if c.sync.name:
      tower = SYNC_NETWORKS[c.sync.name].make(c.sync.sizes, **common)
      self.sync = lora.freeze(tower)
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

  @property
  def feature_dim(self) -> int:
    """Number of features of a frame that data sets keep; see `pack`."""
    c = self.config
    return c.clip_dim + c.sync_per_frame * c.sync_dim

  @property
  def frame_part(self) -> tuple[list, list[tuple[str, ...]]]:
    """What those depend on: settings, and how names of weights begin."""
    c = self.config
    sizes = [dataclasses.asdict(x.sizes) for x in (c.clip, c.sync) if x.sizes]
    parts = [("conditioner", name) for name in ("clip", "sync")]
    return ["mmaudio", sizes, c.dtype], parts

  @property
  def streams(self) -> dict[str, nnx.Module]:
    """The encoders by the name of the `jax.named_scope` that each runs in."""
    streams = {
      "frames": self.clip_stem,
      "motion": self.sync_stem,
      "text": self.text_stem,
    }
    return streams | ({"prompt": self.prompt} if self.prompt else {})

  def embed(self, name: str, frames):
    """Encodes a clip's frames by one of the towers.

    Args:
      name: name of one of the config's `views`.
      frames: uint8 [n h w 3], at the view's rate.

    Returns:
      float32 [m f], features of that name.
    """
    tower = getattr(self, name)
    features = tower.encode_clip(tower.preprocess(frames[None])[0])
    features = features.astype(jnp.float32)
    return unit(features) if name == "clip" else features

  def __call__(self, cond: Conditioning) -> Tokens:
    """Encodes conditions.

    Args:
      cond: conditions; `features` are a mapping with `clip` [b n f] and `sync`
        [b m g] or, as data sets keep them, one array [b n f + g·m/n] that has
        both for each of n frames. Without a prompt encoder `prompt` is float
        [b l f].

    Raises:
      ValueError: there are no features.
    """
    clip, sync = self._features(cond.features)
    seen, told = (m.any(axis=1) for m in (cond.frame_mask, cond.prompt_mask))
    text = cond.prompt
    if self.prompt is not None:
      with jax.named_scope("prompt"):
        text = self.prompt(text, cond.prompt_mask)
    with jax.named_scope("frames"):
      clip = self.clip_stem(or_none(clip, seen, self.no_clip[...]))
    with jax.named_scope("motion"):
      sync = or_none(sync, seen, self.no_sync[...])
      segments = sync.reshape(len(sync), -1, SEGMENT, sync.shape[-1])
      sync = (segments + self.sync_positions[...]).reshape(sync.shape)
      sync = self.sync_stem(sync)
    with jax.named_scope("text"):
      text = self.text_stem(or_none(text, told, self.no_text[...]))
    mean = lambda x: x.mean(axis=1, keepdims=True)
    summary = self.clip_summary(mean(clip)) + self.text_summary(mean(text))
    summary = by_batch(self.summary(by_batch(summary)))[:, 0]
    return Tokens(clip=clip, sync=sync, text=text, summary=summary)

  def pack(self, features):
    """Joins features of a clip to float32 [n f + g·m/n], as data sets keep them.

    Args:
      features: `clip` [n f] and `sync` [m g].
    """
    clip, sync = features["clip"], features["sync"]
    return np.concatenate([clip, sync.reshape(len(clip), -1)], axis=-1)

  def _features(self, features):
    """Returns features of frames [b n f] and of synchronisation [b m g]."""
    if features is None:
      raise ValueError(
        "MMAudio reads features of frames, and this batch has none: set"
        " config.data.features"
      )
    if isinstance(features, dict):
      return features["clip"], features["sync"]
    clip, sync = jnp.split(features, [self.config.clip_dim], axis=-1)
    return clip, sync.reshape(len(sync), -1, self.config.sync_dim)


def unit(x):
  """Scales [... f] to length 1."""
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def or_none(features, present, none):
  """Replaces the features [b n f] of rows that are not `present` by `none`."""
  none = jnp.broadcast_to(none, features.shape[1:]).astype(features.dtype)
  return jnp.where(present[:, None, None], features, none)
