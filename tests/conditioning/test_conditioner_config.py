"""Settings of the condition encoders, and which weights they train."""

import dataclasses

from flax import nnx
import pytest

from tests import tiny
from v2a_jax.basics.settings import SettingError
from v2a_jax.conditioning.encoder import ConditionerConfig
from v2a_jax.conditioning.semantic import SemanticConfig
from v2a_jax.conditioning.text import PromptEncoderConfig
from v2a_jax.models import lora
from v2a_jax.pretrained.t5 import T5Config
from v2a_jax.weights import names

CONFIG = ConditionerConfig(
  width=tiny.WIDTH, num_heads=tiny.HEADS, spatial_width=8, patch_size=8
)
T5 = PromptEncoderConfig(
  name="t5", sizes=T5Config(vocab_size=9, d_model=8, d_ff=8, num_layers=1)
)


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(vocab_size=0), r"vocab_size=0 is not in \[1, inf\)"),
    (dict(spatial_depth=-1), "spatial_depth=-1"),
    (dict(spatial_heads=3), "spatial_heads=3 does not divide spatial_width=8"),
    (dict(spatial_width=6, spatial_heads=1), "spatial_width=6 .* of 4"),
    (dict(tune="half"), "tune='half' is not one of full, lora, frozen"),
    (dict(tune="lora"), "tune='lora' with lora.rank=0: set a rank"),
    (dict(lora=lora.LoraConfig(rank=2)), "tune='full' with lora.rank=2"),
  ],
)
def test_settings_that_cannot_be_built_are_refused(change, words):
  with pytest.raises(SettingError, match=words):
    dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(name="vitt"), "name='vitt' is not one of '', pixels, vit"),
    (dict(stride=0), r"stride=0 is not in \[1, inf\)"),
    (dict(spatial_heads=3), "spatial_heads=3 does not divide"),
  ],
)
def test_settings_of_the_slow_stream_are_checked_too(change, words):
  with pytest.raises(SettingError, match=words):
    SemanticConfig(**change)


def parts_of(config, kind):
  """Names of variables of a kind, without the last part of each."""
  make = lambda: config.make(rngs=nnx.Rngs(0))
  state = nnx.state(nnx.eval_shape(make), kind)
  return {name[:-1] for name in names.flatten(state)}


@pytest.mark.parametrize(
  "stream, semantic",
  [("video", SemanticConfig()), ("semantic", tiny.PIXELS)],
)
def test_tune_freezes_or_adapts_the_frame_part(stream, semantic):
  config = dataclasses.replace(CONFIG, semantic=semantic)
  everything = parts_of(config, nnx.Param)
  parts = [(stream, part) for part in ("embed", "spatial", "pool")]
  frame_part = {name for name in everything if name[:2] in parts}
  assert frame_part and not parts_of(config, lora.Frozen)
  frozen = dataclasses.replace(config, tune="frozen")
  assert parts_of(frozen, lora.Frozen) == frame_part
  assert parts_of(frozen, nnx.Param) == everything - frame_part
  low_rank = lora.LoraConfig(rank=2, targets=("qkv",))
  adapted = dataclasses.replace(config, tune="lora", lora=low_rank)
  assert parts_of(adapted, lora.Frozen) == frame_part
  new = parts_of(adapted, nnx.Param) - (everything - frame_part)
  assert {name[-1] for name in new} == {"qkv"} and new < frame_part


def test_streams_are_the_encoders_that_a_model_has():
  def streams(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    make = lambda: config.make(rngs=nnx.Rngs(0))
    return list(nnx.eval_shape(make).streams)

  assert streams() == ["video", "text"]
  assert streams(semantic=tiny.TOWER, aligner_depth=1, seconds=1.0) == [
    *("sync", "semantic", "text", "aligner")
  ]
  assert streams(prompt_encoder=T5) == ["video", "text", "prompt"]
