"""CLIP as open_clip saves it: its vision tower, and its text tower.

  text:  x = E[ids] + P;  per layer  x += attend(norm(x)),  x += mlp(norm(x)),
         where token i attends to tokens up to i;  x = norm(x)

The vision tower is `vit.ViT`. A folder holds open_clip_config.json and
open_clip_model.safetensors or open_clip_pytorch_model.bin. Of the text tower
the features of every token are used, not those of the whole text, so its map to
the space of images is left out.

Radford et al., "Learning transferable visual models from natural language
supervision", https://arxiv.org/abs/2103.00020;
https://github.com/mlfoundations/open_clip.
"""

import dataclasses
import os
import pathlib
from typing import Any

from flax import nnx
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.basics.paths import as_path
from v2a_jax.models import layers
from v2a_jax.models.config import check_heads
from v2a_jax.pretrained import transformer, vit
from v2a_jax.weights import published
from v2a_jax.weights.registry import MissingWeightsError, WrongWeightsError
from v2a_jax.weights.tables import Row, Table

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# What compares texts with images: in each file, and read by no tower.
_COMPARES = ("text_projection", "logit_scale")
_HEAD_WIDTH = 64  # of the vision tower, where a config leaves it out


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """Sizes of the text tower.

  Attributes:
    vocab_size: number of token embeddings.
    hidden_size: number of features of a token.
    num_hidden_layers: number of blocks.
    num_attention_heads: number of attention heads; divides `hidden_size`.
    intermediate_size: hidden size of the MLPs.
    hidden_act: activation of the MLPs, one of `transformer.ACTIVATIONS`.
    max_length: number of tokens of the longest text.
    layer_norm_eps: epsilon of the norms.
  """

  vocab_size: int = 49_408
  hidden_size: int = 1024
  num_hidden_layers: int = 24
  num_attention_heads: int = 16
  intermediate_size: int = 4096
  hidden_act: str = "quick_gelu"
  max_length: int = 77
  layer_norm_eps: float = 1e-5

  def __post_init__(self):
    numbers = (
      "vocab_size hidden_size num_hidden_layers num_attention_heads"
      " intermediate_size max_length"
    )
    settings.check(
      self,
      **dict.fromkeys(numbers.split(), "[1, inf)"),
      layer_norm_eps="(0, inf)",
    )
    settings.choose(self, hidden_act=transformer.ACTIVATIONS)
    check_heads(self, "hidden_size", "num_attention_heads", even=False)

  @property
  def features(self) -> int:
    """Number of features of an encoded token."""
    return self.hidden_size


class Text(nnx.Module):
  """Token ids → features of every token."""

  def __init__(
    self, config: TextConfig, *, rngs: nnx.Rngs, dtype: Any = "float32"
  ):
    self.config, self.dtype = config, jnp.dtype(dtype)
    width, common = config.hidden_size, dict(rngs=rngs, dtype=self.dtype)
    rows = lambda count, axis: layers.learned(
      (count, width), axes=(axis, "embed"), rngs=rngs
    )
    self.embed = rows(config.vocab_size, "vocab")
    self.positions = rows(config.max_length, None)
    self.stack = transformer.stack(config, pre_norm=True, **common)
    self.norm = transformer.layer_norm(
      width, epsilon=config.layer_norm_eps, **common
    )

  def __call__(self, ids, mask=None):
    """Encodes texts.

    Args:
      ids: int [b l]; l at most `max_length`. A text begins with the first id;
        no token sees what follows it.
      mask: not used.

    Returns:
      [b l hidden_size] in `dtype`.

    Raises:
      ValueError: the texts are too long.
    """
    del mask
    length = ids.shape[1]
    if length > self.config.max_length:
      raise ValueError(
        f"CLIP: texts of {length} ids, should be at most"
        f" {self.config.max_length}: lower config.data.prompt_length"
      )
    x = (self.embed[...][ids] + self.positions[...][:length]).astype(self.dtype)
    before = jnp.tril(jnp.ones((length, length), bool))
    bias = jnp.where(before, 0.0, -jnp.inf).astype(self.dtype)[None, None]
    return self.norm(self.stack(x, None, bias))


