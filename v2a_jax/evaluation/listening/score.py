"""What the answers to a listening test say: preferences, opinions, agreement.

Intervals resample listeners and clips at once (the pigeonhole bootstrap; Owen,
"The pigeonhole bootstrap", 2007), because neither the listeners' nor the clips'
answers are independent of each other.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from v2a_jax.basics import files
from v2a_jax.evaluation.listening.make import PAIRS, SCHEMA

_DRAWS = 4000
_SAME = "same"  # The listener has no preference.


@dataclasses.dataclass(frozen=True)
class Answer:
  """One answer of a listener.

  Attributes:
    listener: who gave it.
    clip: clip that was shown.
    systems: systems that were heard: two, or one.
    value: the system that was preferred, "same", or a rating from 1 to 5.
  """

  listener: str
  clip: str
  systems: tuple[str, ...]
  value: str | int


def score(
  key: str | pathlib.Path,
  answers: Sequence[str | pathlib.Path],
  *,
  seed: int = 0,
) -> dict[str, Any]:
  """Scores the answers to a listening test.

  Args:
    key: key of the test.
    answers: files that listeners have sent back.
    seed: random seed of the intervals.

  Returns:
    `kind`, `listeners`, `clips`, `agreement` (Krippendorff's alpha: 1 if all
    agree, 0 as by chance; None for one listener), and `rows`: of pairs `first`,
    `second`, `wins`, `losses`, `same`, and the `share` that prefers the first,
    half of `same` included; of ratings `system` and `mean`. Each has `n`, `low`
    and `high`: the ends of a 95 % interval, None for one clip and listener.

  Raises:
    ValueError: a file is not an answer to this test, or two are of one listener.
  """
  key = _read(key, "sounds", "key of a listening test")
  by_listener: dict[str, list[Answer]] = {}
  for file in answers:
    listener, own = _answers(file, key)
    if listener in by_listener:
      raise ValueError(f"{file} is of the same listener as another file")
    by_listener[listener] = own
  found = [answer for own in by_listener.values() for answer in own]
  if not found:
    raise ValueError("no answers: name the files that listeners sent back")
  rng = np.random.default_rng(seed)
  rows = _pairs if key["kind"] == PAIRS else _ratings
  return {
    "kind": key["kind"],
    "listeners": len(by_listener),
    "clips": len({answer.clip for answer in found}),
    "agreement": agreement(found),
    "rows": rows(found, key["systems"], rng),
  }


def _answers(
  file: str | pathlib.Path, key: Mapping[str, Any]
) -> tuple[str, list[Answer]]:
  """Returns the listener of a file and the answers in it."""
  given = _read(file, "answers", "file of answers")
  if given.get("test") != key["test"]:
    raise ValueError(
      f"{file} answers test {given.get('test')!r}, not {key['test']!r}"
    )
  listener = str(given.get("listener"))
  return listener, [
    _answer(row, f"{file}: answers[{i}]", listener, key)
    for i, row in enumerate(given["answers"])
  ]


def _answer(row: Any, where: str, listener: str, key) -> Answer:
  sounds = key["sounds"]
  try:
    heard = [sounds[code] for code in row["sounds"]]
    (clip,) = {sound["clip"] for sound in heard}
    value = row["value"]
    if value in row["sounds"]:
      value = sounds[value]["system"]
  except (KeyError, TypeError, ValueError) as error:
    kind = type(error).__name__
    raise ValueError(f"{where} is damaged ({kind}: {error})") from None
  systems = tuple(sound["system"] for sound in heard)
  pairs = key["kind"] == PAIRS
  if value not in ((*systems, _SAME) if pairs else range(1, 6)):
    raise ValueError(f"{where} has the value {value!r}")
  return Answer(listener, clip, systems, value)


def _read(file: str | pathlib.Path, part: str, what: str) -> dict[str, Any]:
  found = files.read_json(file)
  if found.get("schema") != SCHEMA or part not in found:
    raise ValueError(f"{file} is not a {what} of v2a listen")
  return found


def _pairs(answers, systems, rng) -> list[dict[str, Any]]:
  rows = []
  for first, second in itertools.combinations(systems, 2):
    own = [a for a in answers if set(a.systems) == {first, second}]
    if not own:
      continue
    points = [{first: 1.0, second: 0.0}.get(a.value, 0.5) for a in own]
    share, low, high = interval(points, own, rng)
    rows.append(
      {
        "first": first,
        "second": second,
        "wins": points.count(1.0),
        "losses": points.count(0.0),
        "same": points.count(0.5),
        "share": share,
        "low": low,
        "high": high,
        "n": len(own),
      }
    )
  return rows


def _ratings(answers, systems, rng) -> list[dict[str, Any]]:
  rows = []
  for system in systems:
    own = [a for a in answers if a.systems == (system,)]
    if not own:
      continue
    mean, low, high = interval([float(a.value) for a in own], own, rng)
    row = {"system": system, "mean": mean, "low": low, "high": high}
    rows.append(row | {"n": len(own)})
  return sorted(rows, key=lambda row: -row["mean"])


def interval(
  values: Sequence[float],
  answers: Sequence[Answer],
  rng: np.random.Generator,
) -> tuple[float, float | None, float | None]:
  """Returns the mean of values and the ends of its 95 % interval.

  Args:
    values: number of each answer.
    answers: the answers, which say whose they are, and of which clip.
    rng: random generator of the draws.
  """
  x = np.asarray(values, float)
  if len({(a.listener, a.clip) for a in answers}) < 2:
    return float(x.mean()), None, None
  weights = np.ones((_DRAWS, len(x)))
  for name in ("listener", "clip"):
    labels = [getattr(answer, name) for answer in answers]
    kinds, index = np.unique(labels, return_inverse=True)
    if len(kinds) > 1:
      even = np.full(len(kinds), 1 / len(kinds))
      weights *= rng.multinomial(len(kinds), even, size=_DRAWS)[:, index]
  totals = weights.sum(axis=1)
  means = (weights @ x)[totals > 0] / totals[totals > 0]
  low, high = np.percentile(means, [2.5, 97.5])
  return float(x.mean()), float(low), float(high)


def agreement(answers: Sequence[Answer]) -> float | None:
  """Returns Krippendorff's alpha of the listeners.

  Ratings are taken as an interval scale, preferences as names. None for one
  listener, or where all answers are the same.
  """
  # Here, because it is only needed once there are answers.
  import krippendorff

  listeners = sorted({answer.listener for answer in answers})
  units = sorted({(a.clip, *sorted(a.systems)) for a in answers})
  names = sorted({a.value for a in answers if isinstance(a.value, str)})
  table = np.full((len(listeners), len(units)), np.nan)
  for a in answers:
    unit = units.index((a.clip, *sorted(a.systems)))
    value = names.index(a.value) if isinstance(a.value, str) else a.value
    table[listeners.index(a.listener), unit] = value
  if len(listeners) < 2 or len(np.unique(table[np.isfinite(table)])) < 2:
    return None
  scale = "nominal" if names else "interval"
  return float(
    krippendorff.alpha(reliability_data=table, level_of_measurement=scale)
  )


def describe(scores: Mapping[str, Any]) -> list[str]:
  """Returns lines that say what was found, for people."""
  lines = [
    f"listeners: {scores['listeners']}, clips: {scores['clips']},"
    f" answers: {sum(row['n'] for row in scores['rows'])}"
  ]
  for row in scores["rows"]:
    if scores["kind"] == PAIRS:
      lines.append(
        f"{row['first']} over {row['second']}: {100 * row['share']:.0f} %"
        f"{_span(row, 100, 0)} ({row['wins']} to {row['losses']},"
        f" {row['same']} no difference)"
      )
    else:
      lines.append(
        f"{row['system']}: {row['mean']:.2f} of 5{_span(row, 1, 2)}"
        f" ({row['n']} answers)"
      )
  alpha = scores["agreement"]
  known = "not known" if alpha is None else f"{alpha:.2f}"
  lines.append(f"agreement (Krippendorff's alpha): {known}")
  return lines


def _span(row: Mapping[str, Any], scale: float, digits: int) -> str:
  if row["low"] is None:
    return ""
  low, high = scale * row["low"], scale * row["high"]
  return f" [{low:.{digits}f}, {high:.{digits}f}]"
