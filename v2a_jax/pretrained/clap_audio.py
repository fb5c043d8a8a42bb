"""The audio tower of LAION's CLAP, into the space that texts share.

A Swin transformer (HTSAT) on the log-mel spectrogram of 10 s, folded into a
square: a quarter of the time in each of four bands of rows. Tokens attend
within windows of 8x8, which every second layer shifts by 4, and four tokens
merge into one between stages:

  x = x + attend(norm(x)),  x = x + W_2 gelu(W_1 norm(x) + b_1) + b_2;
  feature = W_2 relu(W_1 mean(norm(x)) + b_1) + b_2

Wu et al., "Large-scale contrastive language-audio pretraining",
https://arxiv.org/abs/2211.06687; Chen et al., "HTS-AT",
https://arxiv.org/abs/2202.00874. Files are those of `transformers`
(laion/clap-htsat-unfused), whose text tower is clap_text.py. Weights that fuse
several crops (`-fused`) are read, too: sounds of at most 10 s have one crop.

Front end (48 kHz): power spectra of 1024-sample frames every 480 samples under
a Hann window, the ends mirrored; 64 triangles of equal area, straight in Hz,
their edges on Slaney's mel scale from 50 to 14,000 Hz; decibels, at least -100.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics.paths import as_path
from v2a_jax.pretrained import convnet, spectrum
from v2a_jax.pretrained.convnet import Params, State
from v2a_jax.weights import published
from v2a_jax.weights import registry as weights_lib

SAMPLE_RATE = 48_000
EMBEDDING_DIM, NUM_CLASSES = 512, 0
SECONDS = 10  # that it hears at a time

_FFT, _HOP = 1024, 480
_FILTERS = (SAMPLE_RATE, _FFT, 64, 50.0, 14_000.0)
_FOLDS, _PATCH, _EPSILON = 4, 4, 1e-5
_ENCODER = "audio_model.audio_encoder."
_DENSE = (
  "attention.self.query",
  "attention.self.key",
  "attention.self.value",
  "attention.output.dense",
  "intermediate.dense",
  "output.dense",
)
_BIAS = "attention.self.relative_position_bias_table"


def load(path: str | os.PathLike[str] | None = None) -> Params:
  """Reads the published weights; see `weights.registry.load`."""
  return convert(weights_lib.load("clap", path))


def load_folder(folder: str | os.PathLike[str]) -> Params:
  """Reads the tower in a folder of `transformers`, with both towers or one."""
  return convert(published.read_tensors(as_path(folder)))


def repeated(mono: np.ndarray, length: int) -> np.ndarray:
  """Repeats a shorter sound [t] while it fits whole; silence is the rest."""
  mono = np.tile(mono, max(length // max(len(mono), 1), 1))
  return np.pad(mono, (0, max(0, length - len(mono))))


def convert(state: State) -> Params:
  """Converts tensors by the names of `transformers`; others are left out."""
  state = {name.removeprefix(_ENCODER): value for name, value in state.items()}
  scale, shift = convnet.norm_affine(state, "batch_norm", epsilon=_EPSILON)
  params = {
    "bands/scale": jnp.asarray(scale),
    "bands/shift": jnp.asarray(shift),
  }
  dense, norms = ["patch_embed.proj"], ["patch_embed.norm", "norm"]
  dense += [f"audio_projection.linear{i}" for i in (1, 2)]
  for stage in range(convnet.count(state, "layers.")):
    for index in range(convnet.count(state, f"layers.{stage}.blocks.")):
      block = f"layers.{stage}.blocks.{index}"
      norms += [f"{block}.layernorm_before", f"{block}.layernorm_after"]
      dense += [f"{block}.{name}" for name in _DENSE]
      params[f"{block}/bias"] = _position_bias(state[f"{block}.{_BIAS}"])
    if f"layers.{stage}.downsample.norm.weight" in state:
      norms.append(f"layers.{stage}.downsample.norm")
      dense.append(f"layers.{stage}.downsample.reduction")
  for name in dense:
    params |= convnet.layer(state, name)
  for name in norms:
    params |= convnet.norm(state, name)
  return params


def _position_bias(table: np.ndarray) -> jax.Array:
  """Looks up the bias of each pair of tokens, [heads, w^2, w^2].

  Args:
    table: by difference of rows and of columns, [(2 w - 1)^2, heads].
  """
  side = (round(len(table) ** 0.5) + 1) // 2
  rows, columns = np.divmod(np.arange(side * side), side)
  apart = lambda x: x[:, None] - x + side - 1
  index = apart(rows) * (2 * side - 1) + apart(columns)
  return jnp.asarray(table[index].transpose(2, 0, 1))


def log_mel(waveform: jax.Array) -> jax.Array:
  """Computes the network's input.

  Args:
    waveform: float32 [b, samples] at 48 kHz, of at least 513 samples.

  Returns:
    float32 [b, frames, 64 bands] in dB, one frame every 10 ms.
  """
  filters = spectrum.slaney_filters(*_FILTERS)
  return spectrum.log_mel(waveform, filters, fft=_FFT, hop=_HOP)


@functools.cache
def _stretch(count: int, target: int) -> np.ndarray:
  """Returns the matrix [target, count] of PyTorch's bicubic interpolation,
  whose first and last points stay; cubics of Keys with a = -0.75."""
  a = -0.75
  place = np.arange(target) * (count - 1) / (target - 1)
  first = np.floor(place).astype(int)
  matrix = np.zeros((target, count))
  for offset in range(-1, 3):
    x = np.abs(place - first - offset)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    column = np.clip(first + offset, 0, count - 1)
    np.add.at(matrix, (np.arange(target), column), np.where(x <= 1, near, far))
  return matrix.astype(np.float32)


def fold(params: Params, mel: jax.Array) -> jax.Array:
  """Normalises bands and folds [b, frames, bands] into a square picture.

  Frames are stretched to 16 a band, so that both sides are 4 bands long.
  """
  b, frames, bands = mel.shape
  side = _FOLDS * bands
  x = mel * params["bands/scale"] + params["bands/shift"]
  if frames < _FOLDS * side:
    matrix = _stretch(frames, _FOLDS * side)
    x = jnp.einsum("st,btf->bsf", matrix, x, precision="highest")
  x = x.reshape(b, _FOLDS, side, bands).swapaxes(2, 3)
  return x.reshape(b, side, side, 1)


def _windows(x: jax.Array, size: int) -> jax.Array:
  """Cuts [b, h, w, c] into windows, [b, h/size, w/size, size^2, c]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // size, size, w // size, size, c).swapaxes(2, 3)
  return x.reshape(b, h // size, w // size, size * size, c)


def _joined(x: jax.Array) -> jax.Array:
  """Undoes `_windows`."""
  b, rows, columns, area, c = x.shape
  size = round(area**0.5)
  x = x.reshape(b, rows, columns, size, size, c).swapaxes(2, 3)
  return x.reshape(b, rows * size, columns * size, c)


def _apart(height: int, width: int, size: int) -> np.ndarray:
  """Returns the pairs of a shifted picture's windows that were not neighbours,
  bool [h/size, w/size, 1, size^2, size^2]."""
  region = lambda n: (
    (np.arange(n) >= n - size).astype(int) + (np.arange(n) >= n - size // 2)
  )
  regions = 3 * region(height)[:, None] + region(width)
  own = _windows(regions[None, :, :, None], size)[0, ..., 0]
  return (own[..., :, None] != own[..., None, :])[:, :, None]


def _attend(
  params: Params, name: str, x: jax.Array, shifted: bool
) -> jax.Array:
  bias = params[f"{name}/bias"]
  size = round(bias.shape[1] ** 0.5)
  h, w = x.shape[1:3]
  shift = size // 2 if shifted and min(h, w) > size else 0
  x = _windows(jnp.roll(x, (-shift, -shift), (1, 2)), size)
  heads = lambda part: convnet.dense(
    params, f"{name}.attention.self.{part}", x
  ).reshape(*x.shape[:4], len(bias), -1)
  q, k, v = heads("query"), heads("key"), heads("value")
  multiply = functools.partial(jnp.einsum, precision="highest")
  scores = multiply("bijqhd,bijkhd->bijhqk", q, k) / q.shape[-1] ** 0.5 + bias
  if shift:
    scores = scores - 100.0 * _apart(h, w, size)
  y = multiply("bijhqk,bijkhd->bijqhd", jax.nn.softmax(scores), v)
  y = convnet.dense(
    params, f"{name}.attention.output.dense", y.reshape(x.shape)
  )
  return jnp.roll(_joined(y), (shift, shift), (1, 2))


def _block(params: Params, name: str, x: jax.Array, shifted: bool) -> jax.Array:
  norm = functools.partial(convnet.layer_norm, params, epsilon=_EPSILON)
  x = x + _attend(params, name, norm(f"{name}.layernorm_before", x), shifted)
  y = convnet.dense(
    params, f"{name}.intermediate.dense", norm(f"{name}.layernorm_after", x)
  )
  y = jax.nn.gelu(y, approximate=False)
  return x + convnet.dense(params, f"{name}.output.dense", y)


def _merge(params: Params, name: str, x: jax.Array) -> jax.Array:
  """Merges squares of four tokens, by columns."""
  x = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
  x = jnp.concatenate(x, axis=-1)
  x = convnet.layer_norm(params, f"{name}.norm", x, epsilon=_EPSILON)
  return convnet.dense(params, f"{name}.reduction", x)


def encode(params: Params, mel: jax.Array) -> jax.Array:
  """Runs the transformer on [b, frames, bands], to [b, h, w, width]."""
  x = fold(params, mel)
  x = convnet.conv(
    params, "patch_embed.proj", x, stride=_PATCH, padding="VALID"
  )
  x = convnet.layer_norm(params, "patch_embed.norm", x, epsilon=_EPSILON)
  for stage in range(convnet.count(params, "layers.")):
    for index in range(convnet.count(params, f"layers.{stage}.blocks.")):
      x = _block(params, f"layers.{stage}.blocks.{index}", x, index % 2 == 1)
    if f"layers.{stage}.downsample.norm/scale" in params:
      x = _merge(params, f"layers.{stage}.downsample", x)
  return convnet.layer_norm(params, "norm", x, epsilon=_EPSILON)


def feature(params: Params, mel: jax.Array) -> jax.Array:
  """Maps [b, frames, bands] into the space shared with texts, not normalised."""
  x = encode(params, mel).mean((1, 2))
  x = jax.nn.relu(convnet.dense(params, "audio_projection.linear1", x))
  return convnet.dense(params, "audio_projection.linear2", x)


def apply(params: Params, waveform: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Embeds sounds.

  Args:
    params: from `load` or `convert`.
    waveform: float32 [b, 480000] at 48 kHz; mono, in [-1, 1]. Shorter sounds
      are to be repeated while they fit whole, and padded with silence.

  Returns:
    (embeddings float32 [b, 512], class logits [b, 0]: there are none).
  """
  embedding = feature(params, log_mel(waveform))
  return embedding, embedding[:, :0]
