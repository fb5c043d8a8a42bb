"""Generators with the weights that MMAudio's reference outputs are of."""

import functools
import re

import numpy as np

from tests.pretrained import mmaudio_reference as reference
from v2a_jax.batch import Conditioning
from v2a_jax.conditioning.mmaudio import MMAudioConditionerConfig
from v2a_jax.experiment import mmaudio
from v2a_jax.models.mmaudio import VARIANTS, MMAudioConfig
from v2a_jax.weights import tables

B = 2
RATES = {20: 31.25, 40: 44_100 / 1024}  # latents a second, by channels


def sizes(shapes, **changes):
  """Settings of the network that tensors of these shapes are of."""
  names = " ".join(shapes)
  blocks = lambda kind: len(set(re.findall(rf"{kind}_blocks\.(\d+)", names)))
  width, channels, _ = shapes["audio_input_proj.0.weight"]
  heads = width // shapes["fused_blocks.0.attn.q_norm.weight"][0]
  version = 2 if "clip_input_proj.2.w1.weight" in shapes else 1
  model = MMAudioConfig(
    width=width,
    num_heads=heads,
    joint_depth=blocks("joint"),
    depth=blocks("fused"),
    version=version,
    channels=channels,
    latent_rate=RATES[channels],
    **changes,
  )
  text_length, text_dim = shapes["empty_string_feat"]
  conditioner = MMAudioConditionerConfig(
    clip_dim=shapes["empty_clip_feat"][1],
    sync_dim=shapes["empty_sync_feat"][1],
    text_dim=text_dim,
    text_length=text_length,
    width=width,
    version=version,
  )
  return model, conditioner


def published_sizes(variant, channels):
  """Settings of a published network, from the project's own table."""
  model = MMAudioConfig(
    **VARIANTS[variant], channels=channels, latent_rate=RATES[channels]
  )
  conditioner = MMAudioConditionerConfig(
    width=model.width, version=model.version
  )
  return model, conditioner


@functools.cache
def generator(name):
  """The generator whose outputs `name` holds."""
  weights = reference.weights(name)
  model, conditioner = sizes({k: v.shape for k, v in weights.items()})
  return mmaudio.load_network(
    tables.in_memory(weights), model, conditioner, source=name
  )


def conditioning(clip, sync, text) -> Conditioning:
  """Conditions with features of frames and of the prompt, all present."""
  b, length = text.shape[:2]
  nothing = np.zeros((b, 1), bool)
  return Conditioning(
    frame_times=np.zeros((b, 1), np.float32),
    frame_mask=np.ones((b, 1), bool),
    prompt=text,
    prompt_mask=np.ones((b, length), bool),
    transcript=np.zeros((b, 1), np.int32),
    transcript_times=np.zeros((b, 1), np.float32),
    transcript_durations=np.zeros((b, 1), np.float32),
    transcript_mask=nothing,
    transcript_timed=nothing[:, 0],
    presence=np.full((b, 3), 2, np.int32),
    features={"clip": clip, "sync": sync},
  )


def inputs(name):
  """Inputs of a reference: those that it holds, or that it says to draw."""
  found = reference.outputs(name)
  if "latent" in found:
    return found
  draw = reference.draw
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  return found | {
    "latent": draw("input.latent", (B, 250, 20)),
    "clip": unit(draw("input.clip", (B, 64, 1024))),
    "sync": draw("input.sync", (B, 192, 768)),
    "text": unit(draw("input.text", (B, 77, 1024))),
    "negative": unit(draw("input.negative", (B, 77, 1024))),
    "time": np.array([0.1, 0.7], np.float32),
  }


def times(model, count):
  """Times of the latents of a window in seconds."""
  return (np.arange(count, dtype=np.float32) + 0.5) / model.latent_rate
