"""MMAudio's autoencoder and vocoders against outputs of the originals."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from tests.pretrained import mmaudio_reference as reference
from v2a_jax.codec import bigvgan, mel_vae, mmaudio, mmaudio_files
from v2a_jax.weights import state_dict
from v2a_jax.weights.registry import WrongWeightsError

VOCODERS = {"bigvgan_16k": "16k", "bigvgan_v2_44k": "44k"}
VOCODER = bigvgan.BigVGANConfig(mels=5, width=16, strides=(4, 2), tanh=False)
VAE = mel_vae.MelVaeConfig(
  sample_rate=1600,
  fft=32,
  hop=8,
  mels=5,
  log10=False,
  width=4,
  latent_dim=3,
  context=6,
)


def run(module, fn, x):
  """Calls `fn(module, x)`, jitted, on [b, channels, t] in and out."""
  graphdef, state = nnx.split(module)
  call = lambda state, x: fn(nnx.merge(graphdef, state), x.swapaxes(1, 2))
  swap = lambda y: np.asarray(y).swapaxes(1, 2)
  return jax.tree.map(swap, jax.jit(call)(state, x))


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_autoencoder_agrees_with_the_original(rate):
  given = reference.outputs(f"vae_{rate}")
  config = mmaudio.CONFIGS[rate].vae
  weights = reference.weights(f"vae_{rate}")
  vae = mmaudio_files.read_vae(weights, config, "drawn")
  mel = np.asarray(mel_vae.log_mel(config, given["wave"])).swapaxes(1, 2)
  mean, std = run(vae, lambda vae, x: vae.posterior(x), given["mel"])
  decoded = run(vae, lambda vae, x: vae.decode(x), given["z"])
  got = {"mel": mel, "mean": mean, "std": std, "decoded_mel": decoded}
  for name, value in got.items():
    assert reference.difference(value, given[name]) < 1e-4, name


@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "full"])
@pytest.mark.parametrize("name", VOCODERS)
def test_vocoder_agrees_with_the_original(name, narrow):
  config = mmaudio.CONFIGS[VOCODERS[name]].vocoder
  if narrow:
    name, config = f"{name}_narrow", dataclasses.replace(config, width=128)
  given = reference.outputs(name)
  weights = reference.weights(name)
  vocoder = mmaudio_files.read_vocoder(weights, config, "drawn")
  wave = run(vocoder, lambda vocoder, x: vocoder(x), given["mel"])
  assert reference.difference(wave, given["wave"]) < 1e-4


def vocoder_tensors():
  """A small vocoder's tensors as published, without weight norm."""
  rng = np.random.default_rng(0)
  module = nnx.eval_shape(lambda: mmaudio_files.make_vocoder(VOCODER))
  tensors = {}
  for name, shape in state_dict.shapes(module).items():
    spread = 0.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.3
    tensors[name] = rng.normal(0, spread, shape).astype(np.float32)
    if name.endswith("act.alpha"):
      for part in ("upsample", "downsample.lowpass"):
        filter_ = name.replace("act.alpha", f"{part}.filter")
        tensors[filter_] = bigvgan.low_pass().reshape(1, 1, -1)
  return tensors


def vae_tensors(config=VAE):
  """A small autoencoder's tensors as published."""
  rng = np.random.default_rng(0)
  module = nnx.eval_shape(lambda: mmaudio_files.make_vae(config))
  shapes = state_dict.shapes(module)
  tensors = {
    k: rng.normal(0, 2, s).astype(np.float32) for k, s in shapes.items()
  }
  for half, gain in (("encoder", 0.5), ("decoder", -0.2)):
    tensors[f"{half}.learnable_gain"] = np.float32(gain).reshape(())
  tensors["data_mean"] = rng.normal(size=(1, config.mels, 1)).astype(np.float32)
  tensors["data_std"] = np.full((1, config.mels, 1), 1.5, np.float32)
  return tensors


@pytest.mark.parametrize(
  "g, v",
  [
    (".weight_g", ".weight_v"),
    (
      ".parametrizations.weight.original0",
      ".parametrizations.weight.original1",
    ),
  ],
)
def test_weight_norm_under_any_name_gives_the_same_vocoder(g, v):
  plain = vocoder_tensors()
  normed = {}
  for name, tensor in plain.items():
    layer = name.removesuffix(".weight")
    if layer != name:
      axes = tuple(range(1, tensor.ndim))
      length = np.sqrt(np.square(tensor).sum(axes, keepdims=True))
      normed[layer + g], normed[layer + v] = length, 3 * tensor
    else:
      normed[name] = tensor
  normed = {f"generator.{name}": tensor for name, tensor in normed.items()}
  states = [
    nnx.state(mmaudio_files.read_vocoder(tensors, VOCODER, "drawn"))
    for tensors in (plain, normed)
  ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *states
  )


