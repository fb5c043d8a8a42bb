"""CLIP's and SigLIP's vision towers against `transformers`, random weights."""

import functools
import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from v2a_jax.pretrained import pixels, vit
from v2a_jax.weights import registry as weights

SIZES = dict(
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=3,
  num_attention_heads=4,
  image_size=24,
  patch_size=8,
)
TEXT = dict(
  vocab_size=20,
  hidden_size=8,
  intermediate_size=8,
  num_hidden_layers=1,
  num_attention_heads=2,
)

encode = nnx.jit(lambda tower, frames: tower(frames, tokens=True))


@functools.partial(jax.jit, static_argnames=("size", "crop"))
def preprocess(frames, *, size, mean, std, crop):
  return pixels.preprocess(frames, size=size, mean=mean, std=std, crop=crop)


@pytest.fixture(scope="module")
def transformers():
  pytest.importorskip("torch", reason="the reference needs torch")
  return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def frames():
  """uint8 [2 3 30 44 3], smooth enough to be resized in any way."""
  noise = np.random.default_rng(0).normal(size=(2, 3, 6, 9, 3))
  smooth = jax.image.resize(noise, (2, 3, 30, 44, 3), "cubic")
  return np.asarray(jnp.clip(128 + 60 * smooth, 0, 255)).astype(np.uint8)


def pixels_of(tower, frames):
  config = tower.config
  return preprocess(
    frames,
    size=config.image_size,
    mean=config.image_mean,
    std=config.image_std,
    crop=config.do_center_crop,
  )


def expected(model, pixels):
  """Runs the reference on [b n h w 3]; each output as [b n …]."""
  import torch

  flat = np.asarray(pixels).reshape(-1, *pixels.shape[2:])
  with torch.no_grad():
    out = model(pixel_values=torch.tensor(flat).permute(0, 3, 1, 2))
  return {
    key: value.numpy().reshape(*pixels.shape[:2], *value.shape[1:])
    for key, value in out.items()
    if key in ("pooler_output", "last_hidden_state", "image_embeds")
  }


def near(got, want):
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_clip_agrees_with_transformers(transformers, publish, frames):
  model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZES))
  tower = vit.load(publish(model))
  feature, tokens = encode(tower, frames)
  want = expected(model, pixels_of(tower, frames))
  near(feature, want["pooler_output"])
  near(tokens, want["last_hidden_state"][:, :, 1:])
  assert feature.shape == (2, 3, tower.config.feature_dim)
  assert tokens.shape == (2, 3, tower.config.num_patches, 24)


def test_siglip_agrees_with_transformers(transformers, publish, frames):
  config = transformers.SiglipVisionConfig(**SIZES)
  model = transformers.SiglipVisionModel(config)
  tower = vit.load(publish(model))
  feature, tokens = encode(tower, frames)
  want = expected(model, pixels_of(tower, frames))
  near(feature, want["pooler_output"])
  near(tokens, want["last_hidden_state"])


def test_clip_projects_into_the_space_of_text(transformers, publish, frames):
  config = transformers.CLIPVisionConfig(**SIZES, projection_dim=10)
  model = transformers.CLIPVisionModelWithProjection(config)
  folder = publish(model)
  tower = vit.PROJECTED.load(folder)
  want = expected(model, pixels_of(tower, frames))
  near(encode(tower, frames)[0], want["image_embeds"])
  assert tower.config.feature_dim == 10
  assert encode(vit.load(folder), frames)[0].shape == (2, 3, 24)


@pytest.mark.parametrize("family", ["CLIP", "Siglip"])
def test_a_file_with_both_towers_is_read(transformers, publish, frames, family):
  more = {"projection_dim": 10} if family == "CLIP" else {}
  config = getattr(transformers, f"{family}Config")(
    vision_config=SIZES, text_config=TEXT, **more
  )
  model = getattr(transformers, f"{family}Model")(config)
  network = vit.PROJECTED if family == "CLIP" else vit.NETWORK
  tower = network.load(publish(model))
  want = expected(model.vision_model, pixels_of(tower, frames))
  want = want["pooler_output"]
  if family == "CLIP":
    want = want @ model.visual_projection.weight.detach().numpy().T
  near(encode(tower, frames)[0], want)


