"""From a workdir to a bundle: what training leaves, ready to travel.

A published generator becomes a bundle in the same way.

A model's averaged weights go with its resolved config, a generator's with its
tokenizer too; a codec is calibrated on its training data first, so that its
latents are white; `trained.effective_rank` of config.json says how many
directions their variance filled before.
"""

from collections.abc import Mapping, Sequence
import itertools
import pathlib
from typing import Any

from flax import nnx
import numpy as np

from v2a_jax.basics.paths import as_path, check_writable
from v2a_jax.codec.autoencoder import calibrate
from v2a_jax.experiment import card as card_lib
from v2a_jax.experiment import load, published
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models import lora
from v2a_jax.weights import bundle

CALIBRATION_BATCHES = 32


def export(
  workdir,
  out,
  *,
  step: int | str | None = None,
  average_length: float | None = None,
  dtype: str = "float16",
  card: str = "",
  evaluations: Sequence[Mapping[str, Any]] = (),
) -> pathlib.Path:
  """Writes a bundle of a workdir's newest weights; see `weights/bundle.py`.

  Args:
    workdir: workdir of `v2a train`, or the name of a published generator.
    out: folder of the bundle.
    step: step of the checkpoint; "best" for that of the best validation result,
      None for the newest.
    average_length: length of the average of the weights as a share of the
      training (`training/posthoc.py`); None for the one that the run used.
    dtype: dtype of the stored arrays: float32, float16 or bfloat16.
    card: model card in Markdown; `card.write` writes it if empty.
    evaluations: contents of files results.json of `v2a eval` on this step of
      the workdir, for the card; none with an `average_length`.

  Raises:
    BundleError, CheckpointError: the workdir cannot be used, and why.
    ConfigError, MissingWeightsError, WrongWeightsError: nor can a published
      generator be; or an evaluation is given for an average that is made now.
    ValueError: an evaluation is of other weights.
  """
  out = as_path(out)
  check_writable(out)
  if average_length is not None and evaluations:
    raise ConfigError(
      "no evaluation is of an average that is made now: export it without"
      " --measured, and evaluate the bundle"
    )
  if published.find(workdir):
    if average_length is not None:
      raise ConfigError(f"{workdir} is no run: leave out --average_length")
    trained = load.from_published(workdir, step=step)
  else:
    trained = load.from_workdir(
      workdir, step=step, average_length=average_length
    )
  for results in evaluations:
    _check_same(results, trained.source)
  experiment, model = trained.experiment, trained.model
  config, tokenizers = dict(experiment.config), {}
  facts = ("step", "clips_seen", "train_seconds", "average_length")
  history = {k: trained.source[k] for k in facts if k in trained.source}
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
    card=card
    or card_lib.write(
      experiment,
      trained.source,
      model=model,
      bundle=str(out),
      evaluations=evaluations,
    ),
    **tokenizers,
    dtype=dtype,
  )
  return out


def _check_same(results: Mapping[str, Any], source: Mapping[str, Any]) -> None:
  """Refuses an evaluation of other weights."""
  of = results.get("checkpoint") or {}
  if of.get("sha256") != source["sha256"]:
    raise ValueError(
      f"the evaluation of {of.get('path')} at step {of.get('step')} is not of"
      f" these weights, step {source['step']} of {source['path']}: evaluate"
      " them, or give --step"
    )


def _waveforms(experiment):
  """Yields batches of training audio to measure the latents on."""
  with experiment.open_loader("train") as loader:
    for batch in itertools.islice(loader, CALIBRATION_BATCHES):
      yield np.asarray(batch["audio"])
