"""mn04 against the same network in PyTorch, and on known sounds."""

import csv
import pathlib

import jax
import numpy as np
import pytest
import soundfile

from v2a_jax.pretrained import mn04

SHARED = pathlib.Path(__file__).parents[2].parent / "shared"
WEIGHTS = SHARED / "weights" / "mn04_as_mAP_432.pt"

# Channels in, expanded, out; kernel; squeezed channels (0: none); Hardswish.
_BLOCKS = [
  (8, 8, 8, 3, 0, False),
  (8, 24, 16, 3, 0, False),
  (16, 32, 16, 3, 0, False),
  (16, 32, 16, 5, 8, False),
  (16, 48, 16, 5, 16, False),
  (16, 48, 16, 5, 16, False),
  (16, 96, 32, 3, 0, True),
  (32, 80, 32, 3, 0, True),
  (32, 72, 32, 3, 0, True),
  (32, 72, 32, 3, 0, True),
  (32, 192, 48, 3, 48, True),
  (48, 272, 48, 3, 72, True),
  (48, 272, 64, 5, 72, True),
  (64, 384, 64, 5, 96, True),
  (64, 384, 64, 5, 96, True),
]
_STRIDE_TWO = {1, 3, 6, 12}


def _torch_network():
  """The published architecture, written with torch's own layers."""
  torch = pytest.importorskip("torch")
  nn = torch.nn

  def norm_conv(n_in, n_out, kernel, stride=1, groups=1, activation=None):
    layers = [
      nn.Conv2d(
        n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False
      ),
      nn.BatchNorm2d(n_out, eps=1e-3),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))

  class Squeeze(nn.Module):
    def __init__(self, channels, squeezed):
      super().__init__()
      gate = nn.Module()
      gate.fc1 = nn.Linear(channels, squeezed)
      gate.fc2 = nn.Linear(squeezed, channels)
      self.conc_se_layers = nn.ModuleList([gate])

    def forward(self, x):
      gate = self.conc_se_layers[0]
      y = gate.fc2(torch.relu(gate.fc1(x.mean((2, 3)))))
      return x * torch.sigmoid(y)[:, :, None, None]

  class Block(nn.Module):
    def __init__(self, n_in, wide, n_out, kernel, squeezed, hard, stride):
      super().__init__()
      act = nn.Hardswish if hard else nn.ReLU
      layers = [norm_conv(wide, wide, kernel, stride, wide, act)]
      if wide != n_in:
        layers.insert(0, norm_conv(n_in, wide, 1, activation=act))
      if squeezed:
        layers.append(Squeeze(wide, squeezed))
      self.block = nn.Sequential(*layers, norm_conv(wide, n_out, 1))
      self.residual = stride == 1 and n_in == n_out

    def forward(self, x):
      return x + self.block(x) if self.residual else self.block(x)

  class Network(nn.Module):
    def __init__(self):
      super().__init__()
      blocks = [
        Block(*spec, 2 if i in _STRIDE_TWO else 1)
        for i, spec in enumerate(_BLOCKS)
      ]
      self.features = nn.Sequential(
        norm_conv(1, 8, 3, 2, activation=nn.Hardswish),
        *blocks,
        norm_conv(64, 384, 1, activation=nn.Hardswish),
      )
      empty = nn.Identity
      self.classifier = nn.Sequential(
        empty(),
        empty(),
        nn.Linear(384, 512),
        nn.Hardswish(),
        empty(),
        nn.Linear(512, 527),
      )

    def forward(self, spectrogram):
      embedding = self.features(spectrogram[:, None]).mean((2, 3))
      return embedding, self.classifier(embedding)

  return Network().eval()


