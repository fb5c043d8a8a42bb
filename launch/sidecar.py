"""Checks of a sidecar, which anybody may have edited, before it is followed."""

from collections.abc import Mapping
import math
from typing import Any

from v2a_jax.basics.text import did_you_mean

_NUMBER = (int, float)
# Types of the values that a sidecar may hold, and the ranges of numbers.
_REQUEST = {
  "prompt": (str,),
  "negative_prompt": (str,),
  "transcript": (str,),
  "speech": (bool, None),
  "music": (bool, None),
  "effects": (bool, None),
  "num_candidates": (int, 1, 1024),
  "seed": (int, 0, 2**32 - 1),
  "duration": (*_NUMBER, None, 0, 1e6),
  "audio": (str,),
  "regenerate": (list,),
  "sampler": (dict,),
}
_DELIVERY = {
  "keep": (int, None, 1, 1e6),
  "loudness": (*_NUMBER, None, -200, 0),
  "payload": (int, 0, 65535),
  "mark": (bool,),
}
_CHECKPOINT = {"path": (str,), "step": (int, str, None, 0, 1e12)}


def check(
  request: Any, delivery: Any, checkpoint: Any, candidates: Any
) -> None:
  """Checks the parts of a sidecar that decide what is generated.

  `delivery` is without `own_key`; of the checkpoint, only what is used is
  checked.

  Raises:
    ValueError: a part or a value is of another type, a number is out of range,
      or a key is unknown; the message begins with the place.
  """
  _check_part("request", request, _REQUEST)
  _check_part("delivery", delivery, _DELIVERY)
  used = {k: checkpoint.get(k) for k in _CHECKPOINT}
  _check_part("model.checkpoint", used, _CHECKPOINT)
  for place, span in enumerate(request.get("regenerate", ())):
    if not isinstance(span, list) or len(span) != 2:
      raise ValueError(f"request.regenerate[{place}] is not a pair of seconds")
    for number in span:
      _check_value(f"request.regenerate[{place}]", number, (*_NUMBER, 0, 1e6))
  for place, row in enumerate(candidates):
    limits = _REQUEST["seed"]
    _check_value(f"candidates[{place}].seed", row["seed"], limits)
    digest = row["sha256_samples"]
    _check_value(f"candidates[{place}].sha256_samples", digest, (str,))


def _check_part(
  place: str, part: Any, allowed: Mapping[str, tuple[Any, ...]]
) -> None:
  if not isinstance(part, dict):
    raise ValueError(f"{place} is not an object")
  for key, value in part.items():
    if key not in allowed:
      near = did_you_mean(key, allowed)
      raise ValueError(f"{place}.{key[:40]}: no such key{near}")
    _check_value(f"{place}.{key}", value, allowed[key])


def _check_value(place: str, value: Any, allowed: tuple[Any, ...]) -> None:
  """Refuses a value of a type, or number out of the range, in `allowed`."""
  kinds = tuple(kind for kind in allowed if isinstance(kind, type))
  bounds = [bound for bound in allowed if isinstance(bound, _NUMBER)]
  if value is None and None in allowed:
    return
  shown = repr(value)[:60]
  if type(value) not in kinds:
    names = " or ".join(kind.__name__ for kind in kinds)
    raise ValueError(f"{place}={shown} is not of type {names}")
  if bounds and isinstance(value, _NUMBER):
    low, high = bounds
    if not (math.isfinite(value) and low <= value <= high):
      raise ValueError(f"{place}={shown} is not in [{low}, {high}]")