def test_absent_keys_take_the_defaults_of_their_family(tmp_path):
  (tmp_path / "config.json").write_text(
    json.dumps({"model_type": "siglip", "vision_config": {"image_size": 384}})
  )
  config = vit.NETWORK.read_config(tmp_path)
  assert (config.patch_size, config.image_size) == (16, 384)
  assert config.has_head and not config.do_center_crop
  (tmp_path / "config.json").write_text('{"model_type": "clip"}')
  config = vit.PROJECTED.read_config(tmp_path)
  assert (config.patch_size, config.hidden_act) == (32, "quick_gelu")
  assert config.feature_dim == 512 and config.do_center_crop
  own = {"image_mean": [0, 0, 0], "resample": 2, "do_center_crop": False}
  (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
  config = vit.NETWORK.read_config(tmp_path)
  assert config.image_mean == (0, 0, 0) and config.resample == 2
  assert config.feature_dim == 768 and not config.do_center_crop


@pytest.mark.parametrize("family", ["CLIP", "Siglip"])
@pytest.mark.parametrize("shape", [(90, 51), (10, 12)])
def test_preprocessing_is_that_of_transformers(transformers, family, shape):
  """Pillow rounds twice to whole values of 255."""
  pytest.importorskip("PIL", reason="the reference resizes with Pillow")
  noise = np.random.default_rng(0).normal(size=(1, 1, 5, 5, 3))
  frames = jax.image.resize(noise, (1, 1, *shape, 3), "cubic")
  frames = np.asarray(jnp.clip(128 + 60 * frames, 0, 255)).astype(np.uint8)
  size = {"CLIP": {"shortest_edge": 24}}.get(
    family, {"height": 24, "width": 24}
  )
  crop = {"crop_size": 24} if family == "CLIP" else {}
  processor = getattr(transformers, f"{family}ImageProcessorPil")(
    size=size, **crop
  )
  want = processor(frames[0, 0], return_tensors="np")["pixel_values"]
  want = want[0].transpose(1, 2, 0)
  got = preprocess(
    jnp.asarray(frames),
    size=24,
    mean=processor.image_mean,
    std=processor.image_std,
    crop=family == "CLIP",
  )
  assert got.shape == (1, 1, 24, 24, 3)
  error = np.abs((got[0, 0] - want) * np.asarray(processor.image_std) * 255)
  assert error.max() < 1.5 and error.mean() < 0.5


def test_floats_are_the_same_frames(transformers, publish, frames):
  config = transformers.SiglipVisionConfig(**SIZES)
  tower = vit.load(publish(transformers.SiglipVisionModel(config)))
  floats = frames.astype(np.float32) / 255
  near(encode(tower, floats)[0], encode(tower, frames)[0])


def test_bfloat16_is_near(transformers, publish, frames):
  config = transformers.CLIPVisionConfig(**SIZES)
  folder = publish(transformers.CLIPVisionModel(config))
  want = np.asarray(encode(vit.load(folder), frames)[0])
  got, _ = encode(vit.load(folder, dtype="bfloat16"), frames)
  assert got.dtype == jnp.bfloat16
  error = np.asarray(got, np.float32) - want
  assert np.sqrt(np.mean(error**2) / np.mean(want**2)) < 0.05


def test_wrong_tensors_are_all_named(transformers, publish):
  config = transformers.SiglipVisionConfig(**SIZES)
  folder = publish(transformers.SiglipVisionModel(config))
  file = folder / "model.safetensors"
  tensors = safetensors.load_file(file)
  del tensors["head.probe"], tensors["encoder.layers.2.mlp.fc1.bias"]
  patches = "embeddings.patch_embedding.weight"
  tensors[patches] = np.ascontiguousarray(tensors[patches][:, :, :4])
  tensors["embeddings.class_embedding"] = np.zeros(24, np.float32)
  safetensors.save_file(tensors, file)
  with pytest.raises(weights.WrongWeightsError) as caught:
    vit.load(folder)
  message = str(caught.value)
  assert "\n" not in message
  assert "head.probe is missing" in message
  assert "encoder.layers.2.mlp.fc1.bias is missing" in message
  assert "embeddings.class_embedding is extra" in message
  assert f"{patches} is (24, 3, 4, 8), the model has (24, 3, 8, 8)" in message


def test_siglip_has_no_projection(tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
  with pytest.raises(weights.WrongWeightsError, match="no projection"):
    vit.PROJECTED.load(tmp_path)
