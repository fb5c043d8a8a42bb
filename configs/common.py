"""What the configs share: data, optimizer, mesh, run. Settings and nothing else.

A section holds exactly the fields of the dataclass that it becomes, so a stray
or mistyped key is refused by name.
"""

import dataclasses

from ml_collections import config_dict


@dataclasses.dataclass(frozen=True)
class Size:
  """A full-size model: width, heads and depth of the backbone, then of the
  encoder inside a frame, and along time.
  """

  name: str
  width: int
  num_heads: int
  depth: int
  spatial_width: int
  spatial_depth: int
  temporal_depth: int


# 157 M, 0.6 B, 1.0 B and 5 B parameters as diffusion models; a third of the
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
  """The sections that no generator changes."""
  config = config_dict.ConfigDict()
  config.name = ""
  config.seed = 0
  # A bundle (its folder, or its name in assets/), a folder with a DAC, or
  # patches of the waveform itself, `patches:RATE:HOP:CHANNELS`.
  config.codec = "codec_tiny"
  # A workdir or bundle whose weights a new run starts from; "" for fresh ones.
  config.init_from = ""
  # Parts that start fresh all the same, such as "backbone/interval".
  config.init_fresh = ()

  config.data = dict(
    paths=("data/scenes",),
    split="train",
    batch_size=8,
    seconds=4.0,
    fps=25.0,
    # Pixels of a side, or (height, width): of either type.
    frame_size=config_dict.FieldReference(32, field_type=object),
    prompt_length=24,
    transcript_length=24,
    tokenizer="",  # a file; that of the first data set where it is empty
    prompt_tokenizer="",  # that of a published prompt encoder
    # Numbers of a frame, cached by `v2a data features`; 0 decodes frames.
    features=0,
    crop="random",
    num_threads=1,
    num_workers=0,
    cache_mb=4096,
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=100,
    final_fraction=0.05,
    betas=(0.9, 0.98),
    weight_decay=0.01,
    max_grad_norm=1.0,
  )
  config.mesh = dict(data=-1, fsdp=1, tensor=1)
  config.num_train_steps = 8000
  config.train_seconds = 0.0  # stop after this much training; 0 for no limit
  config.accumulate = 1
  config.ema_decay = 0.998
  config.log_every = 50
  config.checkpoint_every = 1000
  config.keep = 2
  config.wandb_mode = "offline"
  return config


def conditioner():
  """The condition encoders of the tiny models; width and heads come from
  the model."""
  return dict(
    vocab_size=1024,
    patch_size=8,
    spatial_width=64,
    spatial_heads=2,
    spatial_depth=1,
    pool_queries=4,
    temporal_depth=2,
    text_depth=1,
    # Finds when words are said where that is not known; wants
    # config.objective.alignment_weight, where some of it is.
    aligner_depth=0,
    # t5 or clap and its folder, to read prompts; "" for the encoder trained
    # with the model. Its tokenizer is config.data.prompt_tokenizer.
    prompt_encoder=dict(name="", path=""),
    # The encoder inside a frame: full, lora (then with a rank) or frozen.
    tune="full",
    lora=dict(rank=0, alpha=16.0),
  )


def full_size(config, name):
  """Turns a tiny config into a full-size one but for its backbone's depth.

  Args:
    config: changed in place.
    name: of `SIZES`; with `-siglip` after it there are two rates, see `siglip`.

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
    num_workers=8,
    cache_mb=0,
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
  config.optimizer.update(
    learning_rate=1e-4,
    warmup_steps=1000,
    betas=(0.9, 0.95),
    weight_decay=1e-6,
  )
  config.num_train_steps = 300_000
  config.ema_decay = 0.9999
  config.log_every = 100
  config.checkpoint_every = 5000
  config.keep = 3
  if name != plain:
    size = dataclasses.replace(size, name=name)
    siglip(config)
  return size


def siglip(config):
  """Adds a frozen SigLIP tower, B/16 of 224 pixels, on every sixth frame.

  Synchronisation keeps every frame; with pictures and patches twice as large
  it costs what it did.
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
