"""From a workdir to a bundle: what training leaves, ready to travel.

A model's averaged weights go with its resolved config, a generator's with its
tokenizer too; a codec is calibrated on its training data first, so that its
latents are white; `trained.effective_rank` of config.json says how many
directions their variance filled before.
"""

import itertools
import pathlib

from flax import nnx
import numpy as np

from v2a_jax.basics.paths import as_path, check_writable
from v2a_jax.codec.autoencoder import calibrate
from v2a_jax.experiment import load
from v2a_jax.models import lora
from v2a_jax.weights import bundle

CALIBRATION_BATCHES = 32


def export(
  workdir,
  out,
  *,
  step: int | str | None = None,
  dtype: str = "float16",
  card: str = "",
) -> pathlib.Path:
  """Writes a bundle of a workdir's newest weights; see `weights/bundle.py`.

  Args:
    workdir: workdir of `v2a train`.
    out: folder of the bundle.
    step: step of the checkpoint; "best" for that of the best validation result,
      None for the newest.
    dtype: dtype of the stored arrays: float32, float16 or bfloat16.
    card: model card in Markdown; a short one is written if empty.

  Raises:
    BundleError, CheckpointError: the workdir cannot be used, and why.
  """
  out = as_path(out)
  check_writable(out)
  trained = load.from_workdir(workdir, step=step)
  experiment, model = trained.experiment, trained.model
  config, tokenizers = dict(experiment.config), {}
  history = {
    key: trained.source[key] for key in ("step", "clips_seen", "train_seconds")
  }
  if experiment.trains_codec:
    model, measured = calibrate(model.codec, _waveforms(experiment))
    history["effective_rank"] = round(measured.effective_rank, 2)
  elif experiment.trains_generator:
    tokenizers = {key: own.model for key, own in trained.tokenizers.items()}
    if experiment.lora.rank:
      model = lora.merge(model)
      config["lora"] = config["lora"] | {"rank": 0}
    if experiment.conditioner.tune == "lora":
      model = lora.merge(model)
      conditioner = config["model"]["conditioner"]
      plain = {"tune": "frozen", "lora": conditioner["lora"] | {"rank": 0}}
      config["model"] = config["model"] | {"conditioner": conditioner | plain}
  bundle.save(
    out,
    nnx.state(model),
    config | {"trained": history},
    card=card or _card(experiment, history),
    **tokenizers,
    dtype=dtype,
  )
  return out


def _waveforms(experiment):
  """Yields batches of training audio to measure the latents on."""
  with experiment.open_loader("train") as loader:
    for batch in itertools.islice(loader, CALIBRATION_BATCHES):
      yield np.asarray(batch["audio"])


def _card(experiment, history) -> str:
  minutes = (history["train_seconds"] or 0) / 60
  return (
    f"# {experiment.run.name}\n\n"
    f"{history['step']} steps, {history['clips_seen']} clips,"
    f" {minutes:.1f} minutes of training on `{experiment.data.paths}`.\n"
    "Apache-2.0. config.json holds every setting.\n"
  )