def test_kernels_of_the_autoencoder_have_length_1():
  vae = mmaudio_files.read_vae(vae_tensors(), VAE, "drawn")
  for name, kernel in (
    ("conv_in", vae.encoder.conv_in.kernel),
    ("attention", vae.decoder.mid.attn_1.qkv.kernel),
  ):
    length = jnp.sqrt(jnp.square(kernel[...]).sum((0, 1)))
    np.testing.assert_allclose(length, 1, rtol=1e-3, err_msg=name)
  for half, gain in ((vae.encoder, 1.5), (vae.decoder, 0.8)):
    length = jnp.sqrt(jnp.square(half.conv_out.kernel[...]).sum((0, 1)))
    np.testing.assert_allclose(length, gain, rtol=1e-3)


READERS = {
  "vae": (mmaudio_files.read_vae, VAE, vae_tensors),
  "vocoder": (mmaudio_files.read_vocoder, VOCODER, vocoder_tensors),
}


@pytest.mark.parametrize("kind", READERS)
def test_tensors_that_do_not_fit_are_all_named_in_one_line(kind):
  read, config, make = READERS[kind]
  tensors = make()
  first, second, *_ = (name for name in tensors if tensors[name].ndim == 3)
  del tensors[first]
  tensors[second] = np.zeros((2, 2, 2), np.float32)
  tensors["discriminator.bias"] = np.zeros(2, np.float32)
  with pytest.raises(WrongWeightsError) as caught:
    read(tensors, config, "file.pth")
  message = str(caught.value)
  assert message.startswith("file.pth") and "\n" not in message
  assert f"{first} is missing" in message
  assert "discriminator.bias is extra" in message
  assert f"{second} is (2, 2, 2), the model has" in message


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_strange_deviations_of_mels_are_refused(bad):
  tensors = vae_tensors()
  tensors["data_std"][0, 2] = bad
  with pytest.raises(WrongWeightsError, match="data_std positive"):
    mmaudio_files.read_vae(tensors, VAE, "file.pth")


def test_another_filter_is_refused_by_name():
  tensors = vocoder_tensors()
  name = "resblocks.0.activations.1.upsample.filter"
  tensors[name] = tensors[name][..., ::-1] + np.float32(0.01)
  with pytest.raises(WrongWeightsError, match=f"{name} is not the Kaiser"):
    mmaudio_files.read_vocoder(tensors, VOCODER, "file.pth")


def test_the_filter_is_scipys_for_the_same_attenuation():
  beta = signal.kaiser_beta(signal.kaiser_atten(6, 1.2))
  wanted = signal.firwin(12, 0.25, window=("kaiser", beta), fs=1.0)
  np.testing.assert_allclose(bigvgan.low_pass(), wanted, atol=1e-7)


def test_activation_is_snake_at_twice_the_rate():
  """Against convolutions of zero-stuffed signals in float64."""
  rng = np.random.default_rng(0)
  x, a, b = rng.normal(size=23), 0.4, -0.3
  f = bigvgan.low_pass().astype(np.float64)
  stuffed = np.zeros(2 * (23 + 10))
  stuffed[::2] = np.pad(x, 5, mode="edge")
  up = 2 * np.convolve(stuffed, f)[15 : 15 + 46]
  up = up + np.sin(np.exp(a) * up) ** 2 / np.exp(b)
  down = np.convolve(np.pad(up, (5, 6), mode="edge"), f[::-1], "valid")[::2]
  module = bigvgan.Activation(1)
  module.act.alpha[...], module.act.beta[...] = jnp.full(1, a), jnp.full(1, b)
  got = module(jnp.asarray(x, jnp.float32)[None, :, None])
  np.testing.assert_allclose(got[0, :, 0], down[:23], atol=1e-5)


@pytest.mark.parametrize("length", [1, 5, 7, 8, 29])
def test_attention_sees_the_context_and_no_more(length):
  context = 7
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(3, 2, length, 4))
  far = abs(np.arange(length)[:, None] - np.arange(length)) > context
  scores = np.where(far, -np.inf, q @ k.swapaxes(1, 2) / 2)
  shares = np.exp(scores - scores.max(-1, keepdims=True))
  wanted = shares / shares.sum(-1, keepdims=True) @ v
  arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
  got = mel_vae.local_attention(*arrays, context)
  np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", READERS)
def test_weights_of_another_rate_are_refused_in_few_words(kind):
  read, config, make = READERS[kind]
  with pytest.raises(WrongWeightsError) as caught:
    read(make(), dataclasses.replace(config, mels=8), "file.pth")
  message = str(caught.value)
  assert message.startswith("file.pth is for spectra of 5 mels, and those")
  assert "have 8" in message
