"""The part of a build that all sources of records share.

Items are processed in parallel and consumed in order; exact duplicates are
dropped, the others are written, counted and reported.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import hashlib
import os
import time
from typing import Any, TypeVar

from data_pipelines import beam as beam_lib
from data_pipelines import schema
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.beam import BeamOptions
from data_pipelines.manifest import find_manifest, fingerprint
from data_pipelines.places import DROPS, UNMATCHED, restore
from data_pipelines.readings import MEDIA, reading_lines
from data_pipelines.shard import BuildError, Outcome
from data_pipelines.writer import DatasetWriter, listing
from v2a_jax.basics import claim
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.basics.progress import Progress
from v2a_jax.basics.settings import check
from v2a_jax.basics.text import clock

T, R = TypeVar("T"), TypeVar("R")
Log = Callable[[str], None]
# The outcome of an item and its records.
Item = tuple[Outcome, Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
  """Options for writing a data set.

  Attributes:
    vocab_size: most pieces that a newly trained tokenizer may have.
    tokenizer: model file, or folder of a data set, whose tokenizer is used;
      empty to train one on the captions and transcripts.
    workers: files or scenes that are processed at a time.
    shard_mb: size of a shard in MiB.
    overwrite: replace a finished data set that was built differently; what it
      holds of the same files in the same form is not decoded again.
  """

  vocab_size: int = 1024
  tokenizer: str | os.PathLike = ""
  workers: int = 2
  shard_mb: float = 128.0
  overwrite: bool = False

  def __post_init__(self):
    check(self, workers="[1, inf)", shard_mb="(0, inf)")
    check(self, vocab_size=f"[{tokenizer_lib.MIN_VOCAB_SIZE}, inf)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """The items of a build and what the result depends on.

  Attributes:
    keys: names of the items, in the order in which they are written.
    unit: name of the items, in plural.
    settings: all settings that shape the records; part of the manifest.
    inputs: further JSON-able input. A build is continued, or already done, if
      keys, settings and inputs are the same.
    facts: further entries of the manifest. Items beyond a `limit` are left out,
      and a finished data set is not brought up to date with a lower one.
    origin: name of the place that the items come from. A finished data set of
      the same origin and settings is brought up to date; "" for never.
    unmatched: (line, file, reason) of the captions that were not used; None
      without a table of captions.
    description: one sentence for TFDS.
    tokenizer: model file that belongs to the items; "" to do as the output's
      options say.
  """

  keys: Sequence[str]
  unit: str
  settings: Mapping[str, Any]
  inputs: Any = None
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  origin: str = ""
  unmatched: Sequence[tuple[int, str, str]] | None = None
  description: str
  tokenizer: str | os.PathLike = ""


def assemble(
  plan: Plan,
  *,
  out: str | os.PathLike,
  make: Callable[[str], Item],
  pool: Callable[[int], futures.Executor],
  output: OutputOptions,
  log: Log,
  beam: BeamOptions = BeamOptions(),  # noqa: B008
) -> dict[str, Any]:
  """Processes all items, writes the data set and returns its manifest.

  Args:
    plan: items and settings.
    out: folder of the data set; it appears when the build is complete.
    make: maps a key to the item's outcome and records; must be picklable if the
      pool consists of processes.
    pool: maps the number of workers to an executor.
    output: how the data set is written.
    log: called with each line of the summary.
    beam: where it runs, if not in the pool.

  Raises:
    DataError: the tokenizer cannot be read.
    BuildError: nothing was kept, `out` is taken, or the disk is full.
  """
  model = None
  if given := plan.tokenizer or output.tokenizer:
    model = tokenizer_lib.Tokenizer.load(given).model
  chosen = model and hashlib.sha256(model).hexdigest()
  settings = {"vocab_size": output.vocab_size, "tokenizer": chosen}
  settings |= plan.settings
  digest = fingerprint(
    [schema.SCHEMA_VERSION, settings, output.shard_mb, plan.keys, plan.inputs]
  )
  restore(out)
  if (built := find_manifest(out)) and built.get("fingerprint") == digest:
    log(f"{out} is already built from the same input and settings")
    return built
  changes = differences(built, plan, settings) if built else ""
  with (
    _claimed(out),
    DatasetWriter(
      out,
      fingerprint=digest,
      shard_bytes=int(output.shard_mb * 2**20),
      overwrite=output.overwrite or bool(plan.origin and not changes),
      changes=changes,
      media=plan.facts.get(MEDIA),
    ) as writer,
  ):
    if writer.discarded:
      log("a build of other input or settings was interrupted; it starts anew")
    todo = [key for key in plan.keys if key not in writer.done]
    if len(todo) < len(plan.keys):
      log(f"continuing: {len(writer.done)} {plan.unit} are done already")
    began = time.monotonic()
    if beam.runner:
      items = beam_lib.run(
        make,
        plan.keys,
        done=frozenset(writer.done),
        out=out,
        digest=digest,
        options=beam,
        workers=output.workers,
        unit=plan.unit,
      )
      _write_all(writer, todo, items, plan)
    else:
      with pool(output.workers) as workers:
        items = ordered_map(make, todo, workers, ahead=2 * output.workers)
        _write_all(writer, todo, items, plan)
    seconds = time.monotonic() - began
    outcomes = [writer.done[key] for key in plan.keys]
    if model is None:
      texts = (t for o in outcomes for clip in o.clips for t in clip["texts"])
      model = tokenizer_lib.train(texts, vocab_size=output.vocab_size)
    manifest = {
      "schema_version": schema.SCHEMA_VERSION,
      "fingerprint": digest,
      "settings": settings,
      "origin": plan.origin,
      **count(outcomes),
      **plan.facts,
    }
    manifest = writer.finish(
      manifest,
      description=plan.description,
      tokenizer=model,
      unmatched=plan.unmatched,
      readings="".join(reading_lines(outcomes)),
    )
  for line in summary(manifest, out, plan.unit):
    log(line)
  if plan.origin and (built or writer.discarded):
    log(taken_over(outcomes))
  log(f"took {clock(seconds)}")
  return manifest


@contextlib.contextmanager
def _claimed(out: str | os.PathLike) -> Iterator[None]:
  """Keeps other machines from building in the same folder of an object store.

  On this machine the writer's lock does so.
  """
  if not is_remote(out):
    yield
    return
  path = as_path(out)
  try:
    with claim.held(path.with_name(path.name + ".building")):
      yield
  except claim.ClaimedError as error:
    raise BuildError(str(error)) from None


def count(outcomes: Sequence[Outcome]) -> dict[str, Any]:
  """Returns the manifest's counts; items seen = kept + dropped."""
  kept = [o for o in outcomes if o.clips]
  dropped = [o for o in outcomes if not o.clips]
  clips = [clip for o in kept for clip in o.clips]
  partly = [drop for o in kept for drop in o.drops]
  splits = Counter(clip["split"] for clip in clips)
  notes = Counter(note for o in kept for note in o.notes)
  return {
    "counts": {
      "items_seen": len(outcomes),
      "items_kept": len(kept),
      "items_dropped": len(dropped),
      "clips_kept": len(clips),
      "clips_dropped": len(partly),
      "clips_without_caption": sum(not clip["captioned"] for clip in clips),
      "seconds": round(sum(clip["seconds"] for clip in clips), 3),
    },
    "notes": dict(sorted(notes.items())),
    "splits": {s: splits[s] for s in schema.SPLITS if splits[s]},
    "drops": _reasons(o.drops[0] for o in dropped),
    "clip_drops": _reasons(partly),
  }


