"""From a config to the things that it describes; the only reader of configs.

Each section becomes one frozen dataclass, so a stray key fails by name here and
nobody below sees a config.
"""

from collections.abc import Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from flax import nnx
from ml_collections import config_dict
import numpy as np

from data_pipelines import example as example_lib
from data_pipelines import loader as loader_lib
from v2a_jax import bundle
from v2a_jax.batch import Batch
from v2a_jax.codec import patches
from v2a_jax.codec import target as target_lib
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.discriminators import Discriminator, DiscriminatorConfig
from v2a_jax.conditioning import text
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig
from v2a_jax.conditioning.semantic import SemanticConfig
from v2a_jax.models import ar, ar_latents, dit, lora
from v2a_jax.models.generator import Generator
from v2a_jax.objectives.codec import CodecGAN, CodecObjective
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.objectives.mean_flow import MeanFlow
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.objectives.next_token import NextToken
from v2a_jax.pretrained import dac, dac_files, vit, weights
from v2a_jax.pretrained import teacher as teacher_lib
from v2a_jax.sampling.autoregressive import LatentSampler, TokenSampler
from v2a_jax.sampling.guidance import Guidance
from v2a_jax.sampling.ode import ODESampler

OBJECTIVES = {
  "diffusion": Diffusion,
  "mean_flow": MeanFlow,
  "next_token": NextToken,
  "next_latents": NextLatents,
  "codec": CodecObjective,
}
SAMPLERS = {
  "ode": ODESampler,
  "tokens": TokenSampler,
  "latents": LatentSampler,
}
TARGETS = {
  "latents": target_lib.LatentTarget,
  "codes": target_lib.CodeTarget,
}
# What goes with each backbone.
SUITED = {
  "dit": {
    "data.target": ("latents",),
    "objective.name": ("diffusion", "mean_flow"),
    "sampler.name": ("ode",),
  },
  "ar": {
    "data.target": ("codes",),
    "objective.name": ("next_token",),
    "sampler.name": ("tokens",),
  },
  "ar_latents": {
    "data.target": ("latents",),
    "objective.name": ("next_latents",),
    "sampler.name": ("latents",),
  },
}


class ConfigError(ValueError):
  """A config asks for what does not exist or does not fit."""


def fill(cls, section: Mapping[str, Any], *, where: str, **more):
  """Makes the dataclass `cls` from a config section.

  Raises:
    ConfigError: a key is stray or missing, or a value is refused.
  """
  known = {f.name for f in dataclasses.fields(cls)}
  # A name that is no field has chosen the class.
  given = {k: v for k, v in section.items() if k != "name" or k in known}
  values = {k: _tuples(v) for k, v in given.items()} | more
  stray = sorted(values.keys() - known)
  if stray:
    raise ConfigError(
      f"config.{where}: no key {', '.join(stray)};"
      f" {cls.__name__} has {', '.join(sorted(known))}"
    )
  try:
    return cls(**values)
  except (TypeError, ValueError) as error:
    raise ConfigError(f"config.{where}: {error}") from None


def pick(table: Mapping[str, Any], name: str, *, where: str):
  """Looks a name up; a wrong one is answered with those there are."""
  if name not in table:
    raise ConfigError(
      f"config.{where}={name!r} is not one of {', '.join(sorted(table))}"
    )
  return table[name]


def look_up(config: Mapping[str, Any], key: str):
  """What a dotted key of a config holds; {} if it is not there."""
  return functools.reduce(lambda c, k: c.get(k, {}), key.split("."), config)


def _tuples(value):
  if isinstance(value, list | tuple):
    return tuple(_tuples(v) for v in value)
  return value


@dataclasses.dataclass(frozen=True)
class FrozenCodec:
  """A codec as it is, ready to be merged inside a jitted function."""

  config: CodecConfig | dac.DacConfig | patches.PatchConfig
  graphdef: Any
  state: Any
  sha256: str

  def merge(self, state=None) -> Codec | dac.Dac | patches.Patches:
    return nnx.merge(self.graphdef, self.state if state is None else state)


@functools.cache
def load_codec(name: str) -> FrozenCodec:
  """Reads the codec `name`.

  Args:
    name: of a bundle (`bundle.find`); a folder of DAC; or, for no codec at all,
      `patches:RATE:HOP:CHANNELS` (`codec/patches.py`).

  Raises:
    BundleError: there is none, or it is of another model.
    ConfigError: these are no patches.
    MissingWeightsError, WrongWeightsError: see `dac_files.load`.
  """
  if name.startswith(patches.PREFIX):
    return describe_codec(name)
  if dac_files.holds_dac(name):
    codec = dac_files.load(name)
    sha256 = weights.sha256_of(pathlib.Path(name) / dac_files.WEIGHTS)
    return FrozenCodec(codec.config, *nnx.split(codec), sha256)
  folder, codec = bundle.find(name), describe_codec(name)
  return dataclasses.replace(
    codec,
    state=bundle.load_state(folder, codec.state),
    sha256=bundle.digest(folder),
  )


