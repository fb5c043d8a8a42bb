"""CLIP of open_clip and Synchformer against outputs of the originals."""

import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from configs import finetune_mmaudio
from tests.pretrained import mmaudio_reference as reference
from v2a_jax.pretrained import open_clip, synchformer, vit
from v2a_jax.weights import published, tables
from v2a_jax.weights.registry import MissingWeightsError, WrongWeightsError

UNIT = jax.jit(lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True))
TINY = {
  "embed_dim": 40,
  "quick_gelu": True,
  "vision_cfg": {
    "image_size": 56,
    "layers": 3,
    "width": 64,
    "head_width": 32,
    "patch_size": 14,
  },
  "text_cfg": {
    "context_length": 77,
    "vocab_size": 1000,
    "width": 48,
    "heads": 3,
    "layers": 2,
  },
}


def clip_folder(path, model=TINY, tensors=None):
  """A folder as open_clip saves it."""
  config = {"model_cfg": model, "preprocess_cfg": {}}
  (path / open_clip.CONFIG).write_text(json.dumps(config))
  tensors = reference.weights("clip_tiny") if tensors is None else tensors
  safetensors.save_file(tensors, path / open_clip.FILES[0])
  return path


def shapes(network, sizes):
  """Published shapes of a network's tensors by name."""
  make = lambda rngs: network.make(sizes, rngs=rngs)
  return published.shapes(make, network.table(sizes))


@nnx.jit
def vision(tower, pixels):
  return tower.encode(pixels)


@nnx.jit
def text(tower, ids):
  return tower(ids)


def test_clip_agrees(tmp_path):
  folder, given = clip_folder(tmp_path), reference.outputs("clip_tiny")
  pixels = given["image"].transpose(0, 2, 3, 1)[:, None]
  features = vision(open_clip.VISION.load(folder), pixels)[:, 0]
  assert reference.difference(UNIT(features), given["image_features"]) < 1e-4
  ids = given["tokens"].astype(np.int32)
  features = text(open_clip.TEXT.load(folder), ids)
  assert reference.difference(UNIT(features), given["text_features"]) < 1e-4


@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_scale_of_similarities_may_have_any_shape(tmp_path, shape):
  tensors = reference.weights("clip_tiny")
  tensors["logit_scale"] = np.ones(shape, np.float32)
  folder = clip_folder(tmp_path, tensors=tensors)
  open_clip.TEXT.load(folder)
  open_clip.VISION.load(folder)


def test_a_checkpoint_of_pytorch_is_read_too(tmp_path, monkeypatch):
  torch = pytest.importorskip("torch", reason="torch writes the file")
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  folder = clip_folder(tmp_path)
  (folder / open_clip.FILES[0]).unlink()
  tensors = reference.weights("clip_tiny")
  state = {name: torch.tensor(value) for name, value in tensors.items()}
  torch.save(state, folder / open_clip.FILES[1])
  tower = open_clip.TEXT.load(folder)
  np.testing.assert_array_equal(
    tower.embed[...], tensors["token_embedding.weight"]
  )


def test_a_config_without_quick_gelu_means_another_activation(tmp_path):
  model = {k: v for k, v in TINY.items() if k != "quick_gelu"}
  folder = clip_folder(tmp_path, model)
  assert open_clip.VISION.read_config(folder).hidden_act == "gelu"
  assert open_clip.TEXT.read_config(folder).hidden_act == "gelu"


def test_names_and_shapes_are_those_of_vit_h_14():
  """As configs/finetune_mmaudio.py says; its text sizes are the defaults."""
  vision = vit.ViTConfig(**finetune_mmaudio.CLIP)
  found = {"text_projection": (1024, 1024), "logit_scale": ()}
  found |= shapes(open_clip.VISION, vision)
  found |= shapes(open_clip.TEXT, open_clip.TextConfig())
  assert found == reference.shapes("shapes_clip_vit_h14_384")
  assert vision.num_patches == 27 * 27


@pytest.mark.parametrize("size", [378, 384])
def test_frames_of_384_pixels_have_as_many_patches_as_of_378(size):
  tower = open_clip.VISION.make(
    open_clip.vit.ViTConfig(
      family="clip",
      hidden_size=8,
      intermediate_size=8,
      num_hidden_layers=1,
      num_attention_heads=1,
      image_size=size,
      patch_size=14,
    ),
    rngs=nnx.Rngs(0),
  )
  _, patches = tower.encode(jnp.zeros((1, 1, size, size, 3)), tokens=True)
  assert patches.shape[2] == 27 * 27


@pytest.mark.parametrize("name", ["text_projection", "logit_scale"])
def test_what_neither_tower_reads_must_be_there_too(tmp_path, name):
  tensors = reference.weights("clip_tiny")
  tensors.setdefault("logit_scale", np.ones((), np.float32))
  del tensors[name]
  folder = clip_folder(tmp_path, tensors=tensors)
  for tower in (open_clip.VISION, open_clip.TEXT):
    with pytest.raises(WrongWeightsError, match=f"{name} is missing"):
      tower.load(folder)


def test_what_is_missing_is_said_in_one_line(tmp_path):
  with pytest.raises(MissingWeightsError, match=r"open_clip_config\.json"):
    open_clip.TEXT.load(tmp_path)
  folder = clip_folder(tmp_path, {"vision_cfg": {}})
  with pytest.raises(WrongWeightsError, match="does not describe a CLIP"):
    open_clip.TEXT.load(folder)
  folder = clip_folder(tmp_path)
  (folder / open_clip.FILES[0]).unlink()
  with pytest.raises(MissingWeightsError, match=open_clip.FILES[0]):
    open_clip.TEXT.load(folder)
  with pytest.raises(MissingWeightsError, match="synchformer_state_dict"):
    synchformer.VISUAL.load(tmp_path)


def test_synchformer_agrees():
  given = reference.outputs("synchformer_visual")
  weights = reference.weights("synchformer_visual")
  audio = {"afeat_extractor.cls_token": np.zeros(3, np.float32)}
  config = synchformer.SynchformerConfig()
  tower = synchformer.VISUAL.assemble(
    tables.in_memory(weights | audio), config, source="synchformer"
  )
  segments = given["frames_14"][0].transpose(0, 1, 3, 4, 2)
  segments = segments.repeat(16, axis=2).repeat(16, axis=3)
  features = nnx.jit(lambda tower, x: tower.encode(x))(tower, segments)
  assert reference.difference(features[None], given["features"]) < 1e-4
  unused = "vfeat_extractor.patch_embed.proj"
  found = {f"{unused}.weight": (768, 3, 16, 16), f"{unused}.bias": (768,)}
  found |= shapes(synchformer.VISUAL, config)
  assert found == reference.shapes("synchformer_visual")


def test_a_clip_is_cut_into_segments_that_overlap():
  sizes = synchformer.SynchformerConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=32,
  )
  tower = synchformer.VISUAL.make(sizes, rngs=nnx.Rngs(0))
  shape = (35, 32, 32, 3)
  frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  encode = nnx.jit(
    lambda tower, x: tower.encode_clip(tower.preprocess(x[None])[0])
  )
  features = np.asarray(encode(tower, frames))
  assert features.shape == (3 * 8, 16)
  pixels = frames.astype(np.float32) / 127.5 - 1
  alone = nnx.jit(lambda tower, x: tower.encode(x))
  for i in range(3):
    segment = pixels[None, 8 * i : 8 * i + 16]
    np.testing.assert_allclose(
      features[8 * i : 8 * i + 8], alone(tower, segment)[0], atol=1e-4
    )
