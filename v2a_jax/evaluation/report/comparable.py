"""Whether two runs may be compared in a metric: what must be equal, is.

Runs are compared where the `identity` of the run (the judged clips, the rate,
the seeds) and that of the metric (its variant, the embedding with its digest,
the window, the reference clips) agree, and the clips that failed are the same:
who fails on hard clips is judged on easy ones. Otherwise no winner is named, and
the report says what differs.
"""

from collections.abc import Sequence
import itertools
import re

from v2a_jax.evaluation.folders import first as first_few
from v2a_jax.evaluation.report.columns import Column, models_of

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def reasons(column: Column, first: dict, second: dict) -> tuple[str, ...]:
  """Says what differs between two runs, in a metric; nothing if all agrees."""
  if first is second:
    return ()
  one, other = (_identity(column, run) for run in (first, second))
  found = []
  for key in {**one, **other}:
    # A seed of a model's noise, and the like, may be in one alone.
    if key in one and key in other and one[key] != other[key]:
      found.append(_words(key, one, other, (first, second)))
  if one.get("clips") == other.get("clips"):
    found.append(_failures(first, second))
  return tuple(dict.fromkeys(filter(None, found)))


def _identity(column: Column, run: dict) -> dict[str, str]:
  metric = run["metrics"].get(column.id) or {}
  return {**run["identity"], **metric.get("identity", {})}


def _words(key: str, one: dict, other: dict, runs: Sequence[dict]) -> str:
  """Says what differs in one part of the identity."""
  if key == "clips":
    return _clips(runs)
  if key == "reference clips":
    alike = one.get("reference") == other.get("reference")
    return "other reference clips" if alike else ""
  first, second = (_DIGEST.sub(r"\1", str(of[key])) for of in (one, other))
  return f"{key} {first} against {second}"


def _clips(runs: Sequence[dict]) -> str:
  counts = [run["set"].get("n", 0) for run in runs]
  failed = [len(run.get("failures", ())) for run in runs]
  if counts[0] == counts[1]:
    return "other clips, or other lengths of them"
  texts = [
    f"{count}" + (f" ({lost} failed)" if lost else "")
    for count, lost in zip(counts, failed)
  ]
  return f"{texts[0]} clips against {texts[1]}"


def _failures(first: dict, second: dict) -> str:
  """Says which clips failed, where not the same did."""
  failed = []
  for run in (first, second):
    failures = (model.get("failures", ()) for model in models_of(run))
    failed.append(sorted({f["id"] for of in failures for f in of}))
  if failed[0] == failed[1]:
    return ""
  named = [f"{len(ids)} ({first_few(ids)})" if ids else "" for ids in failed]
  count, _, names = named[0].partition(" ")
  one = f"{count} clips failed {names}" if named[0] else "no clip failed"
  return f"{one} against {named[1] or 'none'}"


def alike(
  column: Column, runs: Sequence[dict], indices: Sequence[int]
) -> list[int]:
  """Returns the most runs that may all be compared, in the given order."""
  groups: list[list[int]] = []
  for i in indices:
    for group in groups:
      if not any(reasons(column, runs[j], runs[i]) for j in group):
        group.append(i)
        break
    else:
      groups.append([i])
  return max(groups, key=len, default=[])


def not_compared(
  runs: Sequence[dict], columns: Sequence[Column]
) -> list[tuple[str, tuple[str, ...]]]:
  """Says which runs are not compared and why: (lead, labels of the metrics).

  There are no labels where it is all metrics.
  """
  sentences = []
  for first, second in itertools.combinations(runs, 2):
    both = [
      c for c in columns if all(c.id in r["metrics"] for r in (first, second))
    ]
    found = {c.label: reasons(c, first, second) for c in both}
    names = f"{first['name']} and {second['name']}"
    # What is said of all metrics is not said again of each.
    common = [r for r in next(iter(found.values()), ()) if _in_all(r, found)]
    if common:
      lead = f"{names} are not compared on any metric: {'; '.join(common)}"
      sentences.append((lead, ()))
    for why in dict.fromkeys(found.values()):
      own = [reason for reason in why if reason not in common]
      if own:
        labels = tuple(label for label, of in found.items() if of == why)
        also = "differ further" if common else "are not compared"
        sentences.append((f"{names} {also} ({'; '.join(own)}) on", labels))
  return sentences


def _in_all(reason: str, found: dict[str, tuple[str, ...]]) -> bool:
  return all(reason in of for of in found.values())
