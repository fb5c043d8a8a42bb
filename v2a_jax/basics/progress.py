"""A progress line: rewritten on a terminal, printed now and then elsewhere."""

import sys
import time
from typing import TextIO

from v2a_jax.basics.text import clock

_TERMINAL_SECONDS = 0.5
_LOG_SECONDS = 20.0


class Progress:
  """Counts items, their rate and the time left.

  On a terminal the line is rewritten every half second; in a log file a line
  is added every 20 s.
  """

  def __init__(
    self,
    total: float,
    label: str,
    *,
    unit: str = "files",
    done: float = 0,
    stream: TextIO | None = None,
  ):
    """Starts the clock; `done` items do not count for the rate."""
    self._total, self._label, self._unit = total, label, unit
    self._done = self._first = done
    self._stream = stream or sys.stderr
    self._live = self._stream.isatty()
    self._began = self._written = time.monotonic()

  def update(self, count: float = 1, *, note: str = "") -> None:
    """Counts `count` more items; writes the line when it is due."""
    self._done += count
    now = time.monotonic()
    due = _TERMINAL_SECONDS if self._live else _LOG_SECONDS
    if now - self._written >= due:
      self._written = now
      line = self.line(now - self._began, note=note)
      self._stream.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
      self._stream.flush()

  def line(self, seconds: float, *, note: str = "") -> str:
    """Returns the line as it is `seconds` after the start."""
    fresh = self._done - self._first
    rate = fresh / seconds if seconds > 0 else 0.0
    left = clock((self._total - self._done) / rate) if rate else "?"
    share = self._done / max(self._total, 1)
    text = (
      f"{self._label}: {self._done:.0f}/{self._total:.0f} {self._unit} "
      f"({share:.0%}), {rate:.1f}/s, {left} left"
    )
    return f"{text}, {note}" if note else text

  def close(self) -> float:
    """Erases the line from a terminal; returns the seconds since the start."""
    if self._live:
      self._stream.write("\r\x1b[K")
      self._stream.flush()
    return time.monotonic() - self._began
