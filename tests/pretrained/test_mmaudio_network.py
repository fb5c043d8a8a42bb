"""MMAudio's flow network against outputs of the original."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pretrained import mmaudio_networks as networks
from tests.pretrained import mmaudio_reference as reference
from v2a_jax.codec import mmaudio_files
from v2a_jax.experiment import mmaudio
from v2a_jax.models.mmaudio import VARIANTS
from v2a_jax.models.mmaudio_layers import nearest
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.sampling.draw import Draw
from v2a_jax.sampling.guidance import Guidance, combine, spread
from v2a_jax.sampling.ode import ODESampler
from v2a_jax.sampling.windows import Windows
from v2a_jax.weights import tables
from v2a_jax.weights.registry import WrongWeightsError

TINY = ("network_tiny_v1", "network_tiny_v2")
ALL = (*TINY, "network_small_16k")
JOINT = Guidance(joint=4.5)


def conditions(given):
  return networks.conditioning(given["clip"], given["sync"], given["text"])


def agree(got, given, name):
  assert reference.difference(got, given[name]) < 1e-4, name


@pytest.mark.parametrize("name", TINY)
def test_conditions_agree(name):
  given, model = networks.inputs(name), networks.generator(name)

  @jax.jit
  def encode(cond):
    tokens, encoder = model.encode(cond), model.conditioner
    return {
      "clip_tokens": tokens.clip,
      "sync_tokens": nearest(tokens.sync, given["latent"].shape[1]),
      "text_tokens": tokens.text,
      "clip_summary": encoder.clip_summary(tokens.clip.mean(axis=1)),
      "text_summary": encoder.text_summary(tokens.text.mean(axis=1)),
    }

  for part, value in encode(conditions(given)).items():
    agree(value, given, part)


@pytest.mark.parametrize("name", ALL)
def test_velocity_agrees(name):
  given, model = networks.inputs(name), networks.generator(name)
  graphdef, state = nnx.split(model)
  times = networks.times(model.backbone.config, given["latent"].shape[1])

  @jax.jit
  def velocity(state, x, time, cond):
    model = nnx.merge(graphdef, state)
    return model(x, time, model.encode(cond), times=times)

  @jax.jit
  def guided(state, x, time, cond):
    model = nnx.merge(graphdef, state)
    cond, weights = JOINT.branches(cond)
    x, time = spread(x, weights), spread(time, weights)
    return combine(model(x, time, model.encode(cond), times=times), weights)

  cond = conditions(given)
  agree(velocity(state, given["latent"], given["time"], cond), given, "flow")
  at = jnp.full(networks.B, 0.3)
  agree(guided(state, given["latent"], at, cond), given, "guided_at_0_3")


@pytest.mark.parametrize("name", ALL)
def test_samples_agree(name):
  given, model = networks.inputs(name), networks.generator(name)
  graphdef, state = nnx.split(model)
  length, channels = given["latent"].shape[1:]
  sampler = ODESampler(num_steps=5, guidance=JOINT)
  times = networks.times(model.backbone.config, length)

  @jax.jit
  def sample(state, noise, cond, negative):
    draw = Draw(
      keys=None,
      times=times,
      windows=Windows(length, length),
      negative=(negative, jnp.ones(negative.shape[:2], bool)),
    )
    model = nnx.merge(graphdef, state)
    return sampler.carry(noise, model, Diffusion(), cond, draw)

  noise, negative = given["latent"], given["negative"]
  sampled = sample(state, noise, conditions(given), negative)
  if "sampled" in given:
    agree(sampled, given, "sampled")
  mean, std = mmaudio_files.read_statistics(
    reference.weights(name), channels, name
  )
  agree(sampled * std + mean, given, "sampled_latents")


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_are_the_published_ones(variant):
  shapes = reference.shapes(f"shapes_{variant}")
  channels = shapes["latent_mean"][-1]
  model, conditioner = networks.published_sizes(variant, channels)
  assert mmaudio.shapes(model, conditioner) == shapes


def load(weights, name="network_tiny_v1"):
  model, conditioner = networks.sizes(reference.shapes(name))
  return mmaudio.load_network(
    tables.in_memory(weights), model, conditioner, source="a.pth"
  )


def test_wrong_tensors_are_all_named_in_one_line():
  weights = reference.weights("network_tiny_v1")
  del weights["fused_blocks.1.attn.qkv.weight"], weights["latent_std"]
  weights["stranger"] = np.zeros(3, np.float32)
  weights["empty_clip_feat"] = np.zeros((1, 5), np.float32)
  with pytest.raises(WrongWeightsError) as caught:
    load(weights)
  message = str(caught.value)
  assert message.startswith("a.pth") and "\n" not in message
  for fault in (
    "fused_blocks.1.attn.qkv.weight is missing",
    "latent_std is missing",
    "stranger is extra",
    "empty_clip_feat is (1, 5), the model has (1, 48)",
  ):
    assert fault in message


def test_the_checkpoint_of_another_network_is_recognised():
  shapes = reference.shapes("shapes_small_44k")
  tensors = {
    name: tables.Tensor(shape, read=None) for name, shape in shapes.items()
  }
  model, conditioner = networks.published_sizes("small_16k", 20)
  with pytest.raises(WrongWeightsError) as caught:
    mmaudio.load_network(tensors, model, conditioner, source="a.pth")
  assert str(caught.value).startswith("a.pth holds the network small_44k")


def test_tables_that_older_files_hold_are_left_out():
  weights = reference.weights("network_tiny_v1")
  tables = ("t_embed.freqs", "latent_rot", "clip_rot")
  load(weights | dict.fromkeys(tables, np.zeros(3, np.float32)))


def test_a_masked_end_changes_nothing_before_it():
  name = "network_tiny_v1"
  given, model = networks.inputs(name), networks.generator(name)
  length = given["latent"].shape[1]
  times = networks.times(model.backbone.config, length)
  mask = np.arange(length)[None] < np.array([[30], [length]])

  @jax.jit
  def velocity(x, cond):
    tokens = model.encode(cond)
    return model(x, given["time"], tokens, times=times, mask=mask)

  cond, spoiled = conditions(given), given["latent"].copy()
  spoiled[0, 30:] = 7.0
  plain, other = velocity(given["latent"], cond), velocity(spoiled, cond)
  np.testing.assert_allclose(other[0, :30], plain[0, :30], atol=1e-5)
  agree(np.asarray(plain)[1:], {"flow": given["flow"][1:]}, "flow")


def test_absent_conditions_are_the_learned_ones():
  name = "network_tiny_v2"
  given, model = networks.inputs(name), networks.generator(name)
  weights = reference.weights(name)
  like = lambda x, name: np.broadcast_to(weights[name], x.shape)
  encode = jax.jit(model.encode)
  got = encode(conditions(given).without("video", "prompt"))
  want = encode(
    networks.conditioning(
      like(given["clip"], "empty_clip_feat"),
      like(given["sync"], "empty_sync_feat"),
      like(given["text"], "empty_string_feat"),
    )
  )
  jax.tree.map(np.testing.assert_array_equal, got, want)
