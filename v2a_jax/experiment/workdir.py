"""A config and a work directory as a run that can be trained.

The first run in a workdir starts from fresh weights, or from those that its
config names (`initial.py`); every later one goes on from the newest checkpoint
there.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib

from flax import nnx
import jax

from data_pipelines import loader as loader_lib
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.experiment import build, build_conditioner, features, sections
from v2a_jax.experiment import init_weights as initial
from v2a_jax.experiment import load as trained
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.parallel.mesh import MeshConfig
from v2a_jax.training.experiment import Experiment
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.state import abstract_model
from v2a_jax.weights import bundle, names

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
  workdir = pathlib.Path(workdir)
  config = initial.with_sizes(config, workdir)
  training_codec = build.trains_codec(config)
  codec = None if training_codec else frozen_codec.load(config.codec)
  sizes = frozen_codec.sizes(config) if training_codec else codec.config
  words = inherited_tokenizers(config, workdir)
  loader = build.loader_config(config, sizes, **words)
  make_model = build.model_maker(config, sizes)
  read = initial.initial_weights(config, make_model)
  flops = None
  if not training_codec:
    model = nnx.merge(*abstract_model(make_model))
    check_vocabulary(config, loader)
    _check_frozen(config, read, workdir)
    read, found = _with_features(config, model.conditioner, read, workdir)
    loader = dataclasses.replace(loader, **found)
    flops = build.count_flops(model, sizes, loader)[1]
  write_workdir(config, loader, workdir)
  return Experiment(
    make_model=make_model,
    objective=build.make_objective(config),
    make_loader=lambda step, index, count: loader_lib.make_loader(
      loader, start_step=step, process_index=index, process_count=count
    ),
    batch_size=loader.batch_size,
    optimizer=sections.fill(
      OptimizerConfig, config.optimizer, where="optimizer"
    ),
    target=None if training_codec else build.make_target(config, codec),
    frozen=() if training_codec else build.make_frozen(config, codec),
    initial=read,
    mesh=sections.fill(MeshConfig, config.mesh, where="mesh"),
    flops_per_example=flops,
    meta={"config": config.to_dict()},
    train_seconds=config.train_seconds or None,
    wandb=config.wandb_mode,
    **{k: config[k] for k in RUN_FIELDS if k in config},
  )


def inherited_tokenizers(config, workdir: pathlib.Path) -> dict[str, str]:
  """The loader's tokenizers, if the words were known before this run.

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
  known = trained.has_checkpoints(workdir)
  if not known and not source:
    return {}
  found = bundle.tokenizers(workdir if known else initial.source_folder(config))
  return {k: v for k, v in found.items() if not config.data.get(k)}


def _check_frozen(config, read, workdir: pathlib.Path) -> None:
  """Refuses to freeze what nobody has trained."""
  how = config.model.conditioner.get("tune", "full")
  if how != "full" and read is None and not trained.has_checkpoints(workdir):
    raise ConfigError(
      f"config.model.conditioner.tune={how!r} keeps an encoder as it is, but"
      " nothing gives its weights: set config.init_from"
    )


def _with_features(config, conditioner, read, workdir: pathlib.Path):
  """(how initial weights are read, what the loader must find).

  Cached features are of an encoder, which is compared with the one that the
  run has or starts from.
  """
  if not config.data.get("features"):
    return read, {}
  if trained.has_checkpoints(workdir):
    given = names.flatten(nnx.state(trained.load(workdir).model))
    return read, features.check(config, conditioner, given)
  given = read() if read else {}
  return lambda: given, features.check(config, conditioner, given)


def check_vocabulary(config, loader: loader_lib.LoaderConfig) -> None:
  """Refuses a tokenizer with more ids than the model has embeddings."""
  ids = loader.load_tokenizer().vocab_size
  size = config.model["conditioner"]["vocab_size"]
  if ids > size:
    raise ConfigError(
      f"config.model.conditioner.vocab_size={size}, the tokenizer of"
      f" {loader.tokenizer or loader.paths[0]} has {ids} ids: raise it to {ids}"
    )
  published = build_conditioner.prompt_encoder(config)
  size = published.sizes.vocab_size if published else size
  ids = loader.load_prompt_tokenizer().vocab_size
  if ids > size:
    raise ConfigError(
      f"config.data.prompt_tokenizer={loader.prompt_tokenizer!r} has {ids} ids,"
      f" the prompt encoder knows {size}: name the tokenizer that belongs to it"
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
  tokenizers = {bundle.TOKENIZER: loader.load_tokenizer().model}
  if loader.prompt_tokenizer:
    model = loader.load_prompt_tokenizer().model
    tokenizers[bundle.PROMPT_TOKENIZER] = model
  if trained.has_checkpoints(workdir):
    _check_same_model(config, tokenizers, workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config, indent=1, sort_keys=True)
  (workdir / bundle.CONFIG).write_text(text)
  for name, model in tokenizers.items():
    (workdir / name).write_bytes(model)


def _check_same_model(
  config, tokenizers: Mapping[str, bytes], workdir: pathlib.Path
) -> None:
  """Refuses to go on with weights that mean something else."""
  advice = "use the config it was trained with, or another --workdir"
  before = bundle.read_config(workdir)
  for key in ("model", "lora", "codec", "objective.name", "data.target"):
    old, new = (sections.look_up(c, key) for c in (before, config))
    if old != new:
      where, old, new = _first_difference(key, old, new)
      raise ConfigError(
        f"{workdir} was trained with config.{where}={old!r}, not {new!r};"
        f" {advice}"
      )
  for name, model in tokenizers.items():
    before, key = workdir / name, name.partition(".")[0]
    if not before.is_file() or before.read_bytes() != model:
      raise ConfigError(
        f"{workdir} was trained with another {key} than"
        f" config.data.{key}={config['data'].get(key)!r}; leave that empty, or use"
        " another --workdir"
      )


def _first_difference(where, old, new):
  """(dotted key, old, new) of the first leaf in which two sections differ."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return where, old, new
  key = min(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
  return _first_difference(f"{where}.{key}", old.get(key), new.get(key))