def describe_codec(name: str) -> FrozenCodec:
  """What `load_codec` gives, its state of shapes; no weights are read.

  Raises:
    BundleError, ConfigError, MissingWeightsError, WrongWeightsError: see
      `load_codec`.
  """
  if name.startswith(patches.PREFIX):
    codec = _patches(name)
    config = codec.config
  elif dac_files.holds_dac(name):
    config = dac_files.read_config(name)
    codec = dac_files.abstract(config)
  else:
    config = config_dict.ConfigDict(bundle.read_config(bundle.find(name)))
    config = codec_config(config)
    codec = nnx.eval_shape(lambda: Codec(config, rngs=nnx.Rngs(0)))
  return FrozenCodec(config, *nnx.split(codec), sha256="")


def _patches(name: str) -> patches.Patches:
  try:
    return patches.Patches(patches.PatchConfig.parse(name))
  except ValueError as error:
    raise ConfigError(f"config.codec: {error}") from None


def _check_codes(codec, *, where: str) -> None:
  if not codec.num_codebooks:
    raise ConfigError(
      f"config.{where}: codes are asked for, but config.codec has none: use"
      " data.target='latents' and a model of them, or a codec with codebooks"
    )


def codec_config(config) -> CodecConfig:
  """Sizes of the codec that a config trains, from `config.model`."""
  section = {k: v for k, v in config.model.items() if k != "discriminator"}
  return fill(CodecConfig, section, where="model")


def make_codec_gan(config, *, rngs: nnx.Rngs) -> CodecGAN:
  """The two players of codec training, from `config.model`."""
  critics = config.model.get("discriminator")
  codec = Codec(codec_config(config), rngs=rngs)
  if not critics:
    return CodecGAN(codec)
  critics = fill(DiscriminatorConfig, critics, where="model.discriminator")
  return CodecGAN(codec, Discriminator(critics, rngs=rngs))


def _dit(section, codec, *, rngs):
  section = dict(section)
  teacher = section.pop("teacher", "")
  if teacher:
    teacher = pick(teacher_lib.TEACHERS, teacher, where="model.teacher")
  fields = dict(
    where="model", channels=codec.latent_dim, representation=teacher or 0
  )
  return dit.DiT(fill(dit.DiTConfig, section, **fields), rngs=rngs)


def _tokens(section, codec, *, rngs):
  _check_codes(codec, where="model.name='ar'")
  section = {"num_codebooks": codec.num_codebooks} | section
  if not 0 < section["num_codebooks"] <= codec.num_codebooks:
    raise ConfigError(
      f"config.model.num_codebooks={section['num_codebooks']}, but the codec"
      f" has {codec.num_codebooks}: give 1 to {codec.num_codebooks}"
    )
  fields = dict(where="model", codebook_size=codec.codebook_size)
  config = fill(ar.TokenModelConfig, section, **fields)
  return ar.TokenModel(config, rngs=rngs)


def _latents(section, codec, *, rngs):
  fields = dict(where="model", channels=codec.latent_dim)
  config = fill(ar_latents.LatentModelConfig, section, **fields)
  return ar_latents.LatentModel(config, rngs=rngs)


BACKBONES = {"dit": _dit, "ar": _tokens, "ar_latents": _latents}


def make_generator(config, codec: CodecConfig, *, rngs: nnx.Rngs) -> Generator:
  """A generator of what `codec` encodes, from `config.model`.

  Width, heads, remat, unroll and dtype are the backbone's; the condition
  encoders take the same.
  """
  section = dict(config.model)
  conditioner = dict(section.pop("conditioner"))
  shared = {
    k: section[k]
    for k in ("width", "num_heads", "remat", "unroll", "dtype")
    if k in section
  }
  adaptation = fill(
    lora.LoraConfig,
    conditioner.pop("lora", {}),
    where="model.conditioner.lora",
  )
  conditioner = fill(
    ConditionerConfig,
    conditioner | {"semantic": semantic_config(config)},
    where="model.conditioner",
    prompt_encoder=prompt_encoder_config(config),
    seconds=config.data["seconds"],
    **shared,
  )
  make_backbone = pick(BACKBONES, section["name"], where="model.name")
  backbone = make_backbone(section, codec, rngs=rngs)
  encoder = Conditioner(conditioner, rngs=rngs)
  model = Generator(tune(encoder, adaptation, rngs=rngs), backbone)
  adaptation = lora_config(config)
  return lora.adapt(model, adaptation, rngs=rngs) if adaptation else model


