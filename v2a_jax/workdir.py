"""A config and a work directory as a run that can be trained.

The first run in a workdir starts from fresh weights, or from those that
`init_from` names; every later one goes on from the newest checkpoint there.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import pathlib
from typing import Any

from flax import nnx
import jax
from ml_collections import config_dict

from data_pipelines import loader as loader_lib
from v2a_jax import build, bundle, trained
from v2a_jax.build import ConfigError
from v2a_jax.conditioning import text
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
  workdir = pathlib.Path(workdir)
  config = resolve(config, workdir)
  training_codec = build.trains_codec(config)
  codec = None if training_codec else build.load_codec(config.codec)
  sizes = build.codec_config(config) if training_codec else codec.config
  words = inherited_tokenizers(config, workdir)
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


def resolve(config, workdir: pathlib.Path):
  """A config that says by itself how large its published encoder is.

  So the model can be built where the encoder's folder is not: the sizes are
  those that the workdir or `init_from` names for it, or read from the folder.

  Raises:
    ConfigError, MissingWeightsError, WrongWeightsError: see
      `build.prompt_encoder_config`.
  """
  section = _prompt_encoder(config)
  if not section.get("name") or section.get("sizes"):
    return config
  named = {key: section[key] for key in ("name", "path")}
  folders = [workdir] if _has_checkpoints(workdir) else []
  folders += [_source(config)] if config.get("init_from") else []
  before = [_prompt_encoder(bundle.read_config(f)) for f in folders]
  sizes = [b["sizes"] for b in before if named.items() <= b.items()]
  if not sizes:
    sizes = [dataclasses.asdict(build.prompt_encoder_config(config).sizes)]
  config = config_dict.ConfigDict(config.to_dict())
  section = dict(section, sizes=sizes[0])
  config.model.conditioner.prompt_encoder = section
  return config


def _prompt_encoder(config) -> Mapping[str, Any]:
  return _look_up(config, "model.conditioner.prompt_encoder")


def _source(config) -> pathlib.Path:
  """The folder that `init_from` names."""
  folder = pathlib.Path(config["init_from"])
  is_workdir = (folder / bundle.TOKENIZER).is_file()
  return folder if is_workdir else bundle.find(folder)


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
  known = _has_checkpoints(workdir)
  if not known and not source:
    return {}
  found = bundle.tokenizers(workdir if known else _source(config))
  return {k: v for k, v in found.items() if not config.data.get(k)}


def initial_weights(config, make_model):
  """Returns a function that reads the weights of `init_from`, or None.

  They are host arrays by name; those that low-rank adaptation adds start fresh.
  Without `init_from` they are those of the published prompt encoder, if any.

  Raises:
    BundleError, CheckpointError: what it names is missing, or of another
      model; every tensor that does not fit is named.
    MissingWeightsError, WrongWeightsError: so is the prompt encoder.
  """
  source = config.get("init_from")
  published = build.prompt_encoder_config(config)
  if not source and not published:
    return None

  def read():
    if not source:
      return _published_weights(published)
    given = trained.load(source)
    found = names.flatten(nnx.state(given.model))
    _, *parts = abstract_model(make_model)
    wanted = {k: v for part in parts for k, v in names.flatten(part).items()}
    old = {k: v for k, v in wanted.items() if k[-1] not in lora.NEW}
    names.compare(given.source["path"], old, found)
    return found

  return read


def _published_weights(config: text.PromptEncoderConfig):
  """Those of a prompt encoder, by their names in a `Generator`."""
  encoder = text.NETWORKS[config.name].load(config.path)
  place = ("conditioner", "prompt", "encoder")
  found = names.flatten(nnx.state(encoder))
  return {place + name: array for name, array in found.items()}


def check_vocabulary(config, loader: loader_lib.LoaderConfig) -> None:
  """Refuses a tokenizer with more ids than the model has embeddings."""
  ids = loader.load_tokenizer().vocab_size
  size = config.model["conditioner"]["vocab_size"]
  if ids > size:
    raise ConfigError(
      f"config.model.conditioner.vocab_size={size}, the tokenizer of"
      f" {loader.tokenizer or loader.paths[0]} has {ids} ids: raise it to {ids}"
    )
  published = build.prompt_encoder_config(config)
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
  if _has_checkpoints(workdir):
    _check_same_model(config, tokenizers, workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps(config, indent=1, sort_keys=True)
  (workdir / bundle.CONFIG).write_text(text)
  for name, model in tokenizers.items():
    (workdir / name).write_bytes(model)


def _has_checkpoints(workdir: pathlib.Path) -> bool:
  described = (workdir / bundle.CONFIG).is_file()
  return described and any((workdir / "checkpoints").glob("[0-9]*"))


def _check_same_model(
  config, tokenizers: Mapping[str, bytes], workdir: pathlib.Path
) -> None:
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
  for name, model in tokenizers.items():
    before, key = workdir / name, name.partition(".")[0]
    if not before.is_file() or before.read_bytes() != model:
      raise ConfigError(
        f"{workdir} was trained with another {key} than"
        f" config.data.{key}={config['data'].get(key)!r}; leave that empty, or use"
        " another --workdir"
      )


def _look_up(config: Mapping[str, Any], key: str):
  return functools.reduce(lambda c, k: c.get(k, {}), key.split("."), config)


def _first_difference(where, old, new):
  """(dotted key, old, new) of the first leaf in which two sections differ."""
  if not (isinstance(old, dict) and isinstance(new, dict)):
    return where, old, new
  key = min(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
  return _first_difference(f"{where}.{key}", old.get(key), new.get(key))
