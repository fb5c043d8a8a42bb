"""CLAP's audio tower against `transformers`, with fewer features and layers."""

import jax
import numpy as np
import pytest

from tests.pretrained import reference
from v2a_jax.pretrained import clap_audio


@pytest.fixture(scope="module")
def network():
  pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  config = transformers.ClapAudioConfig(
    num_mel_bins=32,
    spec_size=128,
    window_size=8,
    depths=[2, 2, 2],
    num_attention_heads=[2, 2, 4],
    patch_embeds_hidden_size=16,
    hidden_size=64,
    projection_dim=24,
  )
  return transformers.ClapAudioModelWithProjection(config)


def test_front_end_agrees_with_transformers():
  pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  extract = transformers.ClapFeatureExtractor(frequency_min=50)
  sounds = reference.sounds(48000, 0.5)[:2]
  got = clap_audio.log_mel(sounds)
  for mel, sound in zip(got, sounds):
    wanted = extract._np_extract_fbank_features(
      sound.astype(np.float64), extract.mel_filters_slaney
    )
    reference.assert_close(mel, wanted)


@pytest.mark.parametrize("frames", [512, 401])
def test_every_stage_agrees_with_transformers(network, frames):
  import torch

  params = clap_audio.convert(reference.random_state(network))
  mel = np.random.default_rng(0).normal(-20, 15, (2, frames, 32))
  mel = mel.astype(np.float32)
  with torch.no_grad():
    wanted = network(torch.tensor(mel)[:, None], output_hidden_states=True)
  tokens = np.asarray(jax.jit(clap_audio.encode)(params, mel))
  last = wanted.hidden_states[-1].permute(0, 2, 3, 1)
  with torch.no_grad():
    last = network.audio_model.audio_encoder.norm(last)
  reference.assert_close(tokens, last, name="tokens")
  feature = jax.jit(clap_audio.feature)(params, mel)
  embeds = wanted.audio_embeds.numpy()
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  reference.assert_close(
    unit(np.asarray(feature)), unit(embeds), name="feature"
  )
