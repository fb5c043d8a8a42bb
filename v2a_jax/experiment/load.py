"""A trained model with what goes with it, from a work directory or a bundle."""

import dataclasses
import functools
import pathlib
from typing import Any

from flax import nnx
import jax
from ml_collections import config_dict

from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.tokenizer import TextTokenizer
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.experiment import build
from v2a_jax.training import checkpoint as checkpoint_lib
from v2a_jax.weights import bundle


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model and where it came from.

  Attributes:
    config: that built it.
    model: a `Generator`, or of a codec's workdir a `CodecGAN`.
    folder: that holds it, with the tokenizers it was trained with.
    source: `path`, `sha256`, and how far it was trained; JSON-able.
  """

  config: config_dict.ConfigDict
  model: nnx.Module
  folder: pathlib.Path
  source: dict[str, Any]

  @functools.cached_property
  def tokenizers(self) -> dict[str, TextTokenizer]:
    """`tokenizer`, and `prompt_tokenizer` where prompts have their own."""
    paths = bundle.tokenizers(self.folder)
    found = {"tokenizer": tokenizer_lib.Tokenizer.load(paths["tokenizer"])}
    if own := paths.get("prompt_tokenizer"):
      found["prompt_tokenizer"] = tokenizer_lib.load_prompt_tokenizer(own)
    return found


def load(checkpoint, *, step: int | None = None) -> Trained:
  """Loads a generator.

  Args:
    checkpoint: a workdir of `v2a train`, a bundle's folder, or the name of a
      bundle in `assets/`.
    step: of a workdir's checkpoints; None for the newest.

  Raises:
    BundleError, CheckpointError: it is missing, damaged or of another model.
  """
  path = pathlib.Path(checkpoint)
  has_weights = (path / bundle.WEIGHTS).is_file()
  if (path / "checkpoints").is_dir() or (path.is_dir() and not has_weights):
    found = from_workdir(path, step=step)
    if build.trains_codec(found.config):
      raise bundle.BundleError(
        f"{path} holds a codec: name the workdir or bundle of a generator"
      )
    return found
  return _from_bundle(bundle.find(path))


def has_checkpoints(workdir: pathlib.Path) -> bool:
  """Whether something was trained there."""
  described = (workdir / bundle.CONFIG).is_file()
  return described and any((workdir / "checkpoints").glob("[0-9]*"))


def _from_bundle(folder: pathlib.Path) -> Trained:
  config = config_dict.ConfigDict(bundle.read_config(folder))
  make = _maker(config)
  # Not `nnx.eval_shape`: under a mesh it takes logical names for mesh axes.
  graphdef, state = jax.eval_shape(lambda: nnx.split(make(nnx.Rngs(0))))
  model = nnx.merge(graphdef, bundle.load_state(folder, state))
  ours = folder.parent == bundle.ASSETS
  source = dict(config.get("trained", {})) | dict(
    path=folder.name if ours else str(folder.absolute()),
    sha256=bundle.digest(folder),
  )
  return Trained(config, model, folder, source)


def from_workdir(path, *, step: int | None = None) -> Trained:
  """What was trained in a workdir: a generator, or a codec with its critics.

  Args:
    path: of `v2a train`.
    step: of its checkpoints; None for the newest.

  Raises:
    BundleError, CheckpointError: it is missing, damaged or of another model.
  """
  path = pathlib.Path(path)
  if not (path / bundle.CONFIG).is_file():
    raise bundle.BundleError(
      f"{path} holds no {bundle.CONFIG}: name a workdir of `v2a train` or a"
      " bundle"
    )
  config = config_dict.ConfigDict(bundle.read_config(path))
  model, restored = checkpoint_lib.restore_model(
    path, _maker(config), step=step
  )
  source = dict(
    path=str(path),
    step=restored.step,
    clips_seen=restored.meta["clips_seen"],
    train_seconds=restored.meta["train_seconds"],
    sha256=restored.sha256,
  )
  return Trained(config, model, path, source)


def _maker(config):
  """`rngs -> model`; the codec's sizes are read here, outside of any trace."""
  if build.trains_codec(config):
    return build.model_maker(config, frozen_codec.sizes(config))
  return build.model_maker(config, frozen_codec.describe(config.codec).config)