def _torch_log_mel(waveform):
  """The front end by torch's STFT, the mel filters one triangle at a time."""
  torch = pytest.importorskip("torch")
  x = torch.from_numpy(waveform)
  spectrum = torch.stft(
    x[:, 1:] - 0.97 * x[:, :-1],
    n_fft=1024,
    hop_length=320,
    win_length=800,
    window=torch.hann_window(800, periodic=False),
    center=True,
    pad_mode="reflect",
    return_complex=True,
  )
  top = 1127 * np.log(1 + 15000 / 700)
  step = top / 129
  filters = np.zeros((128, 513))
  for band in range(128):
    for k in range(512):
      mel = 1127 * np.log(1 + k * 31.25 / 700)
      away = abs(mel - (band + 1) * step) / step
      filters[band, k] = max(0.0, 1.0 - away)
  mel = torch.from_numpy(filters.astype(np.float32)) @ spectrum.abs().square()
  return (torch.log(mel + 1e-5) + 4.5) / 5


def _random_state(network, seed=0):
  """Every weight and every running statistic drawn afresh."""
  torch = pytest.importorskip("torch")
  draw = torch.Generator().manual_seed(seed)
  state = network.state_dict()
  for name, value in state.items():
    if value.ndim >= 2:
      fan_in = value[0].numel()
      new = torch.randn(value.shape, generator=draw) * (2 / fan_in) ** 0.5
    elif name.endswith(("running_var", ".1.weight")):
      new = 0.5 + torch.rand(value.shape, generator=draw)
    elif value.ndim == 1:
      new = 0.1 * torch.randn(value.shape, generator=draw)
    else:
      continue
    state[name] = new
  network.load_state_dict(state)
  return {k: v.numpy() for k, v in state.items()}


@pytest.fixture(scope="module")
def sounds():
  """One second of tones, noise and a click, at several levels."""
  rng = np.random.default_rng(0)
  t = np.arange(32000) / 32000
  tone = 0.3 * np.sin(2 * np.pi * (300 + 2000 * t) * t)
  noise = 0.01 * rng.standard_normal(32000)
  click = np.zeros(32000)
  click[12000:12100] = np.hanning(100)
  return np.stack([tone, noise, click, np.zeros(32000)]).astype(np.float32)


def test_front_end_agrees_with_torch(sounds):
  expected = _torch_log_mel(sounds).numpy()
  np.testing.assert_allclose(mn04.log_mel(sounds), expected, atol=1e-4)


@pytest.mark.parametrize("origin", ["random", "published"])
def test_network_agrees_with_torch(sounds, origin):
  torch = pytest.importorskip("torch")
  network = _torch_network()
  if origin == "random":
    state = _random_state(network)
  elif not WEIGHTS.is_file():
    pytest.skip("../shared/weights is not here")
  else:
    state = torch.load(WEIGHTS, weights_only=True)
    network.load_state_dict(state, strict=True)
    state = {k: v.numpy() for k, v in state.items()}
  with torch.no_grad():
    expected = network(_torch_log_mel(sounds))
  actual = jax.jit(mn04.apply)(mn04.convert(state), sounds)
  for got, wanted in zip(actual, expected, strict=True):
    scale = max(1.0, float(wanted.abs().max()))
    np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4 * scale)
  with torch.no_grad():
    wanted = network.features[:13](_torch_log_mel(sounds)[:, None])
  wanted = wanted.permute(0, 3, 2, 1).flatten(2).numpy()
  got = jax.jit(mn04.frames)(mn04.convert(state), sounds)
  scale = max(1.0, float(np.abs(wanted).max()))
  np.testing.assert_allclose(got, wanted, atol=1e-4 * scale)


@pytest.mark.parametrize(
  "name, label",
  [
    ("swch_typing", "Computer keyboard"),
    ("swch_speech", "Speech"),
    ("swch_music", "Music"),
  ],
)
def test_known_sounds_get_their_label(name, label, monkeypatch, tmp_path):
  clip = SHARED / "clips" / "golden" / f"{name}.wav"
  if not (clip.is_file() and WEIGHTS.is_file()):
    pytest.skip("../shared is not here")
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  with open(SHARED / "weights" / "audioset_527_labels.csv") as file:
    labels = [row["display_name"] for row in csv.DictReader(file)]
  sound, rate = soundfile.read(clip, dtype="float32")
  assert rate == mn04.SAMPLE_RATE
  _, logits = jax.jit(mn04.apply)(mn04.load(WEIGHTS), sound[None])
  assert labels[int(logits[0].argmax())] == label
  assert jax.nn.sigmoid(logits[0].max()) > 0.5
