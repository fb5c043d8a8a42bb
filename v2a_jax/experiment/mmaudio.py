"""MMAudio's published checkpoints as generators of this project.

`mmaudio:small_16k` and the like name a generator with its towers and its codec,
whose files `v2a weights fetch` of the same name gets. A checkpoint holds the
flow network with the input layers of its conditions, and mean and deviation of
the latents it was trained on, which are the codec's here.

Names and shapes: https://github.com/hkchengrex/MMAudio.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import os
from typing import Any

from flax import nnx

from v2a_jax.basics import settings
from v2a_jax.basics.text import one_of
from v2a_jax.conditioning.mmaudio import MMAudioConditionerConfig
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models.generator import Generator
from v2a_jax.models.mmaudio import VARIANTS, MMAudioConfig
from v2a_jax.pretrained import open_clip, synchformer
from v2a_jax.weights import names, published, registry
from v2a_jax.weights.catalog import MMAUDIO_NETWORKS
from v2a_jax.weights.registry import WrongWeightsError
from v2a_jax.weights.tables import Row, Shape, Table, Tensor

PREFIX = "mmaudio:"
CLIP, SYNC = "clip_dfn5b", "synchformer"
CLIP_CONFIG, TOKENIZER = "clip_config", "clip_tokenizer"
PIXELS = 384  # height and width of the frames that CLIP sees
CHANNELS = {"16k": 20, "44k": 40}  # of a latent, by the codec's rate
# Tables that the network computes; older files may hold them.
_COMPUTED = ("t_embed.freqs", "latent_rot", "clip_rot")


def recognises(name: str | os.PathLike[str]) -> bool:
  """Returns whether a checkpoint's name is one of MMAudio's."""
  return str(name).startswith(PREFIX)


def config(name: str) -> dict[str, Any]:
  """Returns the config of a published generator, as it was sampled from.

  Raises:
    ConfigError: there is none of that name.
    MissingWeightsError: the sizes of CLIP are not found; says how to get them.
  """
  variant, folder = _variant(name), registry.find(CLIP_CONFIG).parent
  clip, text = (
    tower.read_config(folder) for tower in (open_clip.VISION, open_clip.TEXT)
  )
  # Frames as MMAudio's networks saw them, whatever the tower was trained at; the
  # number of patches is the same.
  clip = dataclasses.replace(
    clip,
    image_size=PIXELS,
    image_mean=open_clip.MEAN,
    image_std=open_clip.STD,
    do_center_crop=False,
  )
  conditioner = {
    "prompt_encoder": _section("open_clip", text),
    "clip": _section("open_clip", clip),
    "sync": _section("synchformer", synchformer.SynchformerConfig()),
  }
  return {
    "name": name,
    "codec": name,
    "data": {
      "paths": ("data/mine",),
      "target": "latents",
      "seconds": 8.0,
      "fps": 8.0,
      "features": 1024 + 3 * 768,
      "prompt_length": text.max_length,
    }
    | tokenizers(name),
    "model": {"name": "mmaudio", "conditioner": conditioner}
    | VARIANTS[variant],
    "objective": {"name": "diffusion"},
    "sampler": {"name": "ode", "num_steps": 25, "guidance": {"joint": 4.5}},
  }


def _section(name: str, sizes: Any) -> dict[str, Any]:
  return {"name": name, "sizes": settings.as_dict(sizes)}


def _variant(name: str) -> str:
  variant = name.removeprefix(PREFIX)
  if variant not in VARIANTS:
    raise ConfigError(f"{name!r}: {variant!r} {one_of(VARIANTS)}")
  return variant


def file_of(name: str) -> str:
  """Returns the name of a generator's checkpoint in the catalogue."""
  return f"mmaudio_{_variant(name)}"


def tokenizers(name: str) -> dict[str, str]:
  """Returns the `LoaderConfig` fields of the tokenizers of a generator.

  Raises:
    ConfigError: there is none of that name.
    MissingWeightsError: it is not found; says how to get it.
  """
  _variant(name)
  return {"prompt_tokenizer": str(registry.find(TOKENIZER))}