def trains_codec(config) -> bool:
  """Whether a config trains a codec; if not, a generator."""
  return config.objective["name"] == "codec"


def check_suited(config) -> None:
  """Refuses a target, objective or sampler of another arm than the model's.

  Raises:
    ConfigError: says which of them would suit.
  """
  name = config.model["name"]
  for key, suited in pick(SUITED, name, where="model.name").items():
    found = look_up(config, key)
    if found and found not in suited:
      raise ConfigError(
        f"config.{key}={found!r} does not go with config.model.name={name!r}:"
        f" use {' or '.join(suited)}"
      )


def model_maker(config, codec: CodecConfig):
  """Returns `make_model(rngs)`: the codec's two players, or a generator.

  Args:
    config: of either.
    codec: what a generator makes latents or codes of.

  Raises:
    ConfigError: see `check_suited`.
  """
  if trains_codec(config):
    return lambda rngs: make_codec_gan(config, rngs=rngs)
  check_suited(config)
  return lambda rngs: make_generator(config, codec, rngs=rngs)


def prompt_encoder_config(config) -> text.PromptEncoderConfig | None:
  """The published prompt encoder of a config, if it names one.

  Its sizes are in the config, or read from its folder.

  Raises:
    ConfigError: there is none of that name, or nothing says what it is.
    MissingWeightsError, WrongWeightsError: its folder cannot be read.
  """
  where = "model.conditioner.prompt_encoder"
  section = config.model.get("conditioner", {}).get("prompt_encoder", {})
  if not section.get("name"):
    return None
  network = pick(text.NETWORKS, section["name"], where=f"{where}.name")
  sizes = _sizes(section, network.config, network.read_config, where=where)
  return fill(text.PromptEncoderConfig, section, where=where, sizes=sizes)


def semantic_config(config) -> SemanticConfig | None:
  """The slow stream of frames, from `config.model.conditioner.semantic`.

  A tower's sizes are in the config, or read from its folder.

  Raises:
    ConfigError: a key is stray, or nothing says what the tower is.
    MissingWeightsError, WrongWeightsError: see `vit.read_config`.
  """
  where = "model.conditioner.semantic"
  section = dict(config.model["conditioner"].get("semantic") or {})
  if not section:
    return None
  sizes = None
  if section.get("name") == "vit":
    sizes = _sizes(section, vit.ViTConfig, vit.read_config, where=where)
  return fill(SemanticConfig, section, where=where, sizes=sizes)


def _sizes(section, cls: type, read, *, where: str):
  """Of a published network: as the config says, or else its folder."""
  if section.get("sizes"):
    return fill(cls, section["sizes"], where=f"{where}.sizes")
  if not section.get("path"):
    raise ConfigError(
      f"config.{where}.path='': name the folder of this {section['name']}, with"
      " config.json and model.safetensors"
    )
  return read(section["path"])


def tune(conditioner: Conditioner, config: lora.LoraConfig, *, rngs: nnx.Rngs):
  """Freezes or adapts the frame part, in place, as `tune` of its config says.

  Raises:
    ConfigError: there is a rank without `lora`, or `lora` without a rank.
  """
  how, stream = conditioner.config.tune, conditioner.looking
  if (how == "lora") != bool(config.rank):
    raise ConfigError(
      f"config.model.conditioner.tune={how!r} with lora.rank={config.rank}:"
      " 'lora' needs config.model.conditioner.lora=dict(rank=8), say, and"
      " nothing else takes it"
    )
  if how == "frozen":
    lora.freeze(stream, parts=stream.frame_part)
  elif how == "lora":
    lora.adapt(stream, config, rngs=rngs, parts=stream.frame_part)
  return conditioner


def lora_config(config) -> lora.LoraConfig | None:
  """How the generator is adapted, from `config.lora`; None for not at all."""
  found = fill(lora.LoraConfig, config.get("lora", {}), where="lora")
  how = config.model["conditioner"].get("tune", "full")
  if found.rank and how == "lora":
    raise ConfigError(
      f"config.lora.rank={found.rank} adapts the whole model, so"
      " config.model.conditioner.tune='lora' has nothing left: use one of them"
    )
  return found if found.rank else None


