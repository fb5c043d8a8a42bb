"""Published config files: defaults, ranges and choices."""

import json

import pytest

from v2a_jax.basics.settings import SettingError, build
from v2a_jax.pretrained import clap_text, t5, vit
from v2a_jax.weights.registry import WrongWeightsError

NETWORKS = {
  "t5": (t5.NETWORK, {"model_type": "t5"}),
  "clap_text_model": (clap_text.NETWORK, {"model_type": "clap_text_model"}),
  "siglip_vision_model": (vit.NETWORK, {"model_type": "siglip_vision_model"}),
  "clip_vision_model": (vit.NETWORK, {"model_type": "clip_vision_model"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_config_that_leaves_everything_out_is_read(tmp_path, name):
  network, values = NETWORKS[name]
  (tmp_path / "config.json").write_text(json.dumps(values))
  assert isinstance(network.read_config(tmp_path), network.config)


@pytest.mark.parametrize(
  "name, change, words",
  [
    ("t5", dict(d_model=0), r"d_model=0 is not in \[1, inf\)"),
    ("t5", dict(num_layers=-2), "num_layers=-2"),
    ("t5", dict(relative_attention_num_buckets=2), r"buckets=2 is not in \[4"),
    (
      "t5",
      dict(relative_attention_max_distance=8),
      r"distance=8 .* \(8, inf\)",
    ),
    ("t5", dict(layer_norm_epsilon=0.0), "layer_norm_epsilon=0.0"),
    ("t5", dict(feed_forward_proj="gated-sine"), "gated-sine.*gated-gelu"),
    ("t5", dict(d_ff=True), "d_ff=True is not of type int"),
    ("clap_text_model", dict(vocab_size=0), "vocab_size=0"),
    ("clap_text_model", dict(hidden_act="sine"), "hidden_act='sine'.*relu"),
    (
      "clap_text_model",
      dict(projection_hidden_act=""),
      "projection_hidden_act",
    ),
    ("clap_text_model", dict(pad_token_id=-1), "pad_token_id=-1"),
    (
      "clap_text_model",
      dict(max_position_embeddings=2),
      r"max_position_embeddings=2 is not in \[3, inf\)",
    ),
    (
      "clap_text_model",
      dict(num_attention_heads=7),
      "num_attention_heads=7 does not divide hidden_size=768.*use one of 1, 2",
    ),
    (
      "siglip_vision_model",
      dict(num_channels=4),
      r"num_channels=4 is not in \[3, 3\]",
    ),
    ("siglip_vision_model", dict(patch_size=0), "patch_size=0"),
    ("siglip_vision_model", dict(image_size=8), r"image_size=8 .*\[16, inf\)"),
    ("siglip_vision_model", dict(resample=0), r"resample=0 is not in \[2, 3\]"),
    (
      "clip_vision_model",
      dict(image_mean=[0.5]),
      "image_mean=.* not 3 numbers",
    ),
    ("clip_vision_model", dict(image_std=[1, 0, 1]), r"image_std=.*\(0, inf\)"),
    ("clip_vision_model", dict(vision_use_head="no"), "not of type bool"),
  ],
)
def test_values_that_cannot_be_built_are_named_with_the_folder(
  tmp_path, name, change, words
):
  network, values = NETWORKS[name]
  (tmp_path / "config.json").write_text(json.dumps(values | change))
  with pytest.raises(WrongWeightsError, match=words) as caught:
    network.read_config(tmp_path)
  message = str(caught.value)
  assert message.startswith(str(tmp_path)) and "\n" not in message


def test_heads_of_an_odd_size_are_read():
  """Published networks have no rotary positions, which need an even size."""
  sizes = dict(hidden_size=15, num_attention_heads=3)
  assert build(clap_text.ClapTextConfig, sizes).hidden_size == 15
  assert build(vit.ViTConfig, sizes | dict(family="clip")).hidden_size == 15


def test_siglip_has_no_projection():
  with pytest.raises(
    SettingError, match=r"projection_dim=8 is not in \[0, 0\]"
  ):
    vit.ViTConfig(family="siglip", projection_dim=8)
