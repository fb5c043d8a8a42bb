"""Phrases that several rooms print."""

from collections.abc import Iterable, Mapping
import difflib


def clock(seconds: float) -> str:
  """Formats a duration: `2:03` for 123 seconds, `1:02:03` for 3723."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"


def shares(seconds: Mapping[str, float], total: float) -> str:
  """Formats parts of a time: `step 91.2 %, data 3.0 %, other 5.8 %`.

  Args:
    seconds: seconds by name; those below 0.05 % are left out.
    total: all seconds; what no name has is `other`.
  """
  parts = {**seconds, "other": total - sum(seconds.values())}
  return ", ".join(
    f"{name} {100 * part / total:.1f} %"
    for name, part in parts.items()
    if part >= 0.0005 * total
  )


def did_you_mean(word: str, known: Iterable[str]) -> str:
  """Returns `, did you mean X?` for the nearest known word, or ""."""
  close = difflib.get_close_matches(word, list(known), n=1)
  return f", did you mean {close[0]}?" if close else ""


def one_of(known: Iterable[str]) -> str:
  """Joins names for an error message: `is not one of a, b, ""`."""
  return f"is not one of {', '.join(str(name) or repr('') for name in known)}"
