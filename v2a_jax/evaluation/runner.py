"""Judges a model on held-out clips, beside its anchors, into results.json.

  evaluate(Soundtracker.load("runs/a"), data="data/scenes", out="eval/a")

All rows (see rows.py) answer the same clips and are scored by the same judge
(see scores.py). What cannot be measured is left out with the reason, never
replaced: records that cannot be used are listed under `failures`, metrics that
lack their weights under `skipped`.
"""

from collections.abc import Callable, Sequence
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import time
from typing import Any

import numpy as np

from data_pipelines.manifest import MANIFEST, file_sha256
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import embeddings, results, scores
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation.clips import Clip, Failure
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.weights import registry as weights

REFERENCE_CLIPS = 128
_SET_METRICS = ("fad_mn04", "kad_mn04")


def evaluate(
  tracker: rows_lib.Tracker,
  *,
  data: str | os.PathLike,
  out: str | os.PathLike,
  split: str = "test",
  num_clips: int | None = 64,
  seed: int = 0,
  rows: Sequence[str] = rows_lib.ROWS,
  batch_size: int = 8,
  sampler_overrides: Any = None,
  gallery_clips: int = 12,
  reference_clips: int = REFERENCE_CLIPS,
  weights_path: str | os.PathLike | None = None,
  log: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Scores a model and writes results.json with its media.

  Args:
    tracker: the model.
    data: a data set's folder.
    out: the folder to write into.
    split: of the data set.
    num_clips: how many of its records to judge, drawn from `seed`; None is all.
    seed: of the choice of clips, the model's noise, anchors and intervals.
    rows: which rows, of `rows.ROWS`.
    batch_size: clips a call of the model.
    sampler_overrides: fields of the sampler to change.
    gallery_clips: of how many clips media are written.
    reference_clips: other clips whose true sounds set distances are measured
      to; at least as many as are judged.
    weights_path: of the mn04 network; None looks where `weights.find` does.
    log: is given lines of progress.

  Returns:
    What results.json holds.

  Raises:
    DataError: the data set is missing or unusable.
    ValueError: an unknown row, or fewer than two clips that can be judged.
    WrongWeightsError: the mn04 file is not the published one.
  """
  began = time.monotonic()
  _check_rows(rows)
  out = pathlib.Path(out)
  config = tracker.loader_config
  # First what can be refused, then what takes minutes.
  ear, skipped = _load_ear(weights_path, log)
  records, indices = clips_lib.choose(data, split, num=num_clips, seed=seed)
  clips, failures = clips_lib.load(records, indices, config)
  _tell(failures, log)
  log(f"{len(clips)} clips of {data} ({split})")
  settings = rows_lib.Settings(
    seed=seed, batch_size=batch_size, sampler=sampler_overrides
  )
  sounds = _make_rows(tracker, clips, rows, settings, log)
  clips, sounds, broken = _finite(clips, sounds)
  _tell(broken, log)
  judge, heard = _make_judge(
    clips,
    config,
    reference=dict(path=data, split=split, exclude=indices),
    num=max(reference_clips, len(clips)),
    ear=ear,
    skipped=skipped,
    seed=seed,
    log=log,
  )
  scored = _score_rows(judge, sounds, log)
  found = _describe(tracker, sampler_overrides) | {
    "set": _describe_set(data, split, clips),
    "metrics": _describe_metrics(scored, judge, heard),
    "skipped": heard.skipped,
    "rows": [_row(name, judge, scored) for name in rows],
    "clips": _write_clips(
      out, clips, sounds, scored, judge, tracker.sample_rate, gallery_clips
    ),
    "failures": [{"id": f.id, "reason": f.reason} for f in failures + broken],
    "seed": seed,
    "wall_seconds": time.monotonic() - began,
  }
  log(f"{results.write(out, found)} in {found['wall_seconds']:.0f} s")
  return found


def _check_rows(rows: Sequence[str]) -> None:
  unknown = [row for row in rows if row not in rows_lib.ROWS]
  if unknown or not rows:
    raise ValueError(
      f"rows {', '.join(unknown) or '(none)'}: choose from"
      f" {', '.join(rows_lib.ROWS)}"
    )


def _tell(failures: Sequence[Failure], log) -> None:
  for failure in failures:
    log(f"not judged: {failure.id}: {failure.reason}")


def _make_rows(tracker, clips, rows, settings, log):
  """Sounds by row, with a line of progress about every five seconds."""
  if len(clips) < 2:
    raise ValueError(
      f"{len(clips)} clips can be judged; two or more are needed"
    )
  sounds = {}
  for name in rows:
    began = told = time.monotonic()

    def progress(done, name=name, began=began):
      nonlocal told
      now = time.monotonic()
      if now - told > 5 and done < len(clips):
        left = (now - began) / done * (len(clips) - done)
        log(f"  {name}: {done}/{len(clips)} clips, {left:.0f} s to go")
        told = now

    sounds[name] = rows_lib.make(
      name, tracker, clips, settings=settings, progress=progress
    )
    log(f"{name}: {len(clips)} sounds in {time.monotonic() - began:.1f} s")
  return sounds


def _finite(clips, sounds):
  """Leaves out clips for which any row has a sound that is not finite."""
  bad = {
    i: row
    for row, made in sounds.items()
    for i, sound in enumerate(made)
    if not np.isfinite(sound).all()
  }
  failures = [
    Failure(clips[i].id, f"the sound of the row {row} is not finite")
    for i, row in sorted(bad.items())
  ]
  keep = lambda items: [x for i, x in enumerate(items) if i not in bad]
  kept = {row: keep(made) for row, made in sounds.items()}
  if failures and len(clips) - len(failures) < 2:
    raise ValueError(
      f"{len(failures)} of {len(clips)} clips have sounds that are not finite"
      f" ({failures[0].reason}): is the checkpoint of a diverged run?"
    )
  return keep(clips), kept, failures


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Heard:
  """What the metrics that need a network rest on, in words.

  Attributes:
    identity: the network and its windows; empty without it.
    reference: where the other clips' sounds are from.
    skipped: metrics that are not measured, and why.
  """

  identity: dict[str, str]
  reference: str
  skipped: dict[str, str]


def _make_judge(clips, config, *, reference, num, ear, skipped, seed, log):
  """The judge of all rows, and what it listens with and compares to."""
  others, about, identity = None, "", {}
  if ear:
    others, about = _hear_reference(ear, config, num=num, **reference)
    log(about)
    identity = {
      "embedding": f"{ear.id} {ear.sha256[:12]}",
      "window": f"{ear.window:g} s every {ear.hop:g} s, {ear.sample_rate} Hz",
      "source_rate": f"{config.sample_rate} Hz",
    }
    if others is None:
      skipped = dict.fromkeys(_SET_METRICS, about)
  judge = scores.Judge(
    clips,
    sample_rate=config.sample_rate,
    seed=seed,
    ear=ear,
    reference=others,
  )
  return judge, _Heard(identity=identity, reference=about, skipped=skipped)


def _load_ear(path, log) -> tuple[embeddings.Mn04 | None, dict[str, str]]:
  """The network that listens, or what is not measured without it, and why."""
  try:
    return embeddings.Mn04(path), {}
  except weights.MissingWeightsError as error:
    names = [name for name in METRICS if name.endswith(embeddings.Mn04.id)]
    log(f"not measured: {', '.join(names)}: {error}")
    return None, dict.fromkeys(names, str(error))


def _hear_reference(ear, config, *, path, split, exclude, num):
  """Features of other clips' true sounds (None below two), and what they are.

  They depend on nothing of the model but its rate and window, so they are kept
  in the cache, under the digest of all that they depend on.
  """
  window = dict(
    rate=config.sample_rate, channels=config.channels, seconds=config.seconds
  )
  key = [
    *(file_sha256(pathlib.Path(path) / MANIFEST), split, sorted(exclude)),
    *(num, window, ear.sha256, ear.window, ear.hop),
  ]
  name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
  cached = weights.cache_root() / "evaluation" / f"{name}.npz"
  if cached.is_file():
    kept = np.load(cached, allow_pickle=False)
    features = embeddings.Features(
      kept["vectors"], kept["clips"], kept["logits"]
    )
    return features, str(kept["about"])
  reference = clips_lib.load_reference(
    path, split, exclude=exclude, num=num, config=config
  )
  if len(reference.waveforms) < 2:
    return None, "there are no two other clips to be the reference"
  features = embeddings.embed(
    ear, reference.waveforms, sample_rate=config.sample_rate
  )
  _keep(cached, features, reference.about)
  return features, reference.about


def _keep(path: pathlib.Path, features, about: str) -> None:
  """Saves features; a cache that cannot be written is none."""
  part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
      part,
      vectors=features.vectors,
      clips=features.clips,
      logits=features.logits,
      about=about,
    )
    os.replace(part, path)
  except OSError:
    part.unlink(missing_ok=True)


def _score_rows(judge, sounds, log) -> dict[str, scores.Scores]:
  scored = {}
  for name, made in sounds.items():
    began = time.monotonic()
    scored[name] = judge.score(made)
    log(f"{name}: scored in {time.monotonic() - began:.1f} s")
  return scored


def _describe(tracker, overrides) -> dict[str, Any]:
  about = tracker.describe()
  checkpoint = about["checkpoint"]
  now = datetime.datetime.now(datetime.UTC)
  return {
    "schema": results.SCHEMA,
    "name": about["name"],
    "created": now.isoformat(timespec="seconds"),
    "checkpoint": checkpoint,
    "config": about["config"],
    "sampler": _overridden(about["sampler"], overrides or {}),
    "code": results.code_identity(),
    "curve": results.read_curve(checkpoint.get("path") or ""),
  }


def _overridden(settings, overrides) -> dict[str, Any]:
  """The settings with some changed; sections such as guidance are merged."""
  changed = dict(settings)
  for key, value in overrides.items():
    section = isinstance(changed.get(key), dict)
    changed[key] = changed[key] | dict(value) if section else value
  return changed


def _describe_set(data, split, clips: Sequence[Clip]) -> dict[str, Any]:
  return {
    "path": str(data),
    "split": split,
    "n": len(clips),
    "seconds": float(sum(clip.seconds for clip in clips)),
    "manifest_sha256": file_sha256(pathlib.Path(data) / MANIFEST),
  }


def _describe_metrics(scored, judge, heard) -> dict[str, Any]:
  """Every measured metric, with what identifies its variant."""
  measured = {name for row in scored.values() for name in row.estimates}
  described = {}
  for name, metric in METRICS.items():
    if name not in measured:
      continue
    on_network = name.endswith(embeddings.Mn04.id)
    identity = dict(heard.identity) if on_network else {}
    if name in _SET_METRICS:
      identity["reference"] = heard.reference
    if name.startswith("onset") and judge.num_detected:
      identity["detected"] = (
        f"{judge.num_detected} clips have no known events: their reference is"
        " what the detector finds in the true sound"
      )
    described[name] = {
      "label": metric.label,
      "unit": metric.unit,
      "higher_is_better": metric.higher_is_better,
      "about": " ".join([metric.about, *_sentences(identity)]),
    } | ({"identity": identity} if identity else {})
  return described


def _sentences(identity: dict[str, str]) -> list[str]:
  shown = {k: v for k, v in identity.items() if k in ("reference", "detected")}
  return [f"{key.capitalize()}: {value}." for key, value in shown.items()]


def _row(name, judge, scored) -> dict[str, Any]:
  own = scored[name]
  figures = {
    metric: own.estimates[metric].to_json()
    for metric in METRICS
    if metric in own.estimates
  }
  if name == "generated" and "shuffled_video" in scored:
    for metric, difference in judge.over(own, scored["shuffled_video"]).items():
      figures[metric]["over_shuffled"] = difference.to_json()
  kind = "model" if name == "generated" else "anchor"
  return {"name": name, "kind": kind, "metrics": figures}


def _write_clips(out, clips, sounds, scored, judge, sample_rate, gallery):
  entries = []
  for i, clip in enumerate(clips):
    files = {"video": "", "audio": {}}
    if i < gallery:
      own = {row: made[i] for row, made in sounds.items()}
      files = results.write_media(out, clip, own, sample_rate=sample_rate)
    entries.append(
      {
        "id": clip.id,
        "caption": clip.caption,
        "transcript": clip.transcript,
        "label": clip.label,
        "duration": clip.seconds,
        **files,
        "events": [round(float(t), 4) for t in judge.true_onsets[i]],
        "scores": {
          row: _clip_scores(of.by_clip, i) for row, of in scored.items()
        },
      }
    )
  return entries


def _clip_scores(by_clip, i) -> dict[str, float]:
  """A clip's values by metric; what is undefined for it is left out."""
  values = {
    name: float(of[i]) for name, of in by_clip.items() if name in METRICS
  }
  return {k: round(v, 5) for k, v in values.items() if np.isfinite(v)}