def read(
  name: str, model: MMAudioConfig, conditioner: MMAudioConditionerConfig
) -> dict[names.Name, Any]:
  """Reads the weights of a published generator by name in the model.

  Args:
    name: `mmaudio:` and one of `VARIANTS`.
    model: sizes of the backbone.
    conditioner: sizes of the conditions; towers without a name are not read.

  Raises:
    ConfigError: there is none of that name.
    MissingWeightsError: files are not found; all are named.
    WrongWeightsError: a file is damaged or of another network.
  """
  registry.check_here(name)
  with contextlib.ExitStack() as stack:
    open_ = lambda file: published.open_files(
      [registry.as_safetensors(file)], stack
    )
    file = file_of(name)
    network = load_network(open_(file), model, conditioner, source=file)
    arrays = names.flatten(nnx.state(network))
    for section, place, tower, file in (
      ("prompt_encoder", ("prompt", "encoder"), open_clip.TEXT, CLIP),
      ("clip", ("clip",), open_clip.VISION, CLIP),
      ("sync", ("sync",), synchformer.VISUAL, SYNC),
    ):
      if sizes := getattr(conditioner, section).sizes:
        module = tower.assemble(open_(file), sizes, source=file)
        arrays |= {
          ("conditioner", *place, *path): array
          for path, array in names.flatten(nnx.state(module)).items()
        }
  return arrays


def load_network(
  tensors: Mapping[str, Tensor],
  model: MMAudioConfig,
  conditioner: MMAudioConditionerConfig,
  *,
  source: str | os.PathLike[str],
) -> Generator:
  """Makes a generator, without towers, with the weights of a checkpoint.

  Args:
    tensors: tensors of the checkpoint by name.
    model: sizes of the backbone.
    conditioner: sizes of the conditions; towers are left out.
    source: where the tensors are from, for errors.

  Raises:
    WrongWeightsError: it is the checkpoint of another network, or tensors are
      missing, extra or misshapen; all are named.
  """
  kept = {k: v for k, v in tensors.items() if k not in _COMPUTED}
  try:
    return published.assemble(
      kept,
      lambda rngs: make(model, conditioner, rngs),
      table(model),
      source=source,
      unread=unread(model),
    )
  except WrongWeightsError:
    if variant := _recognise(kept):
      raise WrongWeightsError(
        f"{os.fspath(source)} holds the network {variant}: use"
        f" {PREFIX}{variant}, or the file of the network that you named"
      ) from None
    raise


def _recognise(tensors: Mapping[str, Tensor]) -> str:
  """Returns the published network that tensors are of; "" for none."""
  found = {name: tensor.shape for name, tensor in tensors.items()}
  for variant, sizes in VARIANTS.items():
    channels = CHANNELS[MMAUDIO_NETWORKS[variant][0]]
    model = MMAudioConfig(**sizes, channels=channels, latent_rate=1.0)
    if found == shapes(
      model,
      MMAudioConditionerConfig(width=model.width, version=model.version),
    ):
      return variant
  return ""


def shapes(
  model: MMAudioConfig, conditioner: MMAudioConditionerConfig
) -> dict[str, Shape]:
  """Returns the shapes of all tensors of a checkpoint by name."""
  fresh = lambda rngs: make(model, conditioner, rngs)
  return published.shapes(fresh, table(model)) | unread(model)


def make(
  model: MMAudioConfig, conditioner: MMAudioConditionerConfig, rngs: nnx.Rngs
) -> Generator:
  """Makes a generator without towers."""
  sections = ("prompt_encoder", "clip", "sync")
  none = {name: type(getattr(conditioner, name))() for name in sections}
  conditioner = dataclasses.replace(conditioner, **none)
  return Generator(conditioner.make(rngs=rngs), model.make(rngs=rngs))


def unread(model: MMAudioConfig) -> dict[str, Shape]:
  """Returns the shapes of tensors of a checkpoint that the codec reads."""
  return dict.fromkeys(("latent_mean", "latent_std"), (1, 1, model.channels))