def summary(
  manifest: Mapping[str, Any], out: str | os.PathLike, unit: str
) -> list[str]:
  """Returns the counts of a manifest as lines of text."""
  n = manifest["counts"]
  splits = ", ".join(f"{k} {v}" for k, v in manifest["splits"].items())
  lines = [
    f"{n['items_seen']} {unit} = {n['items_kept']} kept + "
    f"{n['items_dropped']} dropped",
    f"{n['clips_kept']} clips ({splits}), {clock(n['seconds'])} in all, "
    f"{n['clips_without_caption']} without caption",
  ]
  if manifest["drops"]:
    lines.append(f"dropped {unit}: {listing(manifest['drops'])}")
  if manifest["clip_drops"]:
    lines.append(f"dropped parts: {listing(manifest['clip_drops'])}")
  if manifest["drops"] or manifest["clip_drops"]:
    lines[-1] += f"; see {os.path.join(out, DROPS)}"
  if manifest["notes"]:
    lines.append(listing(manifest["notes"]))
  if unmatched := manifest.get("rows_unmatched"):
    where = os.path.join(out, UNMATCHED)
    lines.append(f"{unmatched} rows of captions were not used; see {where}")
  size = sum(shard["bytes"] for shard in manifest["shards"]) / 2**20
  lines.append(
    f"{out}: {len(manifest['shards'])} shards, {size:.1f} MiB, vocabulary "
    f"{manifest['tokenizer']['vocab_size']}"
  )
  return lines


