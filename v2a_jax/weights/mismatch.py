"""Arrays by name that should be a model's: what does not fit, in words."""

from collections.abc import Mapping
from typing import Any


def faults(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
  """Names everything missing, extra or misshapen; "" where all fits.

  Args:
    found: anything with a `shape`, by name.
    wanted: the same of the model, or its shapes.
  """
  shape = lambda x: tuple(getattr(x, "shape", x))
  told = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
  told += [f"{name} is extra" for name in sorted(found.keys() - wanted.keys())]
  for name in sorted(wanted.keys() & found.keys()):
    have, need = shape(found[name]), shape(wanted[name])
    if have != need:
      told.append(f"{name} is {have}, the model has {need}")
  return "; ".join(told)
