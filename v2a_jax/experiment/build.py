"""From a config to the things that it describes.

Each section becomes one frozen dataclass, so a stray key fails by name here and
nobody below sees a config.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import numpy as np

from data_pipelines import example as example_lib
from data_pipelines import loader as loader_lib
from v2a_jax.batch import Batch
from v2a_jax.codec import target as target_lib
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.discriminators import Discriminator, DiscriminatorConfig
from v2a_jax.codec.frozen import FrozenCodec, sizes
from v2a_jax.experiment import build_conditioner
from v2a_jax.experiment.sections import ConfigError, fill, look_up, pick
from v2a_jax.models import ar, ar_latents, dit, lora
from v2a_jax.models.generator import Generator
from v2a_jax.objectives import teacher as teacher_lib
from v2a_jax.objectives.codec import CodecGAN, CodecObjective
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.objectives.mean_flow import MeanFlow
from v2a_jax.objectives.next_latents import NextLatents
from v2a_jax.objectives.next_token import NextToken
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
# What is set, what else that needs, and what would be wrong without.
NEEDED = (
  (
    "objective.infill_rate",
    "model.infill",
    "the model would not see what it is told; set it to True",
  ),
  (
    "objective.alignment_weight",
    "model.conditioner.aligner_depth",
    "there is no aligner to learn from it; set it to 1 or more",
  ),
  (
    "objective.representation_weight",
    "model.teacher",
    "there is nobody to learn from; set it to 'mn04'",
  ),
  (
    "model.teacher",
    "objective.representation_weight",
    "nothing would be learned from it; set it to 0.5, say",
  ),
)


def _check_codes(codec, *, where: str) -> None:
  if not codec.num_codebooks:
    raise ConfigError(
      f"config.{where}: codes are asked for, but config.codec has none: use"
      " data.target='latents' and a model of them, or a codec with codebooks"
    )


def make_codec_gan(config, *, rngs: nnx.Rngs) -> CodecGAN:
  """The two players of codec training, from `config.model`."""
  critics = config.model.get("discriminator")
  codec = Codec(sizes(config), rngs=rngs)
  if not critics:
    return CodecGAN(codec)
  critics = fill(DiscriminatorConfig, critics, where="model.discriminator")
  return CodecGAN(codec, Discriminator(critics, rngs=rngs))


def _dit(section, codec, *, rngs):
  name = section.get("teacher")
  section = {k: v for k, v in section.items() if k != "teacher"}
  fields = dict(where="model", channels=codec.latent_dim)
  if name:
    fields["representation"] = _teacher(name).FRAME_DIM
  return dit.DiT(fill(dit.DiTConfig, section, **fields), rngs=rngs)


def _teacher(name: str):
  return pick(teacher_lib.TEACHERS, name, where="model.teacher")


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
  """A generator of what `codec` encodes, from `config.model`."""
  section = {k: v for k, v in config.model.items() if k != "conditioner"}
  make_backbone = pick(BACKBONES, section["name"], where="model.name")
  backbone = make_backbone(section, codec, rngs=rngs)
  conditioner = build_conditioner.make_conditioner(config, rngs=rngs)
  model = Generator(conditioner, backbone)
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
  if cls is MeanFlow and not config.model.get("average", False):
    raise ConfigError(
      "config.objective.name='mean_flow', but config.model.average is not True:"
      " the model would not see where an interval ends"
    )
  for asked, needed, lacks in NEEDED:
    value = look_up(config, asked)
    if value and not look_up(config, needed):
      raise ConfigError(
        f"config.{asked}={value!r}, but config.{needed} is not set: {lacks}"
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
  if name := config.model.get("teacher"):
    rate = codec.config.sample_rate
    target = teacher_lib.Taught(
      target, teacher=_teacher(name), sample_rate=rate
    )
  return target


def make_frozen(config, codec: FrozenCodec):
  """What the target of `make_target` needs beside the batch.

  Raises:
    MissingWeightsError, WrongWeightsError: the teacher's weights.
  """
  if name := config.model.get("teacher"):
    return {"target": codec.state, "teacher": _teacher(name).load()}
  return codec.state


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
  if build_conditioner.prompt_encoder(config) and not found.prompt_tokenizer:
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


def count_flops(
  model: Generator, codec: CodecConfig, loader: loader_lib.LoaderConfig
) -> tuple[int, int]:
  """Analytic FLOPs of one clip.

  Args:
    model: may be of shapes.
    codec: of its latents or codes.
    loader: shapes of the data.

  Returns:
    Of a forward pass, and of a training step: three of them, less what is not
    done for a frozen encoder (`Conditioner.spared_flops`).
  """
  length = -(-loader.window.num_samples // codec.hop)
  cond = blank_batch(loader, 1).cond
  forward = model.flops_per_example(cond, length)
  spared = model.conditioner.spared_flops(cond)
  return forward, 3 * forward - sum(spared.values())
