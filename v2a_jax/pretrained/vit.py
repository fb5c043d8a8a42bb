"""Vision towers of CLIP and SigLIP: frames to features that know words.

  x = patches W (+ b) + P;  CLIP has a class token before the patches, and
  norm(x);  per layer  x += attend(norm(x)),  x += mlp(norm(x))
  CLIP:    feature = norm(class token) (W_p)
  SigLIP:  x = norm(x);  a learned query attends to all patches, y;
           feature = y + mlp(norm(y))

Radford et al., "Learning transferable visual models from natural language
supervision", https://arxiv.org/abs/2103.00020; Zhai et al., "Sigmoid loss for
language image pre-training", https://arxiv.org/abs/2303.15343. Both are ViTs:
https://arxiv.org/abs/2010.11929. Files are those of `transformers`, the tower
alone or with the text tower beside it. SigLIP 2 of a fixed size is read, too.
"""

import dataclasses
import os
import pathlib
import types
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.models import layers
from v2a_jax.pretrained import pixels as pixels_lib
from v2a_jax.pretrained import transformer
from v2a_jax.weights import published
from v2a_jax.weights.registry import WrongWeightsError

PREPROCESSING = "preprocessor_config.json"

_MODEL_TYPES = {
  "clip": "vision_config",
  "clip_vision_model": None,
  "siglip": "vision_config",
  "siglip_vision_model": None,
}
# What published configs leave out.
_DEFAULTS = {
  "clip": dict(
    patch_size=32,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
    projection_dim=512,
    image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711),
    do_center_crop=True,
  ),
  "siglip": dict(
    patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
  """Sizes, named as in config.json and preprocessor_config.json.

  Attributes:
    family: "clip" or "siglip".
    hidden_size: width.
    intermediate_size: width inside an MLP.
    num_hidden_layers: of the transformer.
    num_attention_heads: of each layer; divides the width.
    image_size: pixels, both sides.
    patch_size: pixels, both sides.
    hidden_act: activation.
    layer_norm_eps: of the norms.
    projection_dim: of CLIP's map into the space shared with text; None leaves
      the map out.
    vision_use_head: SigLIP only; without its head the feature is the patches'
      mean.
    image_mean: of red, green and blue in [0, 1].
    image_std: likewise.
    resample: 2 linear, 3 cubic.
    do_center_crop: the shorter side is made `image_size` and the middle cut
      out; else the frame is squashed into the square.
  """

  family: str
  hidden_size: int = 768
  intermediate_size: int = 3072
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  image_size: int = 224
  patch_size: int = 16
  num_channels: int = 3
  hidden_act: str = "gelu_pytorch_tanh"
  layer_norm_eps: float = 1e-6
  projection_dim: int | None = None
  vision_use_head: bool = True
  image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
  resample: int = 3
  do_center_crop: bool = False

  def __post_init__(self):
    if self.family not in _DEFAULTS:
      raise ValueError(
        f"ViTConfig: family={self.family!r} is not one of"
        f" {', '.join(_DEFAULTS)}"
      )
    transformer.check_activation("ViTConfig", "hidden_act", self.hidden_act)
    transformer.check_heads(
      "ViTConfig", self.hidden_size, self.num_attention_heads
    )
    if self.projection_dim and self.family != "clip":
      raise ValueError(
        f"ViTConfig: projection_dim={self.projection_dim}; {self.family} has no"
        " projection"
      )
    if self.num_channels != 3 or self.resample not in pixels_lib.RESAMPLE:
      raise ValueError(
        f"ViTConfig: num_channels={self.num_channels} and resample="
        f"{self.resample}; only 3, and one of {sorted(pixels_lib.RESAMPLE)}, are known"
      )

  @property
  def feature_dim(self) -> int:
    """Of the feature of a frame."""
    return self.projection_dim or self.hidden_size

  @property
  def has_head(self) -> bool:
    return self.family == "siglip" and self.vision_use_head

  @property
  def num_patches(self) -> int:
    return (self.image_size // self.patch_size) ** 2


def read_config(
  folder: str | os.PathLike[str], *, project: bool = False
) -> ViTConfig:
  """The sizes in a folder's config.json, the rest in preprocessor_config.json.

  Without the second file the preprocessing is the family's usual one.

  Args:
    folder: holds config.json.
    project: whether CLIP's last map is wanted.

  Raises:
    MissingWeightsError: there is no config.json.
    WrongWeightsError: it is of no such tower.
  """
  folder = pathlib.Path(folder)
  values = published.read_config(
    folder, _MODEL_TYPES, shared=("projection_dim",)
  )
  family = values["model_type"].removesuffix("_vision_model")
  preprocessing = {}
  if (folder / PREPROCESSING).is_file():
    preprocessing = published.read_json(folder / PREPROCESSING)
  for key in ("image_mean", "image_std"):
    if key in preprocessing:
      preprocessing[key] = tuple(preprocessing[key])
  values = {**_DEFAULTS[family], **values, **preprocessing, "family": family}
  if not project:
    values["projection_dim"] = None
  elif family != "clip":
    raise WrongWeightsError(
      f"{folder}: {family} has no projection; load it without `project`"
    )
  return published.sizes(ViTConfig, values, folder)


def load(
  folder: str | os.PathLike[str],
  *,
  project: bool = False,
  dtype: Any = "float32",
  param_dtype: Any = "float32",
) -> "ViT":
  """The tower that a folder holds.

  Args:
    folder: holds config.json and model.safetensors.
    project: CLIP only: map features into the space shared with text.
    dtype: of the computation.
    param_dtype: in which parameters are kept.

  Raises:
    MissingWeightsError: a file is absent.
    WrongWeightsError: neither CLIP nor SigLIP, or tensors are missing, extra or
      misshapen.
  """
  folder = pathlib.Path(folder)
  config = read_config(folder, project=project)
  return published.load(
    folder,
    lambda rngs: ViT(config, rngs=rngs, dtype=dtype),
    _table(config),
    rename=lambda name: _rename(name, project=project),
    param_dtype=param_dtype,
  )


def _table(config: ViTConfig) -> dict[str, str]:
  layer = "encoder.layers.{}."
  mlp = {"up": "fc1", "down": "fc2"}
  table = {
    "patches": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding.weight",
    "norm_out": "post_layernorm",
    "stack/blocks/norm_attention": f"{layer}layer_norm1",
    "stack/blocks/norm_mlp": f"{layer}layer_norm2",
    **{
      f"stack/blocks/attention/{name}": f"{layer}self_attn.{name}_proj"
      for name in ("q", "k", "v", "out")
    },
    **{f"stack/blocks/mlp/{i}": f"{layer}mlp.{j}" for i, j in mlp.items()},
  }
  if config.family == "clip":
    return table | {
      "class_token": "embeddings.class_embedding",
      "norm_in": "pre_layrnorm",  # So it is published.
      "projection": "visual_projection",
    }
  return table | {
    "head/probe": "head.probe",
    "head/qkv/kernel": "head.attention.in_proj_weight",
    "head/qkv/bias": "head.attention.in_proj_bias",
    "head/out": "head.attention.out_proj",
    "head/norm": "head.layernorm",
    **{f"head/mlp/{i}": f"head.mlp.{j}" for i, j in mlp.items()},
  }


def _rename(name: str, *, project: bool) -> str | None:
  """Leaves the text tower out, and indices that older files hold."""
  others = ("text_model.", "text_projection.", "logit_")
  if name.startswith(others) or name.endswith(".position_ids"):
    return None
  if name == "visual_projection.weight" and not project:
    return None
  return name.removeprefix("vision_model.")


class PoolHead(nnx.Module):
  """A learned query that reads all patches, then an MLP (arXiv:2106.04560)."""

  def __init__(self, config: ViTConfig, *, rngs, dtype):
    width = config.hidden_size
    self.num_heads = config.num_attention_heads
    self.probe = layers.learned(
      (1, 1, width), axes=(None, None, "embed"), rngs=rngs
    )
    linear = lambda size, axes: layers.dense(
      width, size, axes=axes, use_bias=True, rngs=rngs, dtype=dtype
    )
    self.qkv = linear(3 * width, ("embed", "heads"))
    self.out = linear(width, ("heads", "embed"))
    self.norm = transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, rngs=rngs, dtype=dtype
    )
    self.mlp = transformer.MLP(
      width,
      config.intermediate_size,
      activation=config.hidden_act,
      rngs=rngs,
      dtype=dtype,
    )

  def __call__(self, x):
    """Pools [m p d] to [m d]."""
    probe = jnp.broadcast_to(self.probe[...], (x.shape[0], 1, x.shape[-1]))
    q, _, _ = self._heads(probe.astype(x.dtype))
    _, k, v = self._heads(x)
    y = self.out(jax.nn.dot_product_attention(q, k, v).reshape(probe.shape))
    return (y + self.mlp(self.norm(y)))[:, 0]

  def _heads(self, x):
    qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1)
    return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


