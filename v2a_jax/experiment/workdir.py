"""A config and a work directory as a run that can be trained.

The first run in a workdir starts from the weights that its config names, or
from fresh ones; every later one continues from the newest checkpoint there. The
workdir keeps the resolved config and the tokenizers for whoever uses the
weights.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import pathlib
import time
from typing import Any

import jax

from data_pipelines.loader_config import LoaderConfig
from data_pipelines.manifest import read_manifest
from v2a_jax.basics import claim, files
from v2a_jax.basics.paths import PathLike, as_path, check_readable
from v2a_jax.experiment import changes, features, init_weights
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError, look_up
from v2a_jax.training.checkpoint_arrays import CheckpointError
from v2a_jax.training.digests import list_steps
from v2a_jax.weights import bundle

# What must not change while a run is continued.
_IDENTITY = (
  *("model", "lora", "codec", "objective.name", "objective.teacher"),
  "data.target",
)


def open_experiment(
  config: Mapping[str, Any],
  workdir,
  *,
  stack: contextlib.ExitStack | None = None,
) -> Experiment:
  """Makes the experiment that is to be trained in a workdir.

  Also writes config.json and the tokenizers there.

  Args:
    config: settings of the run.
    workdir: local folder or URL.
    stack: keeps other processes from writing to the workdir until it is closed;
      None does not.

  Raises:
    ClaimedError: another process writes to the workdir.
    ConfigError, DataError, BundleError, StoreError: one line on what is wrong,
      and where.
  """
  workdir = as_path(workdir)
  check_readable(workdir)
  resumes = has_checkpoints(workdir)
  before = bundle.read_config(workdir) if resumes else None
  experiment = Experiment.from_config(config, before=before)
  _check_validation(experiment)
  asked = experiment.data
  experiment = _with_tokenizers(experiment, workdir, resumes=resumes)
  if experiment.trains_generator:
    _check_vocabulary(experiment)
    _check_frozen(experiment, resumes=resumes)
    experiment = _with_features(experiment, workdir, resumes=resumes)
  if jax.process_index() == 0:
    if stack:
      stack.enter_context(claim.held(workdir))
    _write(experiment, workdir, before, asked)
  return experiment


def has_checkpoints(workdir: pathlib.Path) -> bool:
  """Says whether something was trained in a workdir."""
  described = (workdir / bundle.CONFIG).is_file()
  return described and bool(list_steps(_checkpoints(workdir)))


def each_step(
  workdir: PathLike,
  *,
  log: Callable[[str], None] = lambda line: None,
  seconds: float = 20.0,
) -> Iterator[int]:
  """Yields the steps of the checkpoints, and of new ones while it is trained.

  Those that training removes before their turn comes are left out.

  Args:
    workdir: workdir of `v2a train`.
    log: is told, in a line, of each wait.
    seconds: time between looks for new ones, in seconds.

  Raises:
    CheckpointError: there is no checkpoint, and it is not trained.
  """
  last, waits = -1, False
  while True:
    running = claim.is_held(workdir)
    new = [s for s in list_steps(_checkpoints(workdir)) if s > last]
    if new:
      last, waits = min(new), False
      yield last
    elif not running:
      break
    else:
      if not waits:
        after = f" after step {last}" if last >= 0 else ""
        log(f"{workdir}: waiting for the checkpoint{after}")
      waits = True
      time.sleep(seconds)
  if last < 0:
    raise CheckpointError(f"{workdir}: no checkpoint, and no training of it")


def has_step(workdir: PathLike, step: int) -> bool:
  """Says whether there still is a checkpoint."""
  return step in list_steps(_checkpoints(workdir))


def _checkpoints(workdir: PathLike) -> PathLike:
  return as_path(workdir) / "checkpoints"


def _check_validation(experiment: Experiment) -> None:
  """Refuses to evaluate on a split that is empty, before anything is trained."""
  run, paths = experiment.run, experiment.data.paths
  if run.eval_every and not any(
    read_manifest(path).get("splits", {}).get("val") for path in paths
  ):
    raise ConfigError(
      f"config.eval_every={run.eval_every}, but there is no record of the split"
      f" 'val' in {', '.join(paths)}: set config.eval_every=0"
    )


def _with_tokenizers(
  experiment: Experiment, workdir: pathlib.Path, *, resumes: bool
) -> Experiment:
  """Takes the tokenizers over that belong to the weights.

  A workdir's own go before those of `init_from`; one that the config names goes
  before both.
  """
  source = experiment.run.init_from if experiment.trains_generator else ""
  if not (resumes or source):
    return experiment
  data = experiment.data
  if resumes:
    paths = bundle.tokenizers(workdir)
  else:
    paths = init_weights.source_tokenizers(source)
  paths = {k: path for k, path in paths.items() if not getattr(data, k)}
  return dataclasses.replace(
    experiment, data=dataclasses.replace(data, **paths)
  )


def _check_vocabulary(experiment: Experiment) -> None:
  """Refuses a tokenizer with more ids than the model has embeddings."""
  data, conditioner = experiment.data, experiment.conditioner
  ids = data.load_tokenizer().vocab_size
  size = conditioner.vocab_size if conditioner.reads_transcript else ids
  if ids > size:
    raise ConfigError(
      f"config.model.conditioner.vocab_size={size}, but the tokenizer of"
      f" {data.tokenizer or data.paths[0]} has {ids} ids: raise it to {ids}"
    )
  published = conditioner.prompt_encoder
  size = published.sizes.vocab_size if published.name else size
  ids = data.load_prompt_tokenizer().vocab_size
  if ids > size:
    raise ConfigError(
      f"config.data.prompt_tokenizer={data.prompt_tokenizer!r} has {ids} ids,"
      f" the prompt encoder knows {size}: name the tokenizer that belongs to it"
    )


def _check_frozen(experiment: Experiment, *, resumes: bool) -> None:
  """Refuses to freeze an encoder that nobody has trained."""
  tune = experiment.conditioner.tune
  if tune != "full" and not experiment.initial and not resumes:
    raise ConfigError(
      f"config.model.conditioner.tune={tune!r} keeps an encoder as it is, but"
      " nothing gives its weights: set config.init_from"
    )


def _with_features(
  experiment: Experiment, workdir: pathlib.Path, *, resumes: bool
) -> Experiment:
  """Sets which encoder cached features must be of: that of the run."""
  if not experiment.data.features:
    return experiment
  features.check_sizes(experiment)
  if resumes:
    weights = init_weights.read_saved(str(workdir))
  else:
    weights = experiment.first_weights() or {}
  digest = features.digest(experiment.abstract_conditioner, weights)
  data = dataclasses.replace(experiment.data, encoder=digest)
  return dataclasses.replace(experiment, data=data)


def _write(
  experiment: Experiment,
  workdir: pathlib.Path,
  before: Mapping | None,
  asked: LoaderConfig,
) -> None:
  """Writes config.json and the tokenizers.

  Whoever reads the workdir takes its tokenizers; the config says which were
  `asked` for, so that it is the same at every start.

  Raises:
    ConfigError: the workdir holds checkpoints of another model; they and what
      describes them are left as they are.
  """
  data = experiment.data
  given = {k: getattr(asked, k) for k in ("tokenizer", "prompt_tokenizer")}
  config = experiment.config | {"data": experiment.config["data"] | given}
  models = {bundle.TOKENIZER: data.load_tokenizer().model}
  if data.prompt_tokenizer:
    models[bundle.PROMPT_TOKENIZER] = data.load_prompt_tokenizer().model
  sets = changes.identify(
    data.paths, columns=bool(data.admit or data.annotations)
  )
  if before is not None:
    _check_same_model(experiment, models, before, workdir)
    changes.report(
      workdir,
      before=before,
      config=_as_json(config),
      data=sets,
      step=max(list_steps(workdir / "checkpoints"), default=0),
    )
  workdir.mkdir(parents=True, exist_ok=True)
  files.write_json(workdir / bundle.CONFIG, config, sort_keys=True)
  files.write_json(workdir / changes.DATA, sets)
  for name, model in models.items():
    files.write_whole(workdir / name, model)


def _check_same_model(
  experiment: Experiment,
  tokenizers: Mapping[str, bytes],
  before: Mapping[str, Any],
  workdir: pathlib.Path,
) -> None:
  """Refuses to continue with weights that mean something else."""
  old, new = before.get("ema_decay", 0), experiment.run.ema_decay
  if bool(old) != bool(new):
    raise ConfigError(
      f"{workdir} was trained with config.ema_decay={old}, which"
      f" {'keeps an' if old else 'keeps no'} average of the weights, and"
      f" {new} does not go with that; leave it, or use another --workdir"
    )
  then, now = (
    {key: look_up(config, key) for key in _IDENTITY}
    for config in (before, _as_json(experiment.config))
  )
  for where, old, new in changes.differences(then, now):
    raise ConfigError(
      f"{workdir} was trained with config.{where}={old!r}, not {new!r};"
      " use the config it was trained with, or another --workdir"
    )
  for name, model in tokenizers.items():
    file, key = workdir / name, name.partition(".")[0]
    if not file.is_file() or file.read_bytes() != model:
      raise ConfigError(
        f"{workdir} was trained with another {key} than"
        f" config.data.{key}={getattr(experiment.data, key)!r}; leave that empty,"
        " or use another --workdir"
      )


def _as_json(value: Any) -> Any:
  """Returns a value as it comes back from JSON: tuples become lists."""
  if isinstance(value, Mapping):
    return {key: _as_json(item) for key, item in value.items()}
  return [_as_json(x) for x in value] if isinstance(value, tuple) else value
