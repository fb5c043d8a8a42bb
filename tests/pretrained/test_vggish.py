"""VGGish against the same network in PyTorch, with fewer channels."""

import jax
import numpy as np
import pytest

from tests.pretrained import reference
from v2a_jax.pretrained import vggish

_SOUNDS = reference.sounds(vggish.SAMPLE_RATE, 0.975)


def _network(width=8):
  """The published layers, 1/8 as wide; (convolutions, dense layers)."""
  torch = pytest.importorskip("torch")
  nn = torch.nn
  layers, before = [], 1
  for size in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M"):
    if size == "M":
      layers.append(nn.MaxPool2d(2, 2))
    else:
      conv = nn.Conv2d(before, size * width, 3, padding=1)
      layers += [conv, nn.ReLU()]
      before = size * width
  network = nn.Module()
  network.features = nn.Sequential(*layers)
  wide, relu = 64 * width, nn.ReLU()
  network.embeddings = nn.Sequential(
    *(nn.Linear(6 * 4 * before, wide), relu, nn.Linear(wide, wide), relu),
    *(nn.Linear(wide, 128), relu),
  )
  return network


def _log_mel(waveform):
  """The front end by the formulas, one frame and one band at a time."""
  mel = lambda f: 1127 * np.log(1 + f / 700)
  step = (mel(7500) - mel(125)) / 65
  hz = np.arange(1, 257) * 31.25
  window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
  rows = []
  for start in range(0, len(waveform) - 399, 160):
    frame = waveform[start : start + 400].astype(np.float64) * window
    spectrum = np.abs(np.fft.rfft(frame, 512))[1:]
    away = lambda band: np.abs(mel(hz) - mel(125) - (band + 1) * step) / step
    sides = (np.maximum(0, 1 - away(band)) for band in range(64))
    rows.append([np.log(0.01 + (side * spectrum).sum()) for side in sides])
  return np.array(rows)


def test_front_end_agrees_with_the_formulas():
  got = vggish.log_mel(_SOUNDS)
  assert got.shape == (4, 96, 64)
  reference.assert_close(got[0], _log_mel(_SOUNDS[0]))


def test_network_agrees_with_torch_before_the_last_relu():
  network = _network()
  import torch

  state = reference.random_state(network)
  mel = torch.tensor(np.array(vggish.log_mel(_SOUNDS)))
  with torch.no_grad():
    flat = network.features(mel[:, None]).permute(0, 2, 3, 1).flatten(1)
    wanted = network.embeddings[:5](flat).numpy()
  embedding, logits = jax.jit(vggish.apply)(vggish.convert(state), _SOUNDS)
  assert embedding.shape == (4, vggish.EMBEDDING_DIM)
  assert (wanted < 0).any() and logits.shape == (4, 0)
  reference.assert_close(embedding, wanted)
