"""From a workdir to a bundle: what training leaves, ready to travel.

A generator's averaged weights go with its tokenizer and resolved config; a codec
is calibrated on its training data first, so that its latents have zero mean and
unit variance.
"""

import itertools
import pathlib

from flax import nnx
from ml_collections import config_dict
import numpy as np

from data_pipelines import loader as loader_lib
from v2a_jax import build, bundle
from v2a_jax.codec.autoencoder import calibrate
from v2a_jax.models import lora
from v2a_jax.training import checkpoint as checkpoint_lib

CALIBRATION_BATCHES = 32


def export(
  workdir,
  out,
  *,
  step: int | None = None,
  dtype: str = "float16",
  card: str = "",
) -> pathlib.Path:
  """Writes a bundle of a workdir's newest weights; see `bundle`.

  Args:
    workdir: of `v2a train`.
    out: the bundle's folder.
    step: which checkpoint; None for the newest.
    dtype: of the stored arrays.
    card: Markdown; a short one is made if empty.

  Raises:
    BundleError, CheckpointError: the workdir cannot be used, and why.
  """
  workdir, out = pathlib.Path(workdir), pathlib.Path(out)
  if not (workdir / bundle.CONFIG).is_file():
    raise bundle.BundleError(
      f"{workdir} holds no {bundle.CONFIG}: name a workdir of `v2a train`"
    )
  config = config_dict.ConfigDict(bundle.read_config(workdir))
  is_codec = config.objective.name == "codec"
  model, restored = checkpoint_lib.restore_model(
    workdir, _maker(config, is_codec), step=step
  )
  trained = {
    "step": restored.step,
    "clips_seen": restored.meta["clips_seen"],
    "train_seconds": restored.meta["train_seconds"],
  }
  tokenizer = None
  if is_codec:
    model = calibrate(model.codec, _waveforms(config))
  else:
    tokenizer = (workdir / bundle.TOKENIZER).read_bytes()
    if build.lora_config(config):
      model, config.lora.rank = lora.merge(model), 0
  bundle.save(
    out,
    nnx.state(model),
    config.to_dict() | {"trained": trained},
    card=card or _card(config, trained),
    tokenizer=tokenizer,
    dtype=dtype,
  )
  return out


def _maker(config, is_codec):
  if is_codec:
    return lambda rngs: build.make_codec_gan(config, rngs=rngs)
  codec = build.load_codec(config.codec).config
  return lambda rngs: build.make_generator(config, codec, rngs=rngs)


def _waveforms(config):
  """Training audio that is long enough to measure on."""
  codec = build.codec_config(config)
  loader = loader_lib.make_loader(build.loader_config(config, codec))
  with loader:
    for batch in itertools.islice(loader, CALIBRATION_BATCHES):
      yield np.asarray(batch["audio"])


def _card(config, trained) -> str:
  minutes = (trained["train_seconds"] or 0) / 60
  return (
    f"# {config.name}\n\n"
    f"{trained['step']} steps, {trained['clips_seen']} clips,"
    f" {minutes:.1f} minutes of training on `{config.data.paths}`.\n"
    "Apache-2.0. config.json holds every setting.\n"
  )
