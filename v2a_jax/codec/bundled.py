"""Codecs of this project, from a bundle that `v2a weights export` wrote."""

from flax import nnx

from v2a_jax.basics import settings
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.weights import bundle


def recognises(name: str) -> bool:
  """Returns True for any name; `read_config` refuses what is no bundle."""
  del name
  return True


def read_config(name: str) -> CodecConfig:
  """Reads the sizes of a bundle's codec.

  Raises:
    BundleError: there is no such bundle, or it holds no codec.
  """
  folder = bundle.find(name)
  section = bundle.read_config(folder).get("model", {})
  try:
    skip = ("name", "discriminator")
    return settings.build(CodecConfig, section, skip=skip)
  except settings.SettingError as error:
    raise bundle.BundleError(f"{folder} holds no codec ({error})") from None


def make(config: CodecConfig) -> Codec:
  """Makes a codec with initial weights."""
  return Codec(config, rngs=nnx.Rngs(0))


def load(name: str) -> Codec:
  """Reads a bundle's codec.

  Raises:
    BundleError: there is none, or its weights are not those of a codec.
  """
  config = read_config(name)
  graphdef, state = nnx.split(nnx.eval_shape(lambda: make(config)))
  return nnx.merge(graphdef, bundle.load_state(bundle.find(name), state))


def effective_rank(name: str) -> float | None:
  """Returns the number of directions that variance filled, if it was measured.

  See `Codec.effective_rank`; export writes it into config.json.
  """
  trained = bundle.read_config(bundle.find(name)).get("trained", {})
  return trained.get("effective_rank")


def calibrated(name: str) -> bool:
  """Returns True: `v2a weights export` measures the latents."""
  del name
  return True


def digest(name: str) -> str:
  """Computes the sha256 of the weights, in hexadecimal."""
  return bundle.digest(bundle.find(name))
