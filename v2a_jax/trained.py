"""A trained model with what goes with it, from a work directory or a bundle."""

import dataclasses
import pathlib
from typing import Any

from flax import nnx
import jax
from ml_collections import config_dict

from data_pipelines.tokenizer import Tokenizer
from v2a_jax import build, bundle
from v2a_jax.training import checkpoint as checkpoint_lib


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model and where it came from.

  Attributes:
    config: that built it.
    model: a `Generator`.
    tokenizer: that it was trained with.
    source: `path`, `sha256`, and how far it was trained; JSON-able.
  """

  config: config_dict.ConfigDict
  model: nnx.Module
  tokenizer: Tokenizer
  source: dict[str, Any]


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
    return _from_workdir(path, step)
  return _from_bundle(bundle.find(path))


def _from_bundle(folder: pathlib.Path) -> Trained:
  config = config_dict.ConfigDict(bundle.read_config(folder))
  make = _model_maker(config)
  # Not `nnx.eval_shape`: under a mesh it takes logical names for mesh axes.
  graphdef, state = jax.eval_shape(lambda: nnx.split(make(nnx.Rngs(0))))
  model = nnx.merge(graphdef, bundle.load_state(folder, state))
  ours = folder.parent == bundle.ASSETS
  source = dict(config.get("trained", {})) | dict(
    path=folder.name if ours else str(folder.absolute()),
    sha256=bundle.digest(folder),
  )
  return Trained(config, model, Tokenizer.load(folder), source)


def _from_workdir(path: pathlib.Path, step: int | None) -> Trained:
  if not (path / bundle.CONFIG).is_file():
    raise bundle.BundleError(
      f"{path} holds no {bundle.CONFIG}: name a workdir of `v2a train` or a"
      " bundle"
    )
  config = config_dict.ConfigDict(bundle.read_config(path))
  make = _model_maker(config)
  model, restored = checkpoint_lib.restore_model(path, make, step=step)
  source = dict(
    path=str(path),
    step=restored.step,
    clips_seen=restored.meta["clips_seen"],
    train_seconds=restored.meta["train_seconds"],
    sha256=restored.sha256,
  )
  return Trained(config, model, Tokenizer.load(path), source)


def _model_maker(config):
  """`rngs -> Generator`; the codec is read here, outside of any trace."""
  codec = build.load_codec(config.codec).config
  return lambda rngs: build.make_generator(config, codec, rngs=rngs)
