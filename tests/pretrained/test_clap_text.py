"""CLAP's text tower against `transformers` on random weights."""

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from v2a_jax.pretrained import clap_text
from v2a_jax.weights import registry as weights

SIZES = dict(
  vocab_size=50,
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=3,
  num_attention_heads=4,
  max_position_embeddings=22,
  type_vocab_size=2,
  projection_dim=10,
)


@nnx.jit
def encode(tower, ids, mask):
  tokens = tower(ids, mask)
  return tower.feature(tokens), tokens


@pytest.fixture(scope="module")
def transformers():
  pytest.importorskip("torch", reason="the reference needs torch")
  return pytest.importorskip("transformers")


@pytest.fixture
def model(transformers):
  config = transformers.ClapTextConfig(**SIZES)
  return transformers.ClapTextModelWithProjection(config)


def example():
  """Two texts of 20 and of 6 ids."""
  words = np.random.default_rng(1).integers(3, 50, 18)
  ids = np.full((2, 20), 1, np.int32)  # RoBERTa pads with 1.
  ids[0] = [0, *words, 2]
  ids[1, :6] = [0, *words[5:9], 2]
  return ids, ids != 1


def expected(model, ids, mask):
  import torch

  with torch.no_grad():
    return model(
      input_ids=torch.tensor(ids).long(),
      attention_mask=torch.tensor(mask).long(),
    )


def near(got, want):
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_agrees_with_transformers(model, publish):
  tower = clap_text.load(publish(model))
  ids, mask = example()
  feature, tokens = encode(tower, ids, mask)
  want = expected(model, ids, mask)
  near(feature, want.text_embeds.numpy())
  near(np.asarray(tokens)[mask], want.last_hidden_state.numpy()[mask])
  assert feature.shape == (2, 10) and tokens.shape == (2, 20, 24)


def test_padding_changes_nothing(model, publish):
  tower = clap_text.load(publish(model))
  ids, mask = example()
  short, _ = encode(tower, ids[1:, :6], mask[1:, :6])
  near(encode(tower, ids, mask)[0][1:], short)


def test_a_file_with_both_towers_is_read(transformers, publish):
  text = {k: v for k, v in SIZES.items() if k != "projection_dim"}
  audio = dict(
    depths=[1, 1, 1, 1],
    num_attention_heads=[1, 1, 1, 1],
    patch_embeds_hidden_size=4,
    hidden_size=32,
  )
  config = transformers.ClapConfig(
    text_config=text, audio_config=audio, projection_dim=10
  )
  model = transformers.ClapModel(config)
  tower = clap_text.load(publish(model))
  assert tower.config.projection_dim == 10
  import torch

  ids, mask = example()
  with torch.no_grad():
    want = model.get_text_features(
      input_ids=torch.tensor(ids).long(),
      attention_mask=torch.tensor(mask).long(),
    ).pooler_output.numpy()
  got = np.asarray(encode(tower, ids, mask)[0])
  near(got / np.linalg.norm(got, axis=-1, keepdims=True), want)


def test_bfloat16_is_near(model, publish):
  folder = publish(model)
  ids, mask = example()
  want = np.asarray(encode(clap_text.load(folder), ids, mask)[0])
  got, _ = encode(clap_text.load(folder, dtype="bfloat16"), ids, mask)
  assert got.dtype == jnp.bfloat16
  error = np.asarray(got, np.float32) - want
  assert np.sqrt(np.mean(error**2) / np.mean(want**2)) < 0.05


def test_wrong_tensors_are_all_named(model, publish):
  folder = publish(model)
  file = folder / "model.safetensors"
  tensors = safetensors.load_file(file)
  gone = "text_model.encoder.layer.2.attention.self.value.bias"
  del tensors[gone]
  tensors["text_model.stranger"] = np.zeros(3, np.float32)
  tensors["text_projection.linear1.bias"] = np.zeros(3, np.float32)
  safetensors.save_file(tensors, file)
  with pytest.raises(weights.WrongWeightsError) as caught:
    clap_text.load(folder)
  message = str(caught.value)
  assert "\n" not in message
  assert f"{gone} is missing" in message
  assert "text_model.stranger is extra" in message
  assert "text_projection.linear1.bias is (3,), the model has (10,)" in message


def test_ids_of_padding_do_not_matter(model, publish):
  tower = clap_text.load(publish(model))
  ids, mask = example()
  other = np.where(mask, ids, 0)
  near(encode(tower, other, mask)[0], encode(tower, ids, mask)[0])


def test_texts_that_are_too_long_are_refused(model, publish):
  tower = clap_text.load(publish(model))
  assert tower.config.max_length == 20
  with pytest.raises(ValueError, match="at most 20"):
    tower(np.zeros((1, 21), np.int32), np.ones((1, 21), bool))
