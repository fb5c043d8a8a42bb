"""T5's encoder against `transformers` on random weights."""

import json

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from v2a_jax.pretrained import t5
from v2a_jax.weights import registry as weights

SIZES = dict(
  vocab_size=50,
  d_model=24,
  d_kv=5,
  d_ff=40,
  num_layers=3,
  num_heads=4,
  relative_attention_num_buckets=8,
  relative_attention_max_distance=20,
)

encode = nnx.jit(lambda encoder, ids, mask: encoder(ids, mask))


def reference(cls="T5EncoderModel", **settings):
  transformers = pytest.importorskip("transformers")
  config = transformers.T5Config(**{**SIZES, **settings})
  return getattr(transformers, cls)(config)


def example():
  """Two texts of 40 ids, the second of 7 and padded."""
  ids = np.random.default_rng(1).integers(2, 50, (2, 40))
  mask = np.arange(40) < np.array([[40], [7]])
  return np.where(mask, ids, 0).astype(np.int32), mask


def expected(model, ids, mask):
  import torch

  encoder = getattr(model, "encoder", model)
  with torch.no_grad():
    out = encoder(
      input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
    )
  return out.last_hidden_state.numpy()


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_agrees_with_transformers(publish, feed_forward):
  model = reference(feed_forward_proj=feed_forward)
  encoder = t5.load(publish(model))
  ids, mask = example()
  got = np.asarray(encode(encoder, ids, mask))
  want = expected(model, ids, mask)
  np.testing.assert_allclose(got[mask], want[mask], rtol=0, atol=1e-5)


def test_padding_changes_nothing(publish):
  encoder = t5.load(publish(reference()))
  ids, mask = example()
  short = encode(encoder, ids[1:, :7], mask[1:, :7])
  np.testing.assert_allclose(
    encode(encoder, ids, mask)[1, :7], short[0], rtol=0, atol=1e-5
  )


def test_a_text_without_tokens_gives_finite_features(publish):
  encoder = t5.load(publish(reference()))
  ids, _ = example()
  assert np.isfinite(encode(encoder, ids, np.zeros(ids.shape, bool))).all()


def test_a_file_with_a_decoder_and_in_parts_is_read(publish):
  model = reference("T5ForConditionalGeneration")
  folder = publish(model, max_shard_size="20KB")
  assert (folder / "model.safetensors.index.json").is_file()
  ids, mask = example()
  got = np.asarray(encode(t5.load(folder), ids, mask))
  np.testing.assert_allclose(
    got[mask], expected(model, ids, mask)[mask], rtol=0, atol=1e-5
  )


def test_an_embedding_under_its_other_name_is_read(publish):
  folder = publish(reference())
  file = folder / "model.safetensors"
  tensors = safetensors.load_file(file)
  ids, mask = example()
  before = encode(t5.load(folder), ids, mask)
  tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
  safetensors.save_file(tensors, file)
  np.testing.assert_array_equal(encode(t5.load(folder), ids, mask), before)


def test_bfloat16_is_near(publish):
  import torch

  model = reference()
  ids, mask = example()
  folder = publish(model)
  want = expected(model, ids, mask)
  model.to(torch.bfloat16).save_pretrained(folder)
  encoder = t5.load(folder, dtype="bfloat16", param_dtype="bfloat16")
  got = encode(encoder, ids, mask)
  assert got.dtype == encoder.embed[...].dtype == jnp.bfloat16
  error = np.asarray(got, np.float32)[mask] - want[mask]
  assert np.sqrt(np.mean(error**2) / np.mean(want[mask] ** 2)) < 0.05


def test_buckets_are_those_of_transformers():
  modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
  import torch

  offset = torch.arange(300)[None] - torch.arange(300)[:, None]
  want = modeling.T5Attention._relative_position_bucket(
    offset, bidirectional=True, num_buckets=32, max_distance=128
  )
  got = t5.buckets(300, count=32, max_distance=128)
  np.testing.assert_array_equal(got, want.numpy())


def test_wrong_tensors_are_all_named(publish):
  folder = publish(reference())
  file = folder / "model.safetensors"
  tensors = safetensors.load_file(file)
  del tensors["encoder.block.1.layer.0.SelfAttention.k.weight"]
  wo = "encoder.block.2.layer.1.DenseReluDense.wo.weight"
  tensors[wo] = np.ascontiguousarray(tensors[wo].T)
  tensors["encoder.stranger"] = np.zeros(3, np.float32)
  safetensors.save_file(tensors, file)
  with pytest.raises(weights.WrongWeightsError) as caught:
    t5.load(folder)
  message = str(caught.value)
  assert "\n" not in message
  assert "encoder.block.1.layer.0.SelfAttention.k.weight is missing" in message
  assert "encoder.stranger is extra" in message
  assert f"{wo} is (40, 24), the model has (24, 40)" in message
  assert "block.0." not in message


def test_a_folder_of_another_network_is_refused(tmp_path):
  with pytest.raises(weights.MissingWeightsError, match="config.json"):
    t5.load(tmp_path)
  config = tmp_path / "config.json"
  config.write_text('{"model_type": "bert"}')
  with pytest.raises(weights.WrongWeightsError, match="'bert'.*t5"):
    t5.load(tmp_path)
  config.write_text('{"model_type": "t5", "feed_forward_proj": "sine"}')
  with pytest.raises(weights.WrongWeightsError, match="sine.*relu"):
    t5.load(tmp_path)
  config.write_text('{"model_type": "t5", "d_model": "wide"}')
  with pytest.raises(weights.WrongWeightsError, match="d_model='wide'.*int"):
    t5.load(tmp_path)
  config.write_text('{"model_type": "t5"}')
  with pytest.raises(weights.MissingWeightsError, match="safetensors"):
    t5.load(tmp_path)
  (tmp_path / "model.safetensors").write_bytes(b"cut short")
  with pytest.raises(weights.WrongWeightsError, match="cannot read"):
    t5.load(tmp_path)


def test_parts_outside_the_folder_are_refused(tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "t5"}')
  index = {"weight_map": {"shared.weight": "../other.safetensors"}}
  path = tmp_path / "model.safetensors.index.json"
  path.write_text(json.dumps(index))
  with pytest.raises(weights.WrongWeightsError, match="weight_map"):
    t5.load(tmp_path)