def _blocks(prefix: str) -> Table:
  """Returns where a tower's blocks are."""
  layer = f"{prefix}transformer.resblocks.{{}}."
  table = {
    "norm_attention": f"{layer}ln_1",
    "norm_mlp": f"{layer}ln_2",
    "attention/out": f"{layer}attn.out_proj",
    "mlp/up": f"{layer}mlp.c_fc",
    "mlp/down": f"{layer}mlp.c_proj",
  }
  for i, name in enumerate("qkv"):
    for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
      row = Row(name=f"{layer}attn.in_proj_{theirs}", maps=3, part=i)
      table[f"attention/{name}/{ours}"] = row
  return {f"stack/blocks/{path}": row for path, row in table.items()}


def _vision_table(_) -> Table:
  return _blocks("visual.") | {
    "class_token": "visual.class_embedding",
    "positions": "visual.positional_embedding",
    "patches": "visual.conv1",
    "norm_in": "visual.ln_pre",
    "norm_out": "visual.ln_post",
    "projection/kernel": Row(name="visual.proj", transposed=False),
  }


def _text_table(_) -> Table:
  return _blocks("") | {
    "embed": "token_embedding.weight",
    "positions": "positional_embedding",
    "norm": "ln_final",
  }


def _vision_name(name: str) -> str | None:
  return name if name.startswith(("visual.", *_COMPARES)) else None


def _text_name(name: str) -> str | None:
  return None if name.startswith(("visual.", "logit_bias")) else name


class _Tower(published.Network):
  """How a tower is read."""

  def unread(self, tensors):
    """Returns the shapes of what no tower reads, as they are in a file."""
    return {k: tensors[k].shape if k in tensors else () for k in _COMPARES}

  def files(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the file of a folder's tensors; see `published.Network`."""
    for name in FILES:
      if (folder / name).is_file():
        return [folder / name]
    raise MissingWeightsError(
      f"{folder} has neither {FILES[0]} nor {FILES[1]}: give a folder with a"
      " CLIP of open_clip"
    )

  def read_config(self, folder: str | os.PathLike[str]) -> Any:
    """Reads the sizes in a folder's open_clip_config.json.

    Raises:
      MissingWeightsError, WrongWeightsError: no such file, or another network.
    """
    path = as_path(folder) / CONFIG
    if not path.is_file():
      raise MissingWeightsError(
        f"{path} not found: give a folder with a CLIP of open_clip"
      )
    config = published.read_json(path)
    model = config.get("model_cfg", config)
    try:
      values = _SIZES[self.config](model, config.get("preprocess_cfg") or {})
    except (KeyError, TypeError, AttributeError) as error:
      raise WrongWeightsError(
        f"{path} does not describe a CLIP of open_clip with a ViT"
        f" ({type(error).__name__}: {error})"
      ) from None
    values["hidden_act"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return published.sizes(self.config, values, path)


def _vision_sizes(model, preprocessing) -> dict[str, Any]:
  vision = model["vision_cfg"]
  width = vision["width"]
  return dict(
    family="clip",
    hidden_size=width,
    intermediate_size=int(width * vision.get("mlp_ratio", 4)),
    num_hidden_layers=vision["layers"],
    num_attention_heads=width // vision.get("head_width", _HEAD_WIDTH),
    image_size=vision["image_size"],
    patch_size=vision["patch_size"],
    layer_norm_eps=1e-5,
    projection_dim=model["embed_dim"],
    image_mean=preprocessing.get("mean", MEAN),
    image_std=preprocessing.get("std", STD),
    do_center_crop=preprocessing.get("resize_mode", "squash") == "shortest",
  )


def _text_sizes(model, _) -> dict[str, Any]:
  text = model["text_cfg"]
  return dict(
    vocab_size=text["vocab_size"],
    hidden_size=text["width"],
    num_hidden_layers=text["layers"],
    num_attention_heads=text["heads"],
    intermediate_size=int(text["width"] * text.get("mlp_ratio", 4)),
    max_length=text["context_length"],
  )


_SIZES = {vit.ViTConfig: _vision_sizes, TextConfig: _text_sizes}

VISION = _Tower(
  config=vit.ViTConfig,
  make=vit.ViT,
  table=_vision_table,
  model_types={},
  rename=_vision_name,
)
TEXT = _Tower(
  config=TextConfig,
  make=Text,
  table=_text_table,
  model_types={},
  rename=_text_name,
)
