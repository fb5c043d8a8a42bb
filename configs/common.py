"""Settings that the configs share: data, optimizer, mesh, run.

A config file says what differs from the defaults. Every other key of every
section is filled in when it is read, so all of them can be set and swept on the
command line; `v2a train --config=FILE --help_config` lists them with their
defaults and meanings. An unknown key is refused by name.
"""

import dataclasses

from ml_collections import config_dict


@dataclasses.dataclass(frozen=True)
class Size:
  """Sizes of a full-size model.

  Attributes:
    name: name of the size.
    width: number of features of a token.
    num_heads: number of attention heads of the backbone.
    depth: number of blocks of the backbone.
    spatial_width: number of features of an image patch.
    spatial_depth: number of blocks over the patches of a frame.
    temporal_depth: number of blocks along time.
  """

  name: str
  width: int
  num_heads: int
  depth: int
  spatial_width: int
  spatial_depth: int
  temporal_depth: int


# 158 M, 0.6 B, 1.0 B and 5 B parameters as diffusion models; a third of the
# blocks is joint. Widths and depths of the first three are those of MMAudio's
# networks.py (arXiv:2412.15322), which encodes frames with networks of others.
SIZES = {
  size.name: size
  for size in (
    Size("small", 448, 7, 12, 448, 12, 5),
    Size("medium", 896, 14, 12, 768, 12, 6),
    Size("large", 896, 14, 21, 1024, 12, 8),
    Size("xl", 2048, 16, 24, 1024, 12, 4),
    Size("small-tile", 512, 4, 10, 384, 7, 4),
    Size("medium-tile", 1024, 8, 10, 768, 4, 4),
    Size("large-tile", 1024, 8, 18, 512, 12, 6),
  )
}


def get_config():
  """Returns the sections that no generator changes."""
  config = config_dict.ConfigDict()
  config.name = ""
  config.codec = "codec_tiny"
  config.data = dict(
    paths=("data/scenes",),
    split="train",
    batch_size=8,
    seconds=4.0,
    fps=25.0,
    # Of either type: pixels of a side, or (height, width).
    frame_size=config_dict.FieldReference(32, field_type=object),
    prompt_length=24,
    transcript_length=24,
    # The cores compute as well.
    num_threads=1,
    num_workers=0,
    cache_mb=4096.0,
  )
  config.optimizer = dict(
    warmup_steps=100,
    final_fraction=0.05,
    betas=(0.9, 0.98),
    weight_decay=0.01,
  )
  config.mesh = dict(data=-1)
  config.num_train_steps = 8000
  config.ema_decay = 0.998
  config.log_every = 50
  config.eval_every = 1000
  config.checkpoint_every = 1000
  config.keep = 2
  return config


def conditioner():
  """Returns the condition encoders of the tiny models."""
  return dict(vocab_size=1024, aligner_depth=1)


def conditions():
  """Returns what every objective of a tiny model says of the conditions."""
  return dict(cond_drop_rate=0.1, cond_drop_all_rate=0.1, alignment_weight=0.5)


def full_size(config, name):
  """Turns a tiny config into a full-size one, all but its backbone's depth.

  Args:
    config: a tiny config; changed in place.
    name: one of `SIZES`; `-siglip` after it adds a slow stream, see `siglip`.

  Returns:
    The `Size` of that name.
  """
  plain = name.removesuffix("-siglip")
  if plain not in SIZES:
    raise ValueError(f"size {name!r} is not one of {', '.join(SIZES)}")
  size = SIZES[plain]
  config.data.update(
    batch_size=512,
    seconds=8.0,
    frame_size=112,
    prompt_length=77,
    transcript_length=96,
    num_threads=-1,
    num_workers=-1,
    cache_mb=0.0,
  )
  config.model.update(
    width=size.width,
    num_heads=size.num_heads,
    mlp_dim=4 * size.width,
    modulation_rank=0,
    unroll=1,
    remat="full",
    dtype="bfloat16",
  )
  config.model.conditioner.update(
    vocab_size=8192,
    patch_size=16,
    spatial_width=size.spatial_width,
    spatial_heads=size.spatial_width // 64,
    spatial_depth=size.spatial_depth,
    temporal_depth=size.temporal_depth,
    text_depth=4,
  )
  train_at_full_size(config)
  if name != plain:
    size = dataclasses.replace(size, name=name)
    siglip(config)
  return size


def train_at_full_size(config):
  """Sets how long and how fast a full-size model learns."""
  config.optimizer.update(
    learning_rate=1e-4,
    warmup_steps=1000,
    betas=(0.9, 0.95),
    weight_decay=1e-6,
  )
  config.parallel = dict(mode="auto")
  config.num_train_steps = 300_000
  config.ema_decay = 0.9999
  config.log_every = 100
  config.eval_every = 5000
  config.checkpoint_every = 5000
  config.keep = 3


def siglip(config):
  """Adds a frozen SigLIP tower, B/16 of 224 pixels, on every sixth frame.

  The synchronisation stream keeps every frame; with frames and patches twice as
  large it costs as much as before.
  """
  config.data.frame_size = 224
  config.model.conditioner.update(patch_size=32, tune="frozen")
  config.model.conditioner.semantic = dict(
    name="vit",
    path="",  # a folder with config.json and model.safetensors
    stride=6,
    temporal_depth=2,
    sizes=dict(family="siglip"),
  )
