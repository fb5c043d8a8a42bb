"""Vision towers of CLIP and SigLIP.

  x = patches W (+ b) + P;  CLIP has a class token before the patches, and
  norm(x);  per layer  x += attend(norm(x)),  x += mlp(norm(x))
  CLIP:    feature = norm(class token) (W_p)
  SigLIP:  x = norm(x);  a learned query attends to all patches, y;
           feature = y + mlp(norm(y))

Radford et al., "Learning transferable visual models from natural language
supervision", https://arxiv.org/abs/2103.00020; Zhai et al., "Sigmoid loss for
language image pre-training", https://arxiv.org/abs/2303.15343. Both are ViTs:
https://arxiv.org/abs/2010.11929. Files are those of `transformers`, the tower
alone or with the text tower beside it, also of SigLIP 2 of a fixed size.
"""

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.basics.paths import as_path
from v2a_jax.models import layers
from v2a_jax.models.config import check_heads
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
# Defaults that published configs leave out.
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
  """Sizes, with the names of config.json and preprocessor_config.json.

  Attributes:
    family: `clip` or `siglip`.
    hidden_size: number of features of a patch.
    intermediate_size: hidden size of the MLPs.
    num_hidden_layers: number of blocks.
    num_attention_heads: number of attention heads; divides `hidden_size`.
    image_size: height and width of the input in pixels.
    patch_size: height and width of a patch in pixels.
    num_channels: number of channels of the input, 3.
    hidden_act: activation of the MLPs, one of `transformer.ACTIVATIONS`.
    layer_norm_eps: epsilon of the norms.
    projection_dim: number of features of a frame in the space of texts (CLIP);
      None leaves that map out.
    vision_use_head: whether SigLIP's attention pools the patches; else their
      mean does.
    image_mean: mean of red, green and blue in [0, 1].
    image_std: standard deviation of each, likewise.
    resample: how frames are resized, 2 for linear or 3 for cubic.
    do_center_crop: whether the shorter side becomes `image_size` and the middle
      is cut out; else the frame is squashed into the square.
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
    settings.choose(
      self,
      family=_DEFAULTS,
      hidden_act=transformer.ACTIVATIONS,
    )
    sizes = (
      "hidden_size intermediate_size num_hidden_layers num_attention_heads"
      " patch_size"
    )
    settings.check(self, **dict.fromkeys(sizes.split(), "[1, inf)"))
    settings.check(
      self,
      num_channels="[3, 3]",
      resample="[2, 3]",
      image_size=f"[{self.patch_size}, inf)",
      layer_norm_eps="(0, inf)",
      projection_dim="[0, inf)" if self.family == "clip" else "[0, 0]",
      image_mean="[0, 1]",
      image_std="(0, inf)",
    )
    for name in ("image_mean", "image_std"):
      if len(value := getattr(self, name)) != 3:
        raise settings.SettingError(f"{name}={value!r} has not 3 numbers")
    check_heads(self, "hidden_size", "num_attention_heads", even=False)

  @property
  def feature_dim(self) -> int:
    """Number of features of a frame."""
    return self.projection_dim or self.hidden_size

  @property
  def has_head(self) -> bool:
    """Whether attention pools the patches."""
    return self.family == "siglip" and self.vision_use_head

  @property
  def num_patches(self) -> int:
    """Number of patches of a frame."""
    return (self.image_size // self.patch_size) ** 2


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
  """Leaves out the text tower, and indices that older files hold."""
  others = ("text_model.", "text_projection.", "logit_")
  if name.startswith(others) or name.endswith(".position_ids"):
    return None
  if name == "visual_projection.weight" and not project:
    return None
  return name.removeprefix("vision_model.")


class PoolHead(nnx.Module):
  """Attention pooling by one learned query, and an MLP (arXiv:2106.04560)."""

  def __init__(self, config: ViTConfig, *, rngs, dtype):
    width, common = config.hidden_size, dict(rngs=rngs, dtype=dtype)
    self.num_heads = config.num_attention_heads
    self.probe = layers.learned(
      (1, 1, width), axes=(None, None, "embed"), rngs=rngs
    )
    dense = functools.partial(layers.dense, width, use_bias=True, **common)
    self.qkv = dense(3 * width, axes=("embed", None))
    self.out = dense(width, axes=("embed", None))
    self.norm = transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, **common
    )
    self.mlp = transformer.MLP(
      width,
      config.intermediate_size,
      activation=config.hidden_act,
      **common,
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
  """Frames → one feature each, and tokens of their patches."""

  def __init__(
    self, config: ViTConfig, *, rngs: nnx.Rngs, dtype: Any = "float32"
  ):
    self.config, self.dtype = config, jnp.dtype(dtype)
    common = dict(rngs=rngs, dtype=self.dtype)
    width, is_clip = config.hidden_size, config.family == "clip"
    norm = lambda: transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, **common
    )
    self.patches = nnx.Conv(
      config.num_channels,
      width,
      (config.patch_size,) * 2,
      strides=config.patch_size,
      padding="VALID",
      use_bias=not is_clip,
      **common,
    )
    if is_clip:
      self.class_token = layers.learned((width,), axes=("embed",), rngs=rngs)
      self.norm_in = norm()
    shape = (config.num_patches + is_clip, width)
    self.positions = layers.learned(shape, axes=(None, "embed"), rngs=rngs)
    self.stack = transformer.stack(config, pre_norm=True, **common)
    self.norm_out = norm()
    if config.has_head:
      self.head = PoolHead(config, **common)
    if config.projection_dim:
      self.projection = layers.dense(
        width, config.projection_dim, axes=("embed", None), **common
      )

  def __call__(self, frames, *, tokens: bool = False):
    """Preprocesses frames and encodes them; see `encode`.

    Args:
      frames: [b n h w 3] of any size, uint8, or floats in [0, 1].
      tokens: whether patch tokens are returned, too.
    """
    return self.encode(self.preprocess(frames), tokens=tokens)

  def preprocess(self, frames):
    """Resizes and normalises frames [b n h w 3]; see `pixels.preprocess`."""
    config = self.config
    return pixels_lib.preprocess(
      frames,
      size=config.image_size,
      mean=config.image_mean,
      std=config.image_std,
      resample=config.resample,
      crop=config.do_center_crop,
    )

  def encode_clip(self, pixels, *, batch_size: int = 8):
    """Encodes the preprocessed frames of one clip, a few at a time.

    Args:
      pixels: [n image_size image_size 3].
      batch_size: number of frames that are encoded at a time.

    Returns:
      Features [n feature_dim] in `dtype`.
    """
    encode = lambda one: self.encode(one[None, None])[0, 0]
    return jax.lax.map(encode, pixels, batch_size=batch_size)

  def encode(self, pixels, *, tokens: bool = False):
    """Encodes preprocessed frames.

    Args:
      pixels: [b n image_size image_size 3], from `pixels.preprocess`.
      tokens: whether patch tokens are returned, too.

    Returns:
      Features [b n feature_dim] in `dtype`; with `tokens` also those of the
      patches [b n num_patches hidden_size], by rows from the top left: after
      the last norm in SigLIP, before it in CLIP, as `last_hidden_state` of
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Towers(published.Network):
  """How both towers are read.

  Attributes:
    project: whether CLIP's map into the space of texts is read, too.
  """

  project: bool

  def read_config(self, folder) -> ViTConfig:
    """Reads a folder's config.json and preprocessor_config.json.

    Without the second file the preprocessing is the family's usual one.

    Raises:
      MissingWeightsError: there is no config.json.
      WrongWeightsError: it describes another network.
    """
    folder = as_path(folder)
    values = published.read_config(
      folder, self.model_types, shared=("projection_dim",)
    )
    family = values["model_type"].removesuffix("_vision_model")
    path = folder / PREPROCESSING
    own = published.read_json(path) if path.is_file() else {}
    values = _DEFAULTS[family] | values | own | {"family": family}
    if not self.project:
      values["projection_dim"] = None
    elif family != "clip":
      raise WrongWeightsError(f"{folder}: {family} has no projection")
    return published.sizes(self.config, values, folder)


def _towers(*, project: bool) -> _Towers:
  return _Towers(
    config=ViTConfig,
    make=ViT,
    table=_table,
    model_types=_MODEL_TYPES,
    rename=functools.partial(_rename, project=project),
    project=project,
  )


NETWORK, PROJECTED = _towers(project=False), _towers(project=True)
load = NETWORK.load
