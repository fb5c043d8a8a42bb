"""A trained model with what goes with it, from a work directory or a bundle."""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from flax import nnx

from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.tokenizer import TextTokenizer
from v2a_jax.basics.paths import as_path, check_readable
from v2a_jax.experiment import published
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.training import restore
from v2a_jax.weights import bundle, names, registry


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model and where it came from.

  Attributes:
    experiment: experiment that trained it.
    model: a `Generator`; of another workdir, what was trained there.
    tokenizer_files: fields of a `LoaderConfig` that name the tokenizers it was
      trained with.
    source: `path`, `sha256`, and how far it was trained; JSON-able.
  """

  experiment: Experiment
  model: nnx.Module
  tokenizer_files: Mapping[str, str]
  source: dict[str, Any]

  @functools.cached_property
  def tokenizers(self) -> dict[str, TextTokenizer]:
    """`tokenizer`, and `prompt_tokenizer` where prompts have their own.

    A published generator that speaks no words has the second alone.
    """
    load = {
      "tokenizer": tokenizer_lib.Tokenizer.load,
      "prompt_tokenizer": tokenizer_lib.load_prompt_tokenizer,
    }
    return {k: load[k](path) for k, path in self.tokenizer_files.items()}


def read_experiment(checkpoint) -> Experiment:
  """Reads the settings of a generator, without its weights.

  Args:
    checkpoint: as for `load`.

  Raises:
    BundleError: it is missing or damaged.
  """
  if system := published.find(checkpoint):
    return Experiment.from_config(system.config(checkpoint))
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
    checkpoint: a workdir of `v2a train`, a bundle's folder, the name of a
      bundle in `assets/`, or a published generator such as `mmaudio:small_16k`.
    step: step of a workdir's checkpoint; "best" for that of the best validation
      result, None for the newest.

  Raises:
    BundleError, CheckpointError: it is missing, damaged or of another model.
    ConfigError, MissingWeightsError, WrongWeightsError: so is a published one.
  """
  if published.find(checkpoint):
    return from_published(checkpoint, step=step)
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
  files = bundle.tokenizers(folder)
  return Trained(experiment, nnx.merge(graphdef, state), files, source)


def from_published(name: str, *, step: int | str | None = None) -> Trained:
  """Loads a published generator; raises as `load` does."""
  if step is not None:
    raise ConfigError(f"{name} has no steps: leave out --step={step}")
  system = published.find(name)
  file = system.file_of(name)
  registry.check_here(name)
  experiment = Experiment.from_config(system.config(name))
  graphdef, *parts = experiment.abstract
  arrays = system.read(name, experiment.model, experiment.conditioner)
  state = names.fill(nnx.merge_state(*parts), arrays)
  source = {"path": name, "sha256": registry.digest(file)}
  model = nnx.merge(graphdef, state)
  return Trained(experiment, model, system.tokenizers(name), source)


def from_workdir(
  path,
  *,
  step: int | str | None = None,
  average_length: float | None = None,
) -> Trained:
  """Loads what was trained in a workdir, a generator or something else.

  Args:
    path: workdir of `v2a train`.
    step: step of the checkpoint; "best" for that of the best validation result,
      None for the newest.
    average_length: length of the average of the weights, see
      `training/posthoc.py`; None for the one that the run used.

  Raises:
    BundleError, CheckpointError: it is missing, damaged or of another model.
    SettingError: no average has that length.
  """
  path = as_path(path)
  check_readable(path)
  experiment = Experiment.from_config(bundle.read_config(path))
  model, restored = restore.restore_model(
    path, experiment.make_model, step=step, average_length=average_length
  )
  source = {
    "path": str(path),
    "step": restored.step,
    "clips_seen": restored.meta["clips_seen"],
    "train_seconds": restored.meta["train_seconds"],
    "sha256": restored.sha256,
  }
  if average_length is not None:
    source["average_length"] = average_length
    source["sha256"] += f" average of {average_length:g}"
  return Trained(experiment, model, bundle.tokenizers(path), source)
