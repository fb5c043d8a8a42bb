"""Silero VAD against torch, and on known sounds."""

import pathlib

import jax
import numpy as np
import pytest
import soundfile
import soxr

from v2a_jax.pretrained import silero
from v2a_jax.weights import registry

SHARED = pathlib.Path(__file__).parents[2].parent / "shared"
WEIGHTS = SHARED / "weights" / "silero_vad_16k.safetensors"
GOLDEN = SHARED / "clips" / "golden"

pytestmark = pytest.mark.skipif(
  not WEIGHTS.is_file(), reason="../shared/weights is not here"
)


@pytest.fixture(scope="module")
def state():
  return registry.load("silero", WEIGHTS)


def golden(name):
  """Returns a mono sound at 16 kHz."""
  if not GOLDEN.is_dir():
    pytest.skip("../shared/clips is not here")
  sound, rate = soundfile.read(
    GOLDEN / f"{name}.wav", dtype="float32", always_2d=True
  )
  return soxr.resample(sound.mean(axis=1), rate, silero.SAMPLE_RATE)


def test_probabilities_agree_with_torch(state):
  """The network chunk by chunk, with torch's own recurrent cell."""
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  sounds = (0.3 * rng.normal(size=(2, 20_000))).astype(np.float32)
  sounds[1] = golden("speech")[:20_000]
  found = jax.jit(silero.probabilities)(silero.convert(state), sounds)
  assert found.shape == (2, 40) and found[1].max() > 0.9

  weights = {name: torch.tensor(value) for name, value in state.items()}
  cell = torch.nn.LSTMCell(128, 128)
  cell.load_state_dict(
    {
      name.removeprefix("lstm_cell."): value
      for name, value in weights.items()
      if name.startswith("lstm_cell.")
    }
  )
  padded = torch.tensor(np.pad(sounds, ((0, 0), (64, 40 * 512 - 20_000))))
  memory = torch.zeros(2, 2, 128)
  with torch.no_grad():
    for i in range(40):
      x = padded[:, None, 512 * i : 512 * i + 576]
      x = torch.nn.functional.pad(x, (0, 64), mode="reflect")
      x = torch.nn.functional.conv1d(x, weights["stft_conv.weight"], stride=128)
      x = torch.complex(x[:, :129], x[:, 129:]).abs()
      for layer, stride in enumerate((1, 2, 2, 1), 1):
        kernel, bias = (
          weights[f"conv{layer}.{of}"] for of in ("weight", "bias")
        )
        x = torch.nn.functional.conv1d(x, kernel, bias, stride, padding=1)
        x = x.relu()
      memory = cell(x[:, :, 0], tuple(memory))
      logit = memory[0].relu() @ weights["final_conv.weight"][0, :, 0]
      wanted = torch.sigmoid(logit + weights["final_conv.bias"])
      np.testing.assert_allclose(found[:, i], wanted, atol=1e-5)


def test_speech_is_told_from_other_sounds(state):
  run = jax.jit(silero.probabilities)
  params = silero.convert(state)
  share = {
    name: float((run(params, golden(name)[None]) > 0.5).mean())
    for name in ("speech", "swch_speech", "swch_typing", "swch_music")
  }
  assert min(share["speech"], share["swch_speech"]) > 0.3
  assert max(share["swch_typing"], share["swch_music"]) < 0.02
