"""The condition encoders that `config.model.conditioner` describes."""

from flax import nnx

from v2a_jax.conditioning import text
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig
from v2a_jax.conditioning.semantic import SemanticConfig
from v2a_jax.experiment.sections import ConfigError, fill, pick
from v2a_jax.models import lora
from v2a_jax.pretrained import vit


def make_conditioner(config, *, rngs: nnx.Rngs) -> Conditioner:
  """The encoders of `config.model.conditioner`, tuned as it says.

  Width, heads, remat, unroll and dtype are the backbone's.
  """
  model, section = config.model, dict(config.model["conditioner"])
  adaptation = fill(
    lora.LoraConfig, section.pop("lora", {}), where="model.conditioner.lora"
  )
  shared = ("width", "num_heads", "remat", "unroll", "dtype")
  found = fill(
    ConditionerConfig,
    section | {"semantic": semantic(config)},
    where="model.conditioner",
    prompt_encoder=prompt_encoder(config),
    seconds=config.data["seconds"],
    **{key: model[key] for key in shared if key in model},
  )
  return tune(Conditioner(found, rngs=rngs), adaptation, rngs=rngs)


def prompt_encoder(config) -> text.PromptEncoderConfig | None:
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


def semantic(config) -> SemanticConfig | None:
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
