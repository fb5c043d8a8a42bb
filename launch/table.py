"""Rows and numbers of the tables that commands print."""

import math

_PREFIXES = ("", "k", "M", "G", "T", "P")


def row(name: str, value: str, about: str) -> str:
  """Formats a row: a name, a value aligned to the right, what it is."""
  return f"{name:<16}  {value:>9}  {about}".rstrip()


def short(number: float, unit: str = "") -> str:
  """Formats three digits with a decimal prefix: 1.23 G."""
  power = min(int(math.log10(max(number, 1))) // 3, len(_PREFIXES) - 1)
  value = number / 1000**power
  digits = 2 - int(math.log10(max(value, 1))) if power else 0
  return f"{value:.{max(digits, 0)}f} {_PREFIXES[power]}{unit}".rstrip()
