"""A trained model with what goes with it, from a work directory or a bundle."""

import dataclasses
import functools
import pathlib
from typing import Any

from flax import nnx

from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.tokenizer import TextTokenizer
from v2a_jax.basics.paths import as_path, check_readable
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.training import restore
from v2a_jax.weights import bundle


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model and where it came from.

  Attributes:
    experiment: experiment that trained it.
    model: a `Generator`; of another workdir, what was trained there.
    folder: folder that holds it, with the tokenizers it was trained with.
    source: `path`, `sha256`, and how far it was trained; JSON-able.
  """

  experiment: Experiment
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


def read_experiment(checkpoint) -> Experiment:
  """Reads the settings of a generator, without its weights.

  Args:
    checkpoint: as for `load`.

  Raises:
    BundleError: it is missing or damaged.
  """
  path = as_path(checkpoint)
  check_readable(path)
  folder = path if path.is_dir() else bundle.find(path)
  config = bundle.read_config(folder)
  for about in ("trained", "measured"):  # Of a bundle.
    config.pop(about, None)
  return Experiment.from_config(config)


def load(checkpoint, *, step: int | str | None = None) -> Trained:
  """Loads a generator.

  Args:
    checkpoint: a workdir of `v2a train`, a bundle's folder, or the name of a
      bundle in `assets/`.
    step: step of a workdir's checkpoint; "best" for that of the best validation
      result, None for the newest.

  Raises:
    BundleError, CheckpointError: it is missing, damaged or of another model.
  """
  path = as_path(checkpoint)
  check_readable(path)
  if (path / "checkpoints").is_dir():
    return _generator(from_workdir(path, step=step), path)
  if path.is_dir() and not (path / bundle.WEIGHTS).is_file():
    raise bundle.BundleError(
      f"{path} holds neither checkpoints nor {bundle.WEIGHTS}: name a workdir of"
      " `v2a train` or a bundle"
    )
  return _generator(_from_bundle(bundle.find(path)), path)


def _generator(trained: Trained, path) -> Trained:
  """Returns what was loaded, if it is a generator."""
  if trained.experiment.trains_generator:
    return trained
  raise bundle.BundleError(
    f"{path} holds a {trained.experiment.names['model']} model: name the"
    " workdir or bundle of a generator"
  )


def _from_bundle(folder: pathlib.Path) -> Trained:
  config = bundle.read_config(folder)
  history = config.pop("trained", {})
  config.pop("measured", None)
  experiment = Experiment.from_config(config)
  graphdef, *parts = experiment.abstract
  state = bundle.load_state(folder, nnx.merge_state(*parts))
  ours = folder.parent == bundle.ASSETS
  source = history | {
    "path": folder.name if ours else str(folder.absolute()),
    "sha256": bundle.digest(folder),
  }
  return Trained(experiment, nnx.merge(graphdef, state), folder, source)


def from_workdir(path, *, step: int | str | None = None) -> Trained:
  """Loads what was trained in a workdir, a generator or something else.

  Args:
    path: workdir of `v2a train`.
    step: step of the checkpoint; "best" for that of the best validation result,
      None for the newest.

  Raises:
    BundleError, CheckpointError: it is missing, damaged or of another model.
  """
  path = as_path(path)
  check_readable(path)
  experiment = Experiment.from_config(bundle.read_config(path))
  model, restored = restore.restore_model(
    path, experiment.make_model, step=step
  )
  source = {
    "path": str(path),
    "step": restored.step,
    "clips_seen": restored.meta["clips_seen"],
    "train_seconds": restored.meta["train_seconds"],
    "sha256": restored.sha256,
  }
  return Trained(experiment, model, path, source)
