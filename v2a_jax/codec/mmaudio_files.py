"""Makes MMAudio's autoencoder and vocoders of their published tensors.

A vocoder's weights may be normalised by length under either of PyTorch's names,
or plain, and all names may begin with `generator.`. Its low-pass filters must
be the closed form that `bigvgan.py` computes. Kernels of the autoencoder are
published before their normalisation,

  w / (1e-4 + |w| / sqrt(n)) / sqrt(n)    n numbers w of each output,

and its last ones without their gain of 1 + `learnable_gain`; both are applied
here, once.
"""

from collections.abc import Mapping
import os

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.codec import bigvgan, mel_vae
from v2a_jax.codec.base import Buffer
from v2a_jax.weights import published, state_dict
from v2a_jax.weights.registry import WrongWeightsError

Tensors = Mapping[str, np.ndarray]

_GENERATOR = "generator."
_FILTERS = ("upsample.filter", "downsample.lowpass.filter")


def make_vae(config: mel_vae.MelVaeConfig) -> mel_vae.MelVae:
  """Makes an autoencoder with initial weights."""
  return mel_vae.MelVae(config, rngs=nnx.Rngs(0))


def make_vocoder(config: bigvgan.BigVGANConfig) -> bigvgan.BigVGAN:
  """Makes a vocoder with initial weights."""
  return bigvgan.BigVGAN(config, rngs=nnx.Rngs(0))


def read_vae(
  tensors: Tensors,
  config: mel_vae.MelVaeConfig,
  source: str | os.PathLike[str],
) -> mel_vae.MelVae:
  """Makes an autoencoder of published tensors by name.

  Args:
    tensors: tensors of the file.
    config: sizes.
    source: name of the file in errors.

  Raises:
    WrongWeightsError: tensors are missing, extra or misshapen; all are named.
  """
  vae = nnx.eval_shape(lambda: make_vae(config))
  statistics = {
    "data_mean": (1, config.mels, 1),
    "data_std": (1, config.mels, 1),
  }
  _check_rate(tensors.get("data_mean"), config.mels, source)
  gains = {"encoder.learnable_gain": (), "decoder.learnable_gain": ()}
  shapes = state_dict.shapes(vae)
  published.check(tensors, shapes | statistics | gains, source)
  kernels = {name: _unit(tensors[name]) for name in shapes}
  for half in ("encoder", "decoder"):
    kernels[f"{half}.conv_out.weight"] *= 1 + tensors[f"{half}.learnable_gain"]
  state_dict.fill(vae, kernels)
  mean, std = _moments(tensors, "data", source)
  vae.data_mean, vae.data_std = Buffer(mean), Buffer(std)
  return vae


def read_statistics(
  tensors: Tensors, channels: int, source: str | os.PathLike[str]
) -> tuple[jax.Array, jax.Array]:
  """Reads mean and deviation of z, each [channels], from a generator's file.

  Raises:
    WrongWeightsError: they are missing, misshapen or not finite, or a deviation
      is not positive.
  """
  names = ("latent_mean", "latent_std")
  tensors = {name: tensors[name] for name in names if name in tensors}
  published.check(tensors, dict.fromkeys(names, (1, 1, channels)), source)
  return _moments(tensors, "latent", source)


def _moments(
  tensors: Tensors, prefix: str, source: str | os.PathLike[str]
) -> tuple[jax.Array, jax.Array]:
  """Returns `prefix`_mean and `prefix`_std without their axes of size 1."""
  mean, std = (
    tensors[f"{prefix}_{name}"].reshape(-1) for name in ("mean", "std")
  )
  if not (np.isfinite(mean) & np.isfinite(std) & (std > 0)).all():
    raise WrongWeightsError(
      f"{os.fspath(source)}: {prefix}_mean must be finite and {prefix}_std"
      " positive"
    )
  return jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)


def _check_rate(
  tensor: np.ndarray | None, mels: int, source: str | os.PathLike[str]
) -> None:
  """Refuses weights for spectra of another rate, by a tensor [_, mels, _]."""
  found = tensor.shape[1] if tensor is not None and tensor.ndim == 3 else mels
  if found != mels:
    raise WrongWeightsError(
      f"{os.fspath(source)} is for spectra of {found} mels, and those of this"
      f" codec have {mels}: use the file of the codec's sample rate"
    )


def _unit(kernel: np.ndarray) -> np.ndarray:
  """Scales what makes each output to length 1, but for a small constant."""
  axes = tuple(range(1, kernel.ndim))
  root = np.sqrt(np.float32(kernel[0].size))
  length = np.sqrt(np.square(kernel).sum(axes, keepdims=True))
  return kernel / (mel_vae.EPSILON + length / root) / root


def read_vocoder(
  tensors: Tensors,
  config: bigvgan.BigVGANConfig,
  source: str | os.PathLike[str],
) -> bigvgan.BigVGAN:
  """Makes a vocoder of published tensors by name; see `read_vae`.

  Raises:
    WrongWeightsError: also if a filter is another one.
  """
  vocoder = nnx.eval_shape(lambda: make_vocoder(config))
  tensors = {k.removeprefix(_GENERATOR): v for k, v in tensors.items()}
  tensors = state_dict.fold_weight_norm(tensors)
  shapes = state_dict.shapes(vocoder)
  _check_rate(tensors.get("conv_pre.weight"), config.mels, source)
  taps = bigvgan.low_pass()
  filters = [
    f"{name.removesuffix('act.alpha')}{which}"
    for name in shapes
    if name.endswith("act.alpha")
    for which in _FILTERS
  ]
  wanted = shapes | dict.fromkeys(filters, (1, 1, len(taps)))
  published.check(tensors, wanted, source)
  for name in filters:
    if not np.allclose(tensors[name], taps, rtol=0, atol=1e-5):
      raise WrongWeightsError(
        f"{os.fspath(source)}: {name} is not the Kaiser-windowed sinc of BigVGAN"
      )
  state_dict.fill(vocoder, tensors)
  return vocoder
