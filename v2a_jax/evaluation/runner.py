"""Evaluates a model on held-out clips, beside its anchors, into results.json.

  evaluate(Soundtracker.load("runs/a"), data="data/scenes", out="eval/a")

All rows (see rows.py) are generated for the same clips and scored by the same
metrics (see metrics/). What cannot be measured is left out with the reason,
never replaced: records that cannot be used are listed under `failures`, metrics
that lack their weights under `skipped`.
"""

from collections.abc import Callable, Sequence
import os
import pathlib
import time
from typing import Any

import numpy as np

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, check_writable
from v2a_jax.basics.text import clock
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import reference as reference_lib
from v2a_jax.evaluation import results
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation.clips import Clip, Failure
from v2a_jax.evaluation.embeddings import Embedding
from v2a_jax.evaluation.metrics import METRICS, onsets
from v2a_jax.evaluation.metrics.base import Metric, check
from v2a_jax.evaluation.schema import FILE
from v2a_jax.evaluation.scorer import Scorer
from v2a_jax.weights import registry as weights

REFERENCE_CLIPS = 128
_LOG_SECONDS = 5.0

Log = Callable[[str], None]


def evaluate(
  tracker: rows_lib.Tracker,
  *,
  data: str | os.PathLike,
  out: str | os.PathLike,
  split: str = "test",
  num_clips: int | None = 64,
  seed: int = 0,
  rows: Sequence[str] = rows_lib.ROWS,
  metrics: Sequence[Metric] = METRICS,
  batch_size: int = 8,
  sampler_overrides: Any = None,
  gallery_clips: int = 12,
  reference_clips: int = REFERENCE_CLIPS,
  weights_path: str | os.PathLike | None = None,
  log: Log = print,
) -> dict[str, Any]:
  """Scores a model and writes results.json with its media.

  Args:
    tracker: the model.
    data: folder of a data set, of which `split` is used.
    out: folder to write into.
    num_clips: number of records to use, drawn from `seed`; None for all.
    seed: random seed of the choice of clips, the model, anchors and intervals.
    rows: rows to generate and score, of `rows.ROWS`.
    metrics: metrics to compute.
    batch_size: clips per call of the model.
    sampler_overrides: fields of the sampler to change.
    gallery_clips: number of clips whose media are written.
    reference_clips: number of other clips whose true sounds set distances are
      measured to; at least the number of evaluated clips.
    weights_path: file or folder with the weights of the embedding network;
      None searches as `weights.find` does.
    log: called with lines of progress.

  Returns:
    The content of results.json.

  Raises:
    DataError: the data set is missing or unusable.
    ValueError: an unknown row, a metric that is not complete, or fewer than two
      clips that can be scored.
    WrongWeightsError: the weights are not the published ones.
  """
  start = time.monotonic()
  # First what can be refused, then what takes minutes.
  _check_rows(rows)
  check(metrics)
  check_writable(out)
  config = tracker.loader_config
  networks, missing = _load_networks(metrics, weights_path, log)
  records, indices = clips_lib.choose(data, split, num=num_clips, seed=seed)
  clips, failures = clips_lib.load(records, indices, config)
  for failure in failures:
    log(f"not scored: {failure.id}: {failure.reason}")
  log(f"{len(clips)} clips of {data} ({split})")
  settings = rows_lib.Settings(
    seed=seed, batch_size=batch_size, sampler=sampler_overrides
  )
  sounds = _generate(tracker, clips, rows, settings, log)
  clips, sounds, not_finite = _finite(clips, sounds)
  for failure in not_finite:
    log(f"not scored: {failure.id}: {failure.reason}")
  scorer = Scorer(
    clips,
    metrics,
    sample_rate=config.sample_rate,
    networks=networks,
    references=_load_references(
      metrics,
      networks,
      *(data, split),
      exclude=indices,
      num=max(reference_clips, len(clips)),
      config=config,
      log=log,
    ),
    seed=seed,
  )
  scores = {}
  for name, waveforms in sounds.items():
    since = time.monotonic()
    scores[name] = scorer.score(waveforms)
    log(f"{name}: scored in {time.monotonic() - since:.1f} s")
  content = results.describe_run(tracker, sampler_overrides) | {
    "set": results.describe_set(data, split, clips),
    "metrics": _describe_metrics(scorer, clips),
    "skipped": {
      m.id: missing.get(m.embedding.id)
      or scorer.references[m.embedding.id].about
      for m in metrics
      if m not in scorer.metrics
    },
    "rows": [_row(name, scorer, scores) for name in rows],
    "failures": [vars(failure) for failure in failures + not_finite],
    "seed": seed,
  }
  with files.staged(out, last=FILE) as folder:
    content["clips"] = _write_clips(
      folder, clips, sounds, scorer, scores, gallery_clips
    )
    results.write_embeddings(
      folder, {row: of.features for row, of in scores.items()}
    )
    content["wall_seconds"] = time.monotonic() - start
    results.write(folder, content)
  log(f"{as_path(out) / FILE} in {content['wall_seconds']:.0f} s")
  return content


def _check_rows(rows: Sequence[str]) -> None:
  unknown = [row for row in rows if row not in rows_lib.ROWS]
  if unknown or not rows:
    raise ValueError(
      f"rows {', '.join(unknown) or '(none)'}: choose from"
      f" {', '.join(rows_lib.ROWS)}"
    )


