"""MMAudio's published checkpoints as generators of this project.

A checkpoint holds the flow network with the input layers of its conditions, and
mean and deviation of the latents it was trained on, which are the codec's here.

Names and shapes: https://github.com/hkchengrex/MMAudio.
"""

from collections.abc import Mapping
import os

from flax import nnx
import numpy as np

from v2a_jax.conditioning.mmaudio import MMAudioConditionerConfig
from v2a_jax.models.generator import Generator
from v2a_jax.models.mmaudio import MMAudioConfig
from v2a_jax.weights import published
from v2a_jax.weights.tables import Row, Shape, Table, in_memory

# Tables that the network computes; older files may hold them.
_COMPUTED = ("t_embed.freqs", "latent_rot", "clip_rot")


def load_network(
  arrays: Mapping[str, np.ndarray],
  model: MMAudioConfig,
  conditioner: MMAudioConditionerConfig,
  *,
  source: str | os.PathLike[str],
) -> Generator:
  """Makes a generator, without towers, with the weights of a checkpoint.

  Args:
    arrays: tensors of the checkpoint by name.
    model: sizes of the backbone.
    conditioner: sizes of the conditions.
    source: where the tensors are from, for errors.

  Raises:
    WrongWeightsError: tensors are missing, extra or misshapen; all are named.
  """
  kept = {k: v for k, v in arrays.items() if k not in _COMPUTED}
  return published.assemble(
    in_memory(kept),
    lambda rngs: make(model, conditioner, rngs),
    table(model),
    source=source,
    unread=unread(model),
  )


def unread(model: MMAudioConfig) -> dict[str, Shape]:
  """Returns the shapes of tensors of a checkpoint that the codec reads."""
  return dict.fromkeys(("latent_mean", "latent_std"), (1, 1, model.channels))


def make(
  model: MMAudioConfig, conditioner: MMAudioConditionerConfig, rngs: nnx.Rngs
) -> Generator:
  """Makes a generator."""
  return Generator(conditioner.make(rngs=rngs), model.make(rngs=rngs))


def table(model: MMAudioConfig) -> Table:
  """Returns where the parameters of a generator are in a checkpoint."""
  ours, rows = "conditioner/", {}

  def stem(path: str, name: str, *, kernel: int, mlp_kernel: int):
    # Each step is numbered, and an activation is a step.
    has_activation = model.version == 2 or kernel > 1
    rows[f"{path}/embed"] = Row(name=f"{name}.0", taps=kernel)
    mlp(f"{path}/mlp", f"{name}.{1 + has_activation}", mlp_kernel)

  def mlp(path: str, name: str, kernel: int, first: int = 0):
    for part, theirs in (("up", "w1"), ("down", "w2"), ("value", "w3")):
      row = Row(name=f"{name}.{theirs}", taps=kernel, first=first)
      rows[f"{path}/{part}"] = row

  def stream(path: str, name: str, *, kernel: int, first: int, full: bool):
    row = lambda name, **kwargs: Row(name=name, first=first, **kwargs)
    rows[f"{path}/modulation/out"] = row(f"{name}.adaLN_modulation.1")
    rows[f"{path}/qkv"] = row(f"{name}.attn.qkv", maps=3, innermost=True)
    for norm in ("q_norm", "k_norm"):
      rows[f"{path}/{norm}"] = row(f"{name}.attn.{norm}")
    if full:
      rows[f"{path}/out"] = row(f"{name}.linear1", taps=kernel)
      mlp(f"{path}/mlp", f"{name}.ffn", kernel, first)

  stem("backbone/stem", "audio_input_proj", kernel=7, mlp_kernel=7)
  stem(f"{ours}clip_stem", "clip_input_proj", kernel=1, mlp_kernel=3)
  stem(f"{ours}sync_stem", "sync_input_proj", kernel=7, mlp_kernel=3)
  stem(f"{ours}text_stem", "text_input_proj", kernel=1, mlp_kernel=1)
  mlp(f"{ours}summary", "global_cond_mlp", 1)
  last = model.joint_depth - 1
  for part, kernel in (("latent", 3), ("clip", 3), ("text", 1)):
    name = f"joint_blocks.{{}}.{part}_block"
    stream(
      f"backbone/joint/blocks/{part}", name, kernel=kernel, first=0, full=True
    )
    stream(
      f"backbone/last_joint/blocks/{part}",
      name,
      kernel=kernel,
      first=last,
      full=part == "latent",
    )
  stream(
    "backbone/fused/blocks/latent",
    "fused_blocks.{}",
    kernel=3,
    first=0,
    full=True,
  )
  return rows | {
    f"{ours}no_clip": "empty_clip_feat",
    f"{ours}no_sync": "empty_sync_feat",
    f"{ours}no_text": "empty_string_feat",
    f"{ours}sync_positions": "sync_pos_emb",
    f"{ours}clip_summary": "clip_cond_proj",
    f"{ours}text_summary": "text_cond_proj",
    "backbone/time_in": "t_embed.mlp.0",
    "backbone/time_out": "t_embed.mlp.2",
    "backbone/final/out": "final_layer.adaLN_modulation.1",
    "backbone/out": Row(name="final_layer.conv", taps=7),
  }
