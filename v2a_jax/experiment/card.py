"""The model card of a bundle: what is known of a model, and what is not.

Sections after "Model Cards for Model Reporting" (Mitchell et al.,
https://arxiv.org/abs/1810.03993). What the run knows is filled in; what only
people know, or what was not measured, is said to be missing, with the command
that measures it. Measurements are those of `v2a eval`.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax import nnx
import jax

from data_pipelines.columns import records
from data_pipelines.manifest import find_manifest
from data_pipelines.schema import DataError
from v2a_jax.basics import files
from v2a_jax.basics.text import clock
from v2a_jax.experiment import published
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.training import history
from v2a_jax.weights import bundle as bundle_lib
from v2a_jax.weights import registry

FILL_IN = "*To be filled in.*"
NOT_MEASURED = "Not measured yet."
# Rows of results.json that are shown, and those of worse pictures.
_ROWS = {
  "generated": "generated",
  "ground_truth": "true sound",
  "shuffled_video": "another clip's video",
}
_PICTURES = {
  "generated": "as it is",
  "compressed_video": "compressed, JPEG of quality 5",
  "noisy_video": "noise of 10 %",
  "slow_video": "5 frames a second",
  "film_video": "black and white, grain, flicker",
}
_VALIDATION = ("eval/loss", "eval_mean/loss")  # of metrics.jsonl
_OF_PICTURES = ("onset_f1_50ms", "sync_error")
_OF_LIPS = ("lip_error", "lips_in_time")


def write(
  experiment: Experiment,
  source: Mapping[str, Any],
  *,
  model: nnx.Module,
  bundle: str,
  evaluations: Sequence[Mapping[str, Any]] = (),
) -> str:
  """Writes the card of a bundle, in Markdown.

  Args:
    experiment: experiment that trained it.
    source: `path` of the workdir, `step`, `clips_seen`, `train_seconds` and, of
      an average that was made for the bundle, `average_length`; or as `path`
      the name of a published generator, which has a card.
    model: the model.
    bundle: folder of the bundle, which the commands name.
    evaluations: contents of files results.json that measure these weights.
  """
  if system := published.find(source["path"]):
    sections = {
      "Measured": _measured(experiment, source, bundle, evaluations),
      "How to use it": _use(experiment, bundle),
    }
    return _card([system.card(source["path"]).rstrip()], sections)
  sections = {
    "Data": _data(experiment),
    "Licence": _licence(experiment),
    "Training": _training(experiment, source),
    "Measured": _measured(experiment, source, bundle, evaluations),
    "Limits": _limits(experiment, source, bundle, evaluations),
  }
  if experiment.trains_generator:
    sections["How to use it"] = _use(experiment, bundle)
  title = f"# {experiment.run.name or 'A model without a name'}"
  return _card([title, *_about(experiment, model)], sections)


def _card(first: Sequence[str], sections: Mapping[str, Iterator[str]]) -> str:
  """Joins the paragraphs of a card: the first ones, and those of sections."""
  parts = [*first]
  for name, paragraphs in sections.items():
    parts += [f"## {name}", *paragraphs]
  return "\n\n".join(parts) + "\n"


def _about(experiment: Experiment, model: nnx.Module) -> Iterator[str]:
  name, sound = experiment.names["model"], experiment.codec_config
  count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
  what = {
    "codec": "A codec of sound",
    "sync": "A judge of how far sound and picture are apart in time",
  }.get(name, "It makes sound for silent video")
  sizes = [
    f"{count / 1e6:.2f} M parameters",
    f"{sound.sample_rate} Hz",
    f"{sound.channels} channel{'s' * (sound.channels > 1)}",
    f"{experiment.data.seconds:g} s at a time",
  ]
  if experiment.trains_generator:
    height, width = experiment.data.frame_size
    sizes.append(f"{width} x {height} pixels")
    sizes.append(f"up to {experiment.data.fps:g} frames a second")
    sizes.append(f"{experiment.data.target} of `{experiment.run.codec}`")
  yield f"{what} (`{name}`): {', '.join(sizes)}. config.json has all settings."


def _data(experiment: Experiment) -> Iterator[str]:
  data = experiment.data
  weights = data.weights or [1 / len(data.paths)] * len(data.paths)
  rows = ["| data set | share | clips of the training split | licences |"]
  rows.append("|---|---|---|---|")
  for path, weight in zip(data.paths, weights):
    share = f"{weight / sum(weights):.0%}"
    rows.append(f"| `{path}` | {share} | {' | '.join(_of_set(path))} |")
  yield "\n".join(rows)
  yield f"Where it is from, and who or what is not in it: {FILL_IN}"


def _of_set(path: str) -> tuple[str, str]:
  """Returns what a data set holds, and under which licences."""
  unknown = "not known: the data set is not here"
  manifest = find_manifest(path)
  if manifest is None:
    return unknown, unknown
  clips = f"{manifest['splits'].get('train', 0):,}"
  settings = manifest.get("settings", {})
  if settings.get("kind") == "scenes":
    clips += f" procedural scenes, seed {settings['seed']}"
  try:
    found = records.open_records(path)
  except DataError:
    return clips, f"not known: run `v2a data columns {path}`"
  licences = collections.Counter(
    found.table["licence"][found.rows("train")].to_pylist()
  )
  said = [f"{k or 'none given'} ({n:,})" for k, n in licences.most_common()]
  return clips, ", ".join(said) or "none"


def _licence(experiment: Experiment) -> Iterator[str]:
  yield f"Of these weights: {FILL_IN} Of the program: Apache-2.0."
  part = lambda name: getattr(experiment.conditioner, name, None)
  named = {
    "began as": experiment.run.init_from,
    "codec": experiment.run.codec,
    "prompts": getattr(part("prompt_encoder"), "name", ""),
    "pictures": getattr(part("semantic"), "name", ""),
  }
  lines = [
    f"* {use}: `{name}`, {_licence_of(name)}"
    for use, name in named.items()
    if name
  ]
  if lines:
    yield "It uses other weights, whose terms hold too:\n\n" + "\n".join(lines)


def _licence_of(name: str) -> str:
  """Returns the licence of published weights, or where it stands."""
  try:
    entries = registry.entries(name)
  except KeyError:
    return "see its card"
  return ", ".join(sorted({entry.licence for entry in entries}))


def _training(experiment: Experiment, source) -> Iterator[str]:
  run, seconds = experiment.run, source["train_seconds"]
  facts = [
    f"{source['step']:,} of {run.num_train_steps:,} steps",
    f"{experiment.batch_size} clips a step",
    f"{source['clips_seen']:,} clips in all",
    f"{clock(seconds)} of time" if seconds else "the time is not known",
    f"learning rate {experiment.optimizer.learning_rate:g}",
    f"seed {run.seed}",
  ]
  if "average_length" in source:
    facts.append(
      f"average of the weights of length {source['average_length']:g}"
    )
  if run.init_from:
    facts.append(f"from the weights of `{run.init_from}`")
  yield f"`v2a train`: {', '.join(facts)}."
  yield f"On which machine, and what was tried and not taken: {FILL_IN}"


def _measured(experiment, source, bundle, evaluations) -> Iterator[str]:
  for results in evaluations:
    metrics = results["metrics"].items()
    shown = [id_ for id_, entry in metrics if entry["role"] == "quality"]
    yield _table(results, _ROWS, shown)
  if validation := _validation(source):
    yield f"Validation at the step of these weights: {validation}."
  if not evaluations and experiment.trains_generator:
    yield _missing(source, bundle, "--set DATA -o eval/quality")
  elif not evaluations and not validation:
    yield NOT_MEASURED


def _validation(source) -> str:
  """Returns the validation of a run at the step of its weights, or ""."""
  try:
    rows = [*history.rows(source["path"])]
  except history.HistoryError:
    return ""
  values = {}
  for step, row in rows:
    if step == source["step"]:
      values |= {k: row[k] for k in _VALIDATION if k in row}
  return ", ".join(f"`{k}` {v:.4g}" for k, v in values.items())


def _limits(experiment, source, bundle, evaluations) -> Iterator[str]:
  yield (
    "It knows what it was trained on. What it does with other sounds, places and"
    f" people: {FILL_IN}"
  )
  if not experiment.trains_generator:
    return
  yield "**Quality of the video.** A worse picture may give a worse sound."
  worse = [
    _table(results, _PICTURES, _OF_PICTURES)
    for results in evaluations
    if {row["name"] for row in results["rows"]} & (_PICTURES.keys() - _ROWS)
  ]
  yield from worse or [
    _missing(source, bundle, "--set DATA --degraded -o eval/pictures")
  ]
  if not experiment.conditioner.reads_transcript:
    yield "**Lips.** It speaks no given words."
    return
  yield (
    "**Lips.** Words of a transcript may sound beside the movements of the mouth"
    " that speaks them."
  )
  lips = [
    _table(results, _ROWS, _OF_LIPS)
    for results in evaluations
    if results["metrics"].keys() >= {*_OF_LIPS}
  ]
  yield from lips or [
    _missing(
      source,
      bundle,
      "--set data/talk --split all -o eval/lips",
      first="v2a data scenes -o data/talk --num 64 --seed 78 --action talk",
    )
  ]


def _use(experiment, bundle: str) -> Iterator[str]:
  yield _commands(
    f'v2a generate clip.mp4 --checkpoint {bundle} -p "rain on tin" -o out',
    f"v2a serve --checkpoint {bundle} -o served",
  )
  yield (
    "Sounds are marked as generated, by a watermark and signed provenance: leave"
    " both on, and put no words into the mouths of people who have not agreed."
    f" Not meant for: {FILL_IN}"
  )


def _table(results, names: Mapping[str, str], metrics: Sequence[str]) -> str:
  """Returns a table of an evaluation, with what it is of; a line a metric.

  Args:
    results: content of a results.json.
    names: rows of it that become columns, and what those are called.
    metrics: ids of the metrics that are shown where they were measured.
  """
  rows = [row for row in results["rows"] if row["name"] in names]
  lines = [
    f"{results['set']['n']} clips of `{results['set']['path']}`"
    f" ({results['set']['split']}), 95 % intervals:\n",
    f"| | {' | '.join(names[row['name']] for row in rows)} |",
    "|---" * (len(rows) + 1) + "|",
  ]
  for id_ in metrics:
    if entry := results["metrics"].get(id_):
      unit = f", {entry['unit']}" if entry["unit"] else ""
      cells = " | ".join(_cell(row["metrics"].get(id_)) for row in rows)
      lines.append(f"| {entry['label']}{unit} | {cells} |")
  return "\n".join(lines)


def _cell(score: Mapping[str, Any] | None) -> str:
  """Formats a value with its interval and the number of clips."""
  if not score or score.get("value") is None:
    return "not measured"
  text = f"{score['value']:.3g}"
  if score.get("low") is not None and score.get("high") is not None:
    text += f" [{score['low']:.3g}, {score['high']:.3g}]"
  return text


def _missing(source, bundle: str, flags: str, *, first: str = "") -> str:
  """Says that something was not measured, and what does.

  Args:
    source: as in `write`.
    bundle: folder of the bundle.
    flags: arguments of `v2a eval` after the checkpoint.
    first: command that comes before it.
  """
  checkpoint, then = source["path"], ""
  if "average_length" in source:  # No checkpoint of the run has such weights.
    checkpoint = bundle
  else:
    then = ", and `--measured` of `v2a weights export` puts it here"
  lines = [*filter(None, [first]), f"v2a eval {checkpoint} {flags}"]
  return f"{NOT_MEASURED} To measure it{then}:\n\n{_commands(*lines)}"


def _commands(*lines: str) -> str:
  return "\n".join(f"    {line}" for line in lines)


def served(checkpoint: str, source: Mapping[str, Any]) -> str:
  """Returns the card of a generator for those who use it over a network.

  A bundle has one of its own. A workdir's says how far it was trained and names
  no path; a published generator's, under which licences its files are.

  Args:
    checkpoint: what it was loaded by, as for `load.load`.
    source: where its weights are from, `Trained.source`.
  """
  if system := published.find(checkpoint):
    return system.card(checkpoint)
  try:
    card = bundle_lib.find(checkpoint) / bundle_lib.CARD
    return files.read_bytes(card).decode()
  except (OSError, bundle_lib.BundleError):
    return _trained(source) if "step" in source else ""


def _trained(source: Mapping[str, Any]) -> str:
  minutes = (source["train_seconds"] or 0) / 60
  return f"""# A training run

{source["step"]} steps, {source["clips_seen"]} clips, {minutes:.1f} minutes of training. The weights of step {source["step"]} are used.

**Limits.**

* Nothing is known here of how well it does: `v2a eval` measures it, `v2a weights export` makes a bundle that has a card of its own.
* Its sounds are those of its training data, whose licence and consent are for who trained it to know.
* Lips and bad pictures were not measured: speech need not fit lips, and timing suffers where the picture is blurred or of few frames.
"""