class ViT(nnx.Module):
  """Frames to one feature each, and to tokens of their patches."""

  def __init__(
    self, config: ViTConfig, *, rngs: nnx.Rngs, dtype: Any = "float32"
  ):
    self.config, self.dtype = config, jnp.dtype(dtype)
    width, is_clip = config.hidden_size, config.family == "clip"
    norm = lambda: transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, rngs=rngs, dtype=self.dtype
    )
    self.patches = nnx.Conv(
      config.num_channels,
      width,
      (config.patch_size,) * 2,
      strides=config.patch_size,
      padding="VALID",
      use_bias=not is_clip,
      dtype=self.dtype,
      rngs=rngs,
    )
    if is_clip:
      self.class_token = layers.learned((width,), axes=("embed",), rngs=rngs)
      self.norm_in = norm()
    shape = (config.num_patches + is_clip, width)
    self.positions = layers.learned(shape, axes=(None, "embed"), rngs=rngs)
    self.stack = transformer.stack(
      config, pre_norm=True, rngs=rngs, dtype=self.dtype
    )
    self.norm_out = norm()
    if config.has_head:
      self.head = PoolHead(config, rngs=rngs, dtype=self.dtype)
    if config.projection_dim:
      self.projection = layers.dense(
        width,
        config.projection_dim,
        axes=("embed", None),
        rngs=rngs,
        dtype=self.dtype,
      )

  def __call__(self, frames, *, tokens: bool = False):
    """Preprocesses and encodes.

    Args:
      frames: [b n h w 3] of any size, uint8, or floats in [0, 1].
      tokens: whether patch tokens are wanted, too.

    Returns:
      See `encode`.
    """
    config = self.config
    pixels = pixels_lib.preprocess(
      frames,
      size=config.image_size,
      mean=config.image_mean,
      std=config.image_std,
      resample=config.resample,
      crop=config.do_center_crop,
    )
    return self.encode(pixels, tokens=tokens)

  def encode(self, pixels, *, tokens: bool = False):
    """Encodes what `pixels.preprocess` returns.

    Args:
      pixels: [b n image_size image_size 3].
      tokens: whether patch tokens are wanted, too.

    Returns:
      Features [b n feature_dim] in `dtype`; with `tokens` also the patches'
      [b n num_patches hidden_size], by rows from the top left: after the last
      norm in SigLIP, before any norm in CLIP, as `last_hidden_state` of
      `transformers`.
    """
    batch, count = pixels.shape[:2]
    x = self.patches(pixels.reshape(-1, *pixels.shape[2:]).astype(self.dtype))
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    split = lambda y: y.reshape(batch, count, *y.shape[1:])
    if self.config.family == "clip":
      feature, x = self._clip(x)
    else:
      feature, x = self._siglip(x)
    return (split(feature), split(x)) if tokens else split(feature)

  def _clip(self, x):
    token = self.class_token[...].astype(x.dtype)
    first = jnp.broadcast_to(token, (x.shape[0], 1, x.shape[-1]))
    x = jnp.concatenate([first, x], axis=1)
    x = self.norm_in(x + self.positions[...].astype(x.dtype))
    x = self.stack(x)
    feature = self.norm_out(x[:, 0])
    if self.config.projection_dim:
      feature = self.projection(feature)
    return feature, x[:, 1:]

  def _siglip(self, x):
    x = self.norm_out(self.stack(x + self.positions[...].astype(x.dtype)))
    return (self.head(x) if self.config.has_head else x.mean(1)), x


def make(sizes: ViTConfig, *, rngs: nnx.Rngs, dtype: Any, remat: str) -> ViT:
  """Makes a tower with fresh weights; `remat` is one of `REMAT_POLICIES`."""
  tower = ViT(sizes, rngs=rngs, dtype=dtype)
  tower.stack.remat = remat
  return tower


NETWORK = types.SimpleNamespace(
  config=ViTConfig, make=make, read_config=read_config, load=load
)
