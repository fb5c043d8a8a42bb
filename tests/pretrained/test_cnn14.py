"""Cnn14 of PANNs against the same network in PyTorch, with fewer channels."""

import jax
import numpy as np
import pytest

from tests.pretrained import reference
from v2a_jax.pretrained import cnn14
from v2a_jax.pretrained.spectrum import slaney_filters

_SOUNDS = reference.sounds(cnn14.SAMPLE_RATE, 1.03)


def _network(width=4):
  """The published layers, 1/16 as wide."""
  torch = pytest.importorskip("torch")
  nn = torch.nn
  network, before = nn.Module(), 1
  network.bn0 = nn.BatchNorm2d(64)
  for i in range(6):
    block, size = nn.Module(), width << i
    block.conv1 = nn.Conv2d(before, size, 3, padding=1, bias=False)
    block.conv2 = nn.Conv2d(size, size, 3, padding=1, bias=False)
    block.bn1, block.bn2 = nn.BatchNorm2d(size), nn.BatchNorm2d(size)
    setattr(network, f"conv_block{i + 1}", block)
    before = size
  network.fc1 = nn.Linear(before, 48)
  network.fc_audioset = nn.Linear(48, 527)
  return network


def _run(network, mel):
  """Returns features of the blocks, embedding and logits."""
  import torch

  relu = torch.relu
  x = network.bn0(mel[:, None].transpose(1, 3)).transpose(1, 3)
  for i in range(1, 7):
    block = getattr(network, f"conv_block{i}")
    x = relu(block.bn1(block.conv1(x)))
    x = relu(block.bn2(block.conv2(x)))
    if i < 6:
      x = torch.nn.functional.avg_pool2d(x, 2)
  pooled = x.mean(3)
  hidden = relu(network.fc1(pooled.amax(2) + pooled.mean(2)))
  return x.permute(0, 2, 3, 1), hidden, network.fc_audioset(hidden)


def test_front_end_agrees_with_torch_and_librosa():
  torch = pytest.importorskip("torch")
  librosa = pytest.importorskip("librosa")
  filters = librosa.filters.mel(
    sr=16000, n_fft=512, n_mels=64, fmin=50, fmax=8000
  )
  own = slaney_filters(16000, 512, 64, 50.0, 8000.0)
  np.testing.assert_allclose(own.T, filters, atol=1e-7)
  # Not the click: its highest bands are lost in the rounding of float32.
  sounds = _SOUNDS[[0, 1, 3]]
  spectrum = torch.stft(
    torch.tensor(sounds),
    *(512, 160),
    window=torch.hann_window(512),
    pad_mode="reflect",
    return_complex=True,
  )
  mel = torch.tensor(filters) @ spectrum.abs().square()
  wanted = 10 * torch.log10(mel.clamp(min=1e-10)).swapaxes(1, 2)
  reference.assert_close(cnn14.log_mel(sounds), wanted)


def test_every_stage_agrees_with_torch():
  network = _network()
  import torch

  state = reference.random_state(network)
  params = cnn14.convert({f"model.{name}": v for name, v in state.items()})
  mel = cnn14.log_mel(_SOUNDS)
  with torch.no_grad():
    wanted = _run(network, torch.tensor(np.array(mel)))
  got = (
    jax.jit(cnn14.blocks)(params, mel),
    *jax.jit(cnn14.apply)(params, _SOUNDS),
  )
  for name, one, other in zip(("blocks", "embedding", "logits"), got, wanted):
    assert one.shape == other.shape
    reference.assert_close(one, other, name=name)


def test_a_very_short_sound_is_embedded():
  params = cnn14.convert(reference.random_state(_network()))
  mel = cnn14.log_mel(_SOUNDS[:1, :1600])
  features = jax.eval_shape(cnn14.blocks, params, mel)
  assert features.shape == (1, 1, 2, 128)