def differences(
  built: Mapping[str, Any], plan: Plan, settings: Mapping[str, Any]
) -> str:
  """Returns why a data set is more than out of date, such as `fps was 1, is 2`.

  Args:
    built: manifest of the data set.
    plan: plan of the new build.
    settings: settings of the new build.
  """
  old = built.get("settings", {})
  changes = [
    f"{key} was {old.get(key)}, is {settings.get(key)}"
    for key in sorted({*old, *settings})
    if old.get(key) != settings.get(key)
  ]
  if plan.origin and built.get("origin") != plan.origin:
    changes.append("another folder")
  limit, before = plan.facts.get("limit"), built.get("limit")
  if limit and (before is None or limit < before):
    changes.append(f"--limit was {before or 'not given'}, is {limit}")
  return ", ".join(changes[:3])


def taken_over(outcomes: Sequence[Outcome]) -> str:
  """Returns how many clips came from the data set that was replaced."""
  clips = [p for o in outcomes for p in o.parts if "reason" not in p]
  taken = sum("taken" in part for part in clips)
  return (
    f"{taken} clips were taken over from an earlier build, "
    f"{len(clips) - taken} were decoded"
  )


def _write_all(writer, todo, items: Iterator[Item], plan: Plan) -> None:
  """Writes the items, which come in order."""
  progress = Progress(
    len(plan.keys), "build", unit=plan.unit, done=len(plan.keys) - len(todo)
  )
  first_key = {o.sha256: o.key for o in writer.done.values() if o.clips}
  dropped = sum(not o.clips for o in writer.done.values())
  try:
    for outcome, records in items:
      if outcome.clips and outcome.sha256:
        first = first_key.setdefault(outcome.sha256, outcome.key)
        if first != outcome.key:
          drops, records = [drop("duplicate", f"same bytes as {first}")], ()
          outcome = Outcome(outcome.key, outcome.sha256, drops=drops)
      writer.add(outcome, records)
      dropped += not outcome.clips
      progress.update(note=f"{dropped} dropped" if dropped else "")
  finally:
    progress.close()


def drop(
  reason: str,
  detail: str,
  *,
  start: float | None = None,
  end: float | None = None,
) -> dict[str, Any]:
  """Returns an entry of `Outcome.drops`, which are counted by `reason`.

  `start` and `end` are the dropped stretch in seconds; None is the item's.
  """
  return {"start": start, "end": end, "reason": reason, "detail": detail}


def ordered_map(
  function: Callable[[T], R],
  items: Sequence[T],
  pool: futures.Executor,
  *,
  ahead: int,
) -> Iterator[R]:
  """Yields `function(item)` in the order of items, `ahead` calls at a time.

  `Executor.map` would hold every result that is not consumed yet.
  """
  running: deque[futures.Future] = deque()
  try:
    for item in items:
      running.append(pool.submit(function, item))
      if len(running) >= ahead:
        yield running.popleft().result()
    while running:
      yield running.popleft().result()
  finally:
    for future in running:
      future.cancel()


def _reasons(drops) -> dict[str, int]:
  counts = Counter(drop["reason"] for drop in drops)
  return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
