"""From a workdir to a bundle: what training leaves, ready to travel.

A generator's averaged weights go with its tokenizer and resolved config; a codec
is calibrated on its training data first, so that its latents have zero mean and
unit variance.
"""

import itertools
import pathlib

from flax import nnx
import numpy as np

from data_pipelines import loader as loader_lib
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.autoencoder import calibrate
from v2a_jax.experiment import build
from v2a_jax.experiment import load as trained
from v2a_jax.models import lora
from v2a_jax.weights import bundle

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
  out = pathlib.Path(out)
  found = trained.from_workdir(workdir, step=step)
  config, model, words = found.config, found.model, {}
  told = {k: found.source[k] for k in ("step", "clips_seen", "train_seconds")}
  if build.trains_codec(config):
    model = calibrate(model.codec, _waveforms(config))
  else:
    words = {key: each.model for key, each in found.tokenizers.items()}
    if build.lora_config(config):
      model, config.lora.rank = lora.merge(model), 0
    if config.model.conditioner.get("tune") == "lora":
      model = lora.merge(model)
      config.model.conditioner.update(tune="frozen", lora=dict(rank=0))
  bundle.save(
    out,
    nnx.state(model),
    config.to_dict() | {"trained": told},
    card=card or _card(config, told),
    **words,
    dtype=dtype,
  )
  return out


def _waveforms(config):
  """Training audio that is long enough to measure on."""
  codec = frozen_codec.sizes(config)
  loader = loader_lib.make_loader(build.loader_config(config, codec))
  with loader:
    for batch in itertools.islice(loader, CALIBRATION_BATCHES):
      yield np.asarray(batch["audio"])


def _card(config, told) -> str:
  minutes = (told["train_seconds"] or 0) / 60
  return (
    f"# {config.name}\n\n"
    f"{told['step']} steps, {told['clips_seen']} clips,"
    f" {minutes:.1f} minutes of training on `{config.data.paths}`.\n"
    "Apache-2.0. config.json holds every setting.\n"
  )
