"""YAMNet against torch, against TensorFlow Lite, and on known sounds."""

import pathlib

import jax
import numpy as np
import pytest
import soundfile

from tests.pretrained import reference
from v2a_jax.pretrained import yamnet
from v2a_jax.weights import registry, tflite_file

SHARED = pathlib.Path(__file__).parents[2].parent / "shared"
FILE = registry.get("yamnet").file
WEIGHTS = SHARED / "weights" / FILE
SPEECH = SHARED / "clips" / "golden" / "speech.wav"

pytestmark = pytest.mark.skipif(
  not WEIGHTS.is_file(), reason="../shared/weights is not here"
)


@pytest.fixture(scope="module")
def state():
  return tflite_file.read(WEIGHTS)


@pytest.fixture(scope="module")
def windows():
  if not SPEECH.is_file():
    pytest.skip("../shared/clips is not here")
  sound, rate = soundfile.read(SPEECH, dtype="float32")
  assert rate == yamnet.SAMPLE_RATE
  return np.stack([sound[i : i + 15600] for i in range(0, 23401, 7800)])


def test_known_sounds_get_their_label(state, windows):
  with open(SHARED / "weights" / "yamnet_labels.txt") as file:
    labels = file.read().splitlines()
  assert len(labels) == yamnet.NUM_CLASSES
  _, logits = jax.jit(yamnet.apply)(yamnet.convert(state), windows)
  assert {labels[int(i)] for i in logits.argmax(1)} == {"Speech"}
  assert jax.nn.sigmoid(logits.max(1)).min() > 0.8


def test_network_agrees_with_torch(state, windows):
  """All layers in torch, padded by hand as TensorFlow does."""
  torch = pytest.importorskip("torch")
  find = lambda start: next(v for k, v in state.items() if k.startswith(start))
  params = yamnet.convert(state)
  mel = np.array(yamnet.log_mel(params, windows))
  x = torch.tensor(mel)[:, None]
  for index in range(1, 28):
    layer = f"tower0/network/layer{index}/"
    depthwise = index % 2 == 0
    norm = f"{'sepconv' if depthwise else 'conv'}/BatchNorm/FusedBatchNormV3"
    if depthwise:
      kernel = torch.tensor(find(f"{layer}{norm};")).permute(3, 0, 1, 2)
    else:
      kernel = torch.tensor(find(f"{layer}conv/Conv2D")).permute(0, 3, 1, 2)
    stride = 2 if index in (1, 4, 8, 12, 24) else 1
    pad = kernel.shape[-1] - stride if kernel.shape[-1] == 3 else 0
    x = torch.nn.functional.pad(x, 2 * (pad // 2, pad - pad // 2))
    bias = torch.tensor(state[f"{layer}{norm}"])
    groups = x.shape[1] if depthwise else 1
    x = torch.nn.functional.conv2d(x, kernel, bias, stride, groups=groups)
    x = x.clamp(0, 6)
  wanted = x.mean((2, 3))
  weight = torch.tensor(state["tower0/network/layer29/fc/MatMul"])
  bias = torch.tensor(state["network/layer29/fc/biases"])
  embedding, logits = jax.jit(yamnet.apply)(params, windows)
  reference.assert_close(embedding, wanted)
  reference.assert_close(logits, wanted @ weight.T + bias)


def test_front_end_and_network_agree_with_tensorflow_lite(state, windows):
  """The runtime rounds every layer to 8 bits, so networks agree roughly."""
  lite = pytest.importorskip("ai_edge_litert.interpreter")
  run = lite.Interpreter(
    str(WEIGHTS), experimental_preserve_all_tensors=True, num_threads=1
  )
  run.allocate_tensors()
  index = {of["name"]: of["index"] for of in run.get_tensor_details()}
  params = yamnet.convert(state)
  mels = yamnet.log_mel(params, windows)
  embeddings, logits = jax.jit(yamnet.apply)(params, windows)
  for window, mel, embedding, logit in zip(windows, mels, embeddings, logits):
    run.set_tensor(run.get_input_details()[0]["index"], window)
    run.invoke()
    log = run.get_tensor(index["log_mel_spectrogram"]).reshape(mel.shape)
    np.testing.assert_allclose(mel, log, atol=1e-3)
    rounded = run.get_tensor(index["tower0/network/layer28/reduce_mean"])
    rounded = rounded.astype(np.float32).ravel() + 128
    norms = np.linalg.norm(rounded) * np.linalg.norm(embedding)
    assert rounded @ np.asarray(embedding) / norms > 0.998
    (scores,) = run.get_tensor(run.get_output_details()[0]["index"])
    np.testing.assert_allclose(jax.nn.sigmoid(logit), scores, atol=0.05)


def test_damaged_files_are_one_line_with_the_name(tmp_path):
  whole = WEIGHTS.read_bytes()
  rng = np.random.default_rng(0)
  path = tmp_path / "forged.tflite"
  refused = 0
  for start in rng.integers(0, 4000, 40):
    data = bytearray(whole[:40_000])
    data[start : start + 8] = rng.bytes(8)
    path.write_bytes(data)
    try:
      tflite_file.read(path)
    except tflite_file.TFLiteFileError as error:
      assert "forged.tflite" in str(error) and "\n" not in str(error)
      refused += 1
  assert refused == 40
