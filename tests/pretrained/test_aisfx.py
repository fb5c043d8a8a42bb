"""aiSFX against the same network in PyTorch, and its published weights."""

import jax
import numpy as np
import pytest

from tests.pretrained import reference
from v2a_jax.pretrained import aisfx
from v2a_jax.weights import registry

_SOUNDS = reference.sounds(aisfx.SAMPLE_RATE, 0.5)[:2]


def _network():
  """The published architecture, written with torch's own layers."""
  torch = pytest.importorskip("torch")
  nn = torch.nn

  class Block(nn.Module):
    def __init__(self, before, width):
      super().__init__()
      self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
      self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
      self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
      x = torch.relu(self.bn1(self.conv1(x)))
      return torch.relu(self.bn2(self.conv2(x)))

  class Network(nn.Module):
    def __init__(self):
      super().__init__()
      widths = [1, 64, 128, 256, 512]
      for i in range(4):
        setattr(self, f"conv_block{i + 1}", Block(*widths[i : i + 2]))

    def forward(self, mel):
      x = mel[:, None]
      for i in (1, 2, 3):
        x = nn.functional.max_pool2d(getattr(self, f"conv_block{i}")(x), 2)
      return self.conv_block4(x).mean(3).amax(2)

  return Network()


def _log_mel(waveform):
  """The front end by the formulas, one frame and one band at a time."""
  mel = lambda f: 1127 * np.log(1 + f / 700)
  step = mel(22050) / 97
  hz = np.arange(1025) * 44100 / 2048
  window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2047)
  rows = []
  for start in range(0, len(waveform) - 2047, 1024):
    frame = waveform[start : start + 2048].astype(np.float64) * window
    power = np.abs(np.fft.rfft(frame)) ** 2
    row = []
    for band in range(96):
      side = np.maximum(0, 1 - np.abs(mel(hz) - (band + 1) * step) / step)
      row.append((side * power).sum() / side.sum())
    rows.append(np.log10(1 + 1e4 * np.array(row)) / 9.457798957824707)
  return np.stack(rows)


def test_front_end_agrees_with_the_formulas():
  got = aisfx.log_mel(_SOUNDS)
  assert got.shape == (2, 20, 96)
  for mel, sound in zip(got, _SOUNDS):
    reference.assert_close(mel, _log_mel(sound))


def test_a_window_has_a_hundred_frames():
  assert aisfx.log_mel(np.zeros((1, aisfx.WINDOW))).shape[1] == 100


@pytest.mark.parametrize("origin", ["random", "published"])
def test_network_agrees_with_torch(origin):
  network = _network()
  import torch

  state = reference.random_state(network)
  if origin == "published":
    try:
      loaded = registry.load("aisfx")
    except registry.MissingWeightsError as error:
      pytest.skip(str(error))
    own = {
      name.removeprefix("0.embedding_net."): torch.tensor(array)
      for name, array in loaded.items()
      if "embedding_net" in name
    }
    network.load_state_dict(own, strict=False)
    params = aisfx.convert(loaded)
  else:
    named = {f"0.embedding_net.{name}": value for name, value in state.items()}
    params = aisfx.convert(named)
  mel = np.asarray(aisfx.log_mel(_SOUNDS))
  with torch.no_grad():
    wanted = network(torch.tensor(mel)).numpy()
  embedding, logits = jax.jit(aisfx.apply)(params, _SOUNDS)
  assert logits.shape == (2, aisfx.NUM_CLASSES)
  assert embedding.shape == (2, aisfx.EMBEDDING_DIM)
  reference.assert_close(embedding, wanted)