def make_objective(config):
  cls = pick(OBJECTIVES, config.objective["name"], where="objective.name")
  average = config.model.get("average", False)
  if cls is MeanFlow and not average:
    raise ConfigError(
      "config.objective.name='mean_flow', but config.model.average is not True:"
      " the model would not see where an interval ends"
    )
  told = config.objective.get("infill_rate", 0)
  if told and not config.model.get("infill", False):
    raise ConfigError(
      f"config.objective.infill_rate={told}, but config.model.infill is not"
      " True: the model would not see what it is told"
    )
  weight = config.objective.get("alignment_weight", 0)
  if weight and not config.model["conditioner"].get("aligner_depth"):
    raise ConfigError(
      f"config.objective.alignment_weight={weight}, but"
      " config.model.conditioner.aligner_depth is not 1 or more: there is no"
      " aligner to learn from it"
    )
  weight = config.objective.get("representation_weight", 0)
  if bool(weight) != bool(config.model.get("teacher")):
    raise ConfigError(
      f"config.objective.representation_weight={weight} with"
      f" config.model.teacher={config.model.get('teacher', '')!r}: set both, to"
      " 0.5 and 'mn04', say, or neither"
    )
  return fill(cls, config.objective, where="objective")


def make_sampler(config, overrides: Mapping[str, Any] | None = None):
  """A sampler from `config.sampler`, with other values for some of its fields.

  Raises:
    ConfigError: a name or value is refused, or does not suit the model.
  """
  section = config.sampler.to_dict()
  guidance = section.pop("guidance")
  overrides = dict(overrides or {})
  guidance |= overrides.pop("guidance", {})
  section |= overrides
  cls = pick(SAMPLERS, section["name"], where="sampler.name")
  average = config.model.get("average", False)
  if section.get("solver") == "average" and not average:
    raise ConfigError(
      "config.sampler.solver='average', but config.model.average is not True:"
      " the model does not predict average velocities; use 'euler'"
    )
  guidance = fill(Guidance, guidance, where="sampler.guidance")
  return fill(cls, section, where="sampler", guidance=guidance)


def make_target(config, codec: FrozenCodec):
  cls = pick(TARGETS, config.data["target"], where="data.target")
  target = cls(codec.graphdef, codec.config)
  if isinstance(target, target_lib.CodeTarget):
    _check_codes(codec.config, where="data.target='codes'")
    count = config.model.get("num_codebooks")
    target = dataclasses.replace(target, num_codebooks=count)
  if config.model.get("teacher"):
    target = teacher_lib.Taught(target, codec.config.sample_rate)
  return target


def make_frozen(config, codec: FrozenCodec):
  """What the target of `make_target` needs beside the batch.

  Raises:
    MissingWeightsError, WrongWeightsError: the teacher's weights.
  """
  name = config.model.get("teacher")
  if not name:
    return codec.state
  return {"target": codec.state, "teacher": teacher_lib.load(name)}


def loader_config(config, codec: CodecConfig, **changes):
  """What the loader must do; rate and channels are the codec's."""
  section = {k: v for k, v in config.data.items() if k != "target"}
  frames = not section.get("features") or bool(
    config.model.get("conditioner", {}).get("semantic")
  )
  values = dict(
    sample_rate=codec.sample_rate,
    channels=codec.channels,
    seed=config.seed,
    frames=frames,
  )
  found = fill(
    loader_lib.LoaderConfig, section, where="data", **(values | changes)
  )
  if prompt_encoder_config(config) and not found.prompt_tokenizer:
    raise ConfigError(
      "config.data.prompt_tokenizer is empty, but"
      " config.model.conditioner.prompt_encoder reads ids of its own: name the"
      " spiece.model or tokenizer.json beside its weights"
    )
  return found


def blank_batch(config: loader_lib.LoaderConfig, b: int) -> Batch:
  """An empty batch of the loader's shapes: for tracing and counting."""
  blank = example_lib.blank_example(config.window, index=0)
  arrays = {k: np.broadcast_to(v, (b, *np.shape(v))) for k, v in blank.items()}
  return Batch.from_arrays(arrays)


def count_flops(config, codec: CodecConfig, loader) -> tuple[int, int]:
  """Analytic FLOPs of one clip; allocates no weights.

  Returns:
    Of a forward pass, and of a training step: three of them, less what is not
    done for a frozen encoder (`Conditioner.spared_flops`).
  """
  model = nnx.eval_shape(
    lambda: make_generator(config, codec, rngs=nnx.Rngs(0))
  )
  length = -(-loader.window.num_samples // codec.hop)
  cond = blank_batch(loader, 1).cond
  forward = model.flops_per_example(cond, length)
  spared = model.conditioner.spared_flops(cond)
  return forward, 3 * forward - sum(spared.values())
