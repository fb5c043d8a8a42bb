"""What the configs share: data, optimizer, mesh, run. Settings and nothing else.

A section holds exactly the fields of the dataclass that it becomes, so a stray
or mistyped key is refused by name.
"""

from ml_collections import config_dict


def get_config():
  """The sections that no generator changes."""
  config = config_dict.ConfigDict()
  config.name = ""
  config.seed = 0
  config.codec = "codec_tiny"  # a bundle: a folder, or a name in assets/

  config.data = dict(
    paths=("data/scenes",),
    split="train",
    batch_size=8,
    seconds=4.0,
    fps=25.0,
    frame_size=32,
    prompt_length=24,
    transcript_length=24,
    tokenizer="",  # a file; that of the first data set where it is empty
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
  )