def table(model: MMAudioConfig) -> Table:
  """Returns where the parameters of a generator are in a checkpoint."""
  ours, rows = "conditioner/", {}

  def stem(path: str, name: str, *, kernel: int, mlp_kernel: int):
    # Each step is numbered, and an activation is a step.
    has_activation = model.version == 2 or kernel > 1
    rows[f"{path}/embed"] = Row(name=f"{name}.0", taps=kernel)
    mlp(f"{path}/mlp", f"{name}.{1 + has_activation}", mlp_kernel)

  def mlp(path: str, name: str, kernel: int, first: int = 0):
    for part, theirs in (("up", "w1"), ("down", "w2"), ("value", "w3")):
      row = Row(name=f"{name}.{theirs}", taps=kernel, first=first)
      rows[f"{path}/{part}"] = row

  def stream(path: str, name: str, *, kernel: int, first: int, full: bool):
    row = lambda name, **kwargs: Row(name=name, first=first, **kwargs)
    rows[f"{path}/modulation/out"] = row(f"{name}.adaLN_modulation.1")
    rows[f"{path}/qkv"] = row(f"{name}.attn.qkv", maps=3, innermost=True)
    for norm in ("q_norm", "k_norm"):
      rows[f"{path}/{norm}"] = row(f"{name}.attn.{norm}")
    if full:
      rows[f"{path}/out"] = row(f"{name}.linear1", taps=kernel)
      mlp(f"{path}/mlp", f"{name}.ffn", kernel, first)

  stem("backbone/stem", "audio_input_proj", kernel=7, mlp_kernel=7)
  stem(f"{ours}clip_stem", "clip_input_proj", kernel=1, mlp_kernel=3)
  stem(f"{ours}sync_stem", "sync_input_proj", kernel=7, mlp_kernel=3)
  stem(f"{ours}text_stem", "text_input_proj", kernel=1, mlp_kernel=1)
  mlp(f"{ours}summary", "global_cond_mlp", 1)
  last = model.joint_depth - 1
  for part, kernel in (("latent", 3), ("clip", 3), ("text", 1)):
    name = f"joint_blocks.{{}}.{part}_block"
    stream(
      f"backbone/joint/blocks/{part}", name, kernel=kernel, first=0, full=True
    )
    stream(
      f"backbone/last_joint/blocks/{part}",
      name,
      kernel=kernel,
      first=last,
      full=part == "latent",
    )
  stream(
    "backbone/fused/blocks/latent",
    "fused_blocks.{}",
    kernel=3,
    first=0,
    full=True,
  )
  return rows | {
    f"{ours}no_clip": "empty_clip_feat",
    f"{ours}no_sync": "empty_sync_feat",
    f"{ours}no_text": "empty_string_feat",
    f"{ours}sync_positions": "sync_pos_emb",
    f"{ours}clip_summary": "clip_cond_proj",
    f"{ours}text_summary": "text_cond_proj",
    "backbone/time_in": "t_embed.mlp.0",
    "backbone/time_out": "t_embed.mlp.2",
    "backbone/final/out": "final_layer.adaLN_modulation.1",
    "backbone/out": Row(name="final_layer.conv", taps=7),
  }


def card(name: str) -> str:
  """Returns the model card of a published generator, in Markdown."""
  rows = "\n".join(
    f"| `{weights.name}` | {weights.about} | {weights.licence} |"
    for weights in registry.entries(name)
  )
  return f"""# {name}

A generator that MMAudio publishes (https://github.com/hkchengrex/MMAudio), run by networks that are written here anew.

**Licence.** The strictest of its files counts. CC-BY-NC-4.0: not for commercial use, and neither is what is trained on from them.

| file | what it is | licence |
|---|---|---|
{rows}

**Limits.**

* Its quality in this software has not been measured; the numbers in its paper (https://arxiv.org/abs/2412.15322) are of the original.
* It was trained on clips of 8 seconds. It speaks no given words, and takes no notice of the switches speech, music and effects.
* Nothing was taught about lips: speech need not fit them.
* Bad pictures, blurred or of few frames, give worse timing; how much worse is not known.
"""