def _load_networks(
  metrics: Sequence[Metric], path: str | os.PathLike | None, log: Log
) -> tuple[dict[str, Embedding], dict[str, str]]:
  """Returns networks that metrics need, and why others lack, by their id."""
  networks, missing = {}, {}
  for embedding in dict.fromkeys(m.embedding for m in metrics if m.embedding):
    try:
      networks[embedding.id] = embedding(path)
    except weights.MissingWeightsError as error:
      missing[embedding.id] = str(error)
      ids = [m.id for m in metrics if m.embedding is embedding]
      log(f"not measured: {', '.join(ids)}: {error}")
  return networks, missing


def _generate(tracker, clips, rows, settings, log) -> dict[str, list]:
  """Generates the sounds of all rows, with progress about every 5 s."""
  if len(clips) < 2:
    raise ValueError(
      f"{len(clips)} clips can be scored; two or more are needed"
    )
  sounds = {}
  for name in rows:
    start = logged = time.monotonic()

    def progress(done, name=name, start=start):
      nonlocal logged
      now = time.monotonic()
      if now - logged > _LOG_SECONDS and done < len(clips):
        left = (now - start) / done * (len(clips) - done)
        log(f"  {name}: {done}/{len(clips)} clips, {clock(left)} to go")
        logged = now

    sounds[name] = rows_lib.make(
      name, tracker, clips, settings=settings, progress=progress
    )
    log(f"{name}: {len(clips)} sounds in {time.monotonic() - start:.1f} s")
  return sounds


def _finite(clips, sounds):
  """Leaves out clips of which any row is not finite; returns failures last."""
  bad = {
    i: row
    for row, waveforms in sounds.items()
    for i, waveform in enumerate(waveforms)
    if not np.isfinite(waveform).all()
  }
  failures = [
    Failure(clips[i].id, f"the sound of the row {row} is not finite")
    for i, row in sorted(bad.items())
  ]
  keep = lambda items: [x for i, x in enumerate(items) if i not in bad]
  if failures and len(clips) - len(failures) < 2:
    raise ValueError(
      f"{len(failures)} of {len(clips)} clips have sounds that are not finite"
      f" ({failures[0].reason}): is the checkpoint of a diverged run?"
    )
  return keep(clips), {row: keep(w) for row, w in sounds.items()}, failures


def _load_references(
  metrics, networks, data, split, *, log, **options
) -> dict[str, reference_lib.Reference]:
  """Loads the references that metrics need, by `Embedding.id`."""
  needed = {m.embedding.id for m in metrics if m.needs_reference}
  references = {
    id_: reference_lib.load(network, data, split, log=log, **options)
    for id_, network in networks.items()
    if id_ in needed
  }
  for reference in references.values():
    log(reference.about)
  return references


def _describe_metrics(scorer: Scorer, clips: Sequence[Clip]) -> dict[str, Any]:
  """Describes the measured metrics, by id."""
  described = {}
  for metric in scorer.metrics:
    network = metric.embedding and scorer.networks[metric.embedding.id]
    facts = metric.facts(clips)
    if metric.needs_reference:
      facts = {"reference": scorer.references[network.id].about} | facts
    described[metric.id] = results.describe_metric(
      metric, network=network, source_rate=scorer.sample_rate, facts=facts
    )
  return described


def _row(name: str, scorer: Scorer, scores) -> dict[str, Any]:
  entries = {
    id_: estimate.to_json() for id_, estimate in scores[name].estimates.items()
  }
  if name == "generated" and "shuffled_video" in scores:
    differences = scorer.timing_differences(
      scores[name], scores["shuffled_video"]
    )
    for id_, difference in differences.items():
      entries[id_]["over_shuffled"] = difference.to_json()
  kind = "model" if name == "generated" else "anchor"
  return {"name": name, "kind": kind, "metrics": entries}


def _write_clips(
  out: pathlib.Path, clips, sounds, scorer: Scorer, scores, gallery: int
) -> list[dict[str, Any]]:
  """Writes media of the first clips; describes all clips with their scores."""
  entries = []
  for i, clip in enumerate(clips):
    shown = {"video": "", "audio": {}}
    if i < gallery:
      own = {row: waveforms[i] for row, waveforms in sounds.items()}
      rate = scorer.sample_rate
      shown = results.write_media(out, clip, own, sample_rate=rate)
    events = onsets.reference_onsets(scorer.truth[i])
    own_scores = {
      row: {
        id_: round(float(values[i]), 5)
        for id_, values in of.by_clip.items()
        if np.isfinite(values[i])
      }
      for row, of in scores.items()
    }
    entry = {
      "id": clip.id,
      "caption": clip.caption,
      "transcript": clip.transcript,
      "label": clip.label,
      "duration": clip.seconds,
      **shown,
      "events": [round(float(t), 4) for t in events],
      "scores": own_scores,
      "counts": {row: scorer.counts(of, i) for row, of in scores.items()},
      "parts": {
        row: {
          id_: round(float(estimate.parts[i]), 5)
          for id_, estimate in of.estimates.items()
          if estimate.parts is not None and np.isfinite(estimate.parts[i])
        }
        for row, of in scores.items()
      },
    }
    entries.append(entry)
  return entries
