"""Evaluates a system on held-out clips, beside its anchors, into results.json.

  evaluate(Soundtracker.load("runs/a"), data="data/scenes", out="eval/a")

All rows (see rows.py) are made for the same clips, brought to one rate and scored
by the same metrics (see metrics/). What cannot be measured is left out with the
reason, never replaced: clips that cannot be used are listed under `failures`,
metrics that cannot be measured under `skipped`.

An evaluation can be killed at any moment: the same call goes on from there, with
the same numbers (see parts.py). Several processes can share one (`shard`).
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import time
from typing import Any

import numpy as np

from data_pipelines.manifest import fingerprint
from v2a_jax.basics import cache, claim, files
from v2a_jax.basics.paths import as_path, check_writable, is_remote
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import earlier, embedded, formats, preparation, results
from v2a_jax.evaluation import reference as reference_lib
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation import work as work_lib
from v2a_jax.evaluation.clips import Truth
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.evaluation.metrics.base import Metric, check
from v2a_jax.evaluation.options import Options
from v2a_jax.evaluation.preparation import Log
from v2a_jax.evaluation.schema import FILE, GROUND_TRUTH
from v2a_jax.evaluation.summary import Scores, Summary
from v2a_jax.evaluation.systems import Model, System
from v2a_jax.hearing.embeddings import Embedding

PARTS = "parts"  # folder of what an evaluation keeps while it works


def evaluate(
  subject: rows_lib.Tracker | System,
  *,
  data: str | os.PathLike | Truth,
  out: str | os.PathLike,
  options: Options = Options(),  # noqa: B008
  metrics: Sequence[Metric] = METRICS,
  eligible: Sequence[int] | None = None,
  unmatched: dict[str, Any] | None = None,
  weights_path: str | os.PathLike | None = None,
  log: Log = print,
) -> dict[str, Any] | None:
  """Scores a system and writes results.json with its media.

  Args:
    subject: a model, or a folder of sounds.
    data: folder of a data set, or the true sounds.
    out: folder to write into.
    options: how it is evaluated.
    metrics: metrics to compute.
    eligible: indices of the records to draw from; None for all.
    unmatched: what results.json says of files that match nothing.
    weights_path: file or folder with the weights of the embedding networks;
      None searches as `weights.find` does.
    log: called with lines of progress.

  Returns:
    The content of results.json; None where other shards are not done.

  Raises:
    DataError: the data set is missing or unusable.
    ClaimedError: another process writes to the folder.
    ValueError: an unknown row, a metric that is not complete, no clip that can
      be scored, or results of other settings in the folder.
    WrongWeightsError: the weights are not the published ones.
  """
  start = time.monotonic()
  # First what can be refused, then what takes minutes.
  system = subject if hasattr(subject, "make") else Model(subject)
  rows = preparation.rows_of(system, options)
  check(metrics)
  check_writable(out)
  refused = preparation.refused(system, metrics, log)
  metrics = [m for m in metrics if m.id not in refused]
  networks, missing = preparation.load_networks(metrics, weights_path, log)
  if not isinstance(data, Truth):
    data = clips_lib.open_truth(data, options.split)
  entries = preparation.entries_of(data, eligible, options)
  job = _Job(
    system=system,
    truth=data,
    out=as_path(out),
    options=options,
    rows=preparation.for_clips(rows, len(entries)),
    metrics=[
      m for m in metrics if not m.embedding or m.embedding.id in networks
    ],
    networks=networks,
    kept=embedded.Kept(options.reuse),
    missing=refused
    | {
      m.id: missing[m.embedding.id]
      for m in metrics
      if m.embedding and m.embedding.id in missing
    },
    entries=entries,
    unmatched=unmatched or {},
    log=log,
  )
  log(f"{len(job.entries)} clips of {data.path}, judged at {job.format}")
  return job.run(start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
  """One evaluation, when all that can be refused has been."""

  system: System
  truth: Truth
  out: Any
  options: Options
  rows: Sequence[str]
  metrics: Sequence[Metric]
  networks: dict[str, Embedding]
  kept: embedded.Kept
  missing: dict[str, str]
  entries: Sequence[formats.Entry]
  unmatched: dict[str, Any]
  log: Log

  @property
  def format(self) -> formats.Format:
    """Format that sounds are judged in."""
    limits = (self.options.seconds, self.system.seconds)
    seconds = min((s for s in limits if s), default=None)
    return formats.choose(self.entries, rate=self.options.rate, seconds=seconds)

  def run(self, start: float) -> dict[str, Any] | None:
    """Does this process's share; the last one writes the results."""
    settings = self.settings()
    if done := earlier.finished(self.out, settings, self.log):
      return done
    base = self.out
    if is_remote(base):
      base = cache.place(base, "evaluations")
    folder = base / PARTS / fingerprint(settings)[:16]
    i, n = self.options.shard
    claimed = self.out if n == 1 else base / PARTS / f"shard_{i}_of_{n}"
    with claim.held(claimed):
      earlier.say_unused(folder, settings, self.log)
      folder.mkdir(parents=True, exist_ok=True)
      files.write_json(folder / earlier.SETTINGS, settings)
      work = self._work(base, folder)
      shares = [*range(work.num_parts)][i - 1 :: n]
      work_lib.make_parts(work, shares, self.log)
      if n == 1:
        return self._finish(folder, base, work, settings, start)
    return self._merge(folder, base, work, settings, start)

  def _merge(self, folder, base, work, settings, start):
    """Writes the results if all shards are done, and no other process does."""
    there = len([*folder.glob("part_*.npz")])
    if there < work.num_parts and not earlier.finished(
      self.out, settings, self.log
    ):
      self.log(
        f"{there} of {work.num_parts} parts are done; the last shard writes"
        f" {self.out / FILE}"
      )
      return None
    with contextlib.suppress(claim.ClaimedError), claim.held(self.out):
      return earlier.finished(self.out, settings, self.log) or self._finish(
        folder, base, work, settings, start
      )
    return None

  def settings(self) -> dict[str, Any]:
    """Returns all that numbers depend on, JSON-able."""
    options, about = self.options, self.system.describe()
    chosen = [(e.id, e.sha256, e.index) for e in self.entries]
    settings = {
      "system": {k: about[k] for k in ("kind", "name", "sampler")},
      "weights": about["checkpoint"].get("sha256"),
      "config": fingerprint(json.loads(json.dumps(about, default=str))),
      "set": [self.truth.digest, self.truth.split],
      "clips": [len(chosen), fingerprint(chosen)],
      "judged at": str(self.format),
      "seconds": str(self.format.seconds),
      "rows": list(self.rows),
      "metrics": {m.id: m.formula for m in self.metrics},
      "networks": {
        id_: [of.sha256, of.window, of.hop] for id_, of in self.networks.items()
      },
      "seeds": self.seeds(),
      "batch_size": options.batch_size,
      "reference": [self._distance_to(), options.reference_clips],
      "gallery_clips": options.gallery_clips,
      "keep_sounds": options.keep_sounds,
      "reuse": list(options.reuse),
      "code": results.code_digest(),
      "versions": results.code_identity()["versions"],
    }
    return json.loads(json.dumps(settings, default=str))

  def seeds(self) -> dict[str, int]:
    """Returns the seeds by what they decide."""
    o = self.options
    return {
      "clips": o.seed,
      "noise": o.noise_seed,
      "intervals": o.interval_seed,
      "reference": o.reference_seed,
    }

  def _work(self, base: pathlib.Path, folder: pathlib.Path) -> work_lib.Work:
    config = self.system.loader_config
    return work_lib.Work(
      system=self.system,
      entries=self.entries,
      reader=clips_lib.Reader(
        self.truth.records,
        self.format,
        config,
        word_times=rows_lib.WORD_TIMES in self.rows,
        see=self.system.see,
        looks=lambda clip: [
          m.look for m in self.metrics if m.look and m.judges(clip)
        ],
      ),
      rows=self.rows,
      metrics=self.metrics,
      networks=self.networks,
      kept=self.kept,
      settings=rows_lib.Settings(
        seed=self.options.noise_seed, batch_size=self.options.batch_size
      ),
      order=np.random.default_rng(self.options.seed).permutation(
        len(self.entries)
      ),
      gallery=self.options.gallery_clips,
      folder=base,
      working=folder,
      keep_sounds=self.options.keep_sounds,
    )

  def _distance_to(self) -> str:
    """Returns what set distances are measured to; see reference.py."""
    if kind := self.options.distance_to:
      return kind
    others = len(self.truth.records) - len(self.entries)
    if self.truth.is_set or others >= len(self.entries):
      return "others"
    return "own"

  def _references(self, scores: Scores) -> dict[str, reference_lib.Reference]:
    needed = {m.embedding.id for m in self.metrics if m.needs_reference}
    networks = {k: v for k, v in self.networks.items() if k in needed}
    if self._distance_to() == "own":
      truth = scores.features(GROUND_TRUTH)
      return reference_lib.own_of(truth, networks, scores.digest)
    draw = reference_lib.Draw(
      truth=self.truth,
      judged=[entry.index for entry in self.entries],
      sounds=[entry.sha256 for entry in self.entries],
      num=max(self.options.reference_clips, len(self.entries)),
      seed=self.options.reference_seed,
    )
    return reference_lib.load(
      networks, draw, self.format, kept=self.kept, log=self.log
    )

  def _finish(self, folder, base, work, settings, start) -> dict[str, Any]:
    """Computes the results from the parts, and writes them."""
    scores = Scores.read(folder, work.num_parts)
    references = self._references(scores)
    for about in {reference.about for reference in references.values()}:
      self.log(about)
    summary = Summary(
      scores=scores,
      metrics=self.metrics,
      networks=self.networks,
      references=references,
      same_set=self.system.shuffles_sounds,
      seed=self.options.interval_seed,
    )
    rows = []
    writer = contextlib.nullcontext(lambda row, features, sounds: None)
    if self.networks:
      writer = embedded.writer(base, self.networks)
    with writer as add:
      for name in work.rows:
        row = summary.row(name, work.rows)
        add(name, row.features, scores.sounds(name))
        rows.append(dataclasses.replace(row, features=None))
      for id_, of in references.items():
        if of.sounds:
          add(embedded.REFERENCE, {id_: of.features}, of.sounds)
    if self.kept.found:
      self.log(f"{self.kept.found} embeddings were kept, not computed again")
    content = self._content(summary, rows, settings)
    work_lib.write_gallery(work, content, scores.clips)
    content["wall_seconds"] = time.monotonic() - start
    results.write(base, content)
    shutil.rmtree(folder, ignore_errors=True)
    others = [*(base / PARTS).glob("*/part_*.npz")]
    if not others:
      shutil.rmtree(base / PARTS, ignore_errors=True)
    if base != self.out:
      kept = [*(base / PARTS).rglob("*")]
      names = [path.relative_to(base).as_posix() for path in kept]
      files.upload(base, self.out, last=FILE, without=names)
      if not others:
        shutil.rmtree(base, ignore_errors=True)
    for line in [*summary.notes(), *_words(content["skipped"], self.missing)]:
      self.log(line)
    self.log(f"{self.out / FILE} in {content['wall_seconds']:.0f} s")
    return content

  def _cost(self, scores: Scores) -> dict[str, Any]:
    """Returns what making a sound takes; {} where none was made."""
    size = self.system.size
    if not (size and scores.seconds):
      return {}
    return results.describe_cost(size, scores.clips, scores.seconds)

  def _content(self, summary: Summary, rows, settings) -> dict[str, Any]:
    scores = summary.scores
    about = self.system.describe()
    of_model = {
      "noise seed": self.options.noise_seed,
      "words": "without their times",
    }
    if about["kind"] != "model":
      of_model = {}
    return results.describe_run(about) | {
      "set": results.describe_set(self.truth, scores.clips),
      "cost": self._cost(scores),
      "identity": {
        "clips": scores.digest,
        "judged at": str(self.format),
        "interval seed": self.options.interval_seed,
        **of_model,
      },
      "metrics": summary.describe(),
      "skipped": summary.skipped() | self.missing,
      "rows": [row.entry for row in rows],
      "failures": [vars(failure) for failure in scores.failures],
      "unmatched": self.unmatched,
      "notes": [*self.truth.notes, *summary.notes()],
      "seeds": self.seeds(),
      "settings": settings,
      "clips": summary.clips(rows),
    }


def _words(skipped: dict[str, str], said: dict[str, str]) -> list[str]:
  """Says which metrics are not measured, each reason once."""
  by_reason: dict[str, list[str]] = {}
  for id_, reason in skipped.items():
    if id_ not in said:
      by_reason.setdefault(reason, []).append(id_)
  return [
    f"not measured: {', '.join(ids)}: {reason}"
    for reason, ids in by_reason.items()
  ]
