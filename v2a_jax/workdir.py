"""A config and a work directory as a run that can be trained.

The first run in a workdir starts from fresh weights, or from those that
`init_from` names; every later one goes on from the newest checkpoint there.
"""

from collections.abc import Mapping
import functools
import json
import pathlib
from typing import Any

from flax import nnx
import jax

from data_pipelines import loader as loader_lib
from v2a_jax import build, bundle, trained
from v2a_jax.build import ConfigError
from v2a_jax.models import lora
from v2a_jax.parallel.mesh import MeshConfig
from v2a_jax.training import names
from v2a_jax.training.experiment import Experiment
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.state import abstract_model

# Top-level keys of a config that `Experiment` takes as they are.
RUN_FIELDS = (
  "seed",
  "num_train_steps",
  "accumulate",
  "ema_decay",
  "log_every",
  "checkpoint_every",
  "keep",
  "compute_dtype",
  "keep_period",
  "max_skipped_steps",
)


def build_experiment(config, workdir) -> Experiment:
  """Builds everything that `training.loop.train` needs.

  Also writes the resolved config and the tokenizer into `workdir`, where
  evaluation and generation find them.

  Raises:
    ConfigError, DataError, BundleError: one line on what is wrong, and where.
  """
  training_codec = build.trains_codec(config)
  codec = None if training_codec else build.load_codec(config.codec)
  sizes = build.codec_config(config) if training_codec else codec.config
  workdir = pathlib.Path(workdir)
  words = inherited_tokenizer(config, workdir)
  loader = build.loader_config(config, sizes, **words)
  make_model = build.model_maker(config, sizes)
  if not training_codec:
    check_vocabulary(config, loader)
  write_workdir(config, loader, workdir)
  return Experiment(
    make_model=make_model,
    objective=build.make_objective(config),
    make_loader=lambda step, index, count: loader_lib.make_loader(
      loader, start_step=step, process_index=index, process_count=count
    ),
    batch_size=loader.batch_size,
    optimizer=build.fill(OptimizerConfig, config.optimizer, where="optimizer"),
    target=None if training_codec else build.make_target(config, codec),
    frozen=() if training_codec else codec.state,
    initial=initial_weights(config, make_model),
    mesh=build.fill(MeshConfig, config.mesh, where="mesh"),
    flops_per_example=None
    if training_codec
    else build.count_flops(config, sizes, loader),
    meta={"config": config.to_dict()},
    train_seconds=config.train_seconds or None,
    wandb=config.wandb_mode,
    **{k: config[k] for k in RUN_FIELDS if k in config},
  )


def inherited_tokenizer(config, workdir: pathlib.Path) -> dict[str, str]:
  """The loader's tokenizer, if the words were known before this run.

  A workdir's own goes before that of `init_from`, which need not be there any
  more; one that the config names goes before both.

  Raises:
    ConfigError: a codec would be started from another's weights.
    BundleError: there is nothing of that name.
  """
  source = config.get("init_from")
  if source and build.trains_codec(config):
    raise ConfigError(
      f"config.init_from={source!r}: only a generator starts from another's"
      " weights; leave it empty"
    )
  if config.data.get("tokenizer"):
    return {}
  if _has_checkpoints(workdir):
    return {"tokenizer": str(workdir)}
  if not source:
    return {}
  is_workdir = (pathlib.Path(source) / bundle.TOKENIZER).is_file()
  return {"tokenizer": str(source if is_workdir else bundle.find(source))}


def initial_weights(config, make_model):
  """Returns a function that reads the weights of `init_from`, or None.

  They are host arrays by name; those that low-rank adaptation adds start fresh.

  Raises:
    BundleError, CheckpointError: what it names is missing, or of another
      model; every tensor that does not fit is named.
  """
  source = config.get("init_from")
  if not source:
    return None

  def read():
    given = trained.load(source)
    found = names.flatten(nnx.state(given.model))
    _, *parts = abstract_model(make_model)
    wanted = {k: v for part in parts for k, v in names.flatten(part).items()}
    old = {k: v for k, v in wanted.items() if k[-1] not in lora.NEW}
    names.compare(given.source["path"], old, found)
    return found

  return read


def check_vocabulary(config, loader: loader_lib.LoaderConfig) -> None:
  """Refuses a tokenizer with more ids than the model has embeddings."""
  ids = loader.load_tokenizer().vocab_size
  size = config.model["conditioner"]["vocab_size"]
  if ids > size:
    raise ConfigError(
      f"config.model.conditioner.vocab_size={size}, the tokenizer of"
      f" {loader.tokenizer or loader.paths[0]} has {ids} ids: raise it to {ids}"
    )


def write_workdir(config, loader, workdir: pathlib.Path) -> None:
  """Leaves config.json and tokenizer.model for whoever uses the weights.

  Raises:
    ConfigError: the workdir holds checkpoints of another model; they and what
      describes them are left as they are.
  """
  if jax.process_index():
    return
  config = json.loads(config.to_json())
  tokenizer = loader.load_tokenizer().model
  if _has_checkpoints(workdir):
    _check_same_model(config, tokenizer, workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config, indent=1, sort_keys=True)
  (workdir / bundle.CONFIG).write_text(text)
  (workdir / bundle.TOKENIZER).write_bytes(tokenizer)


def _has_checkpoints(workdir: pathlib.Path) -> bool:
  described = (workdir / bundle.CONFIG).is_file()
  return described and any((workdir / "checkpoints").glob("[0-9]*"))


def _check_same_model(config, tokenizer: bytes, workdir: pathlib.Path) -> None:
  """Refuses to go on with weights that mean something else."""
  advice = "use the config it was trained with, or another --workdir"
  before = bundle.read_config(workdir)
  for key in ("model", "lora", "codec", "objective.name", "data.target"):
    old, new = (_look_up(c, key) for c in (before, config))
    if old != new:
      where, old, new = _first_difference(key, old, new)
      raise ConfigError(
        f"{workdir} was trained with config.{where}={old!r}, not {new!r};"
        f" {advice}"
      )
  if (workdir / bundle.TOKENIZER).read_bytes() != tokenizer:
    raise ConfigError(
      f"{workdir} was trained with another tokenizer than"
      f" config.data.tokenizer={config['data']['tokenizer']!r}; leave that"
      " empty, or use another --workdir"
    )


def _look_up(config: Mapping[str, Any], key: str):
  return functools.reduce(lambda c, k: c.get(k, {}), key.split("."), config)


def _first_difference(where, old, new):
  """(dotted key, old, new) of the first leaf in which two sections differ."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return where, old, new
  key = min(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
  return _first_difference(f"{where}.{key}", old.get(key), new.get(key))
