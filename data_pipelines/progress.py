"""A progress line: rewritten on a terminal, printed now and then elsewhere."""

import sys
import time
from typing import TextIO


class Progress:
  """Counts items and says how far it is and how long it will still take.

  On a terminal the line is rewritten every half second; in a log file a line
  comes every 20 s.
  """

  def __init__(
    self,
    total: int,
    label: str,
    *,
    unit: str = "files",
    done: int = 0,
    stream: TextIO | None = None,
  ):
    self._total, self._label, self._unit = total, label, unit
    self._done = self._first = done
    self._stream = stream or sys.stderr
    self._live = self._stream.isatty()
    self._began = self._told = time.monotonic()

  def update(self, count: int = 1, *, note: str = "") -> None:
    self._done += count
    now = time.monotonic()
    if now - self._told >= (0.5 if self._live else 20.0):
      self._told = now
      self._write(self.line(now - self._began, note=note))

  def line(self, seconds: float, *, note: str = "") -> str:
    """The line after so many seconds."""
    fresh = self._done - self._first
    rate = fresh / seconds if seconds > 0 else 0.0
    left = clock((self._total - self._done) / rate) if rate else "?"
    share = self._done / max(self._total, 1)
    text = (
      f"{self._label}: {self._done}/{self._total} {self._unit} "
      f"({share:.0%}), {rate:.1f}/s, {left} left"
    )
    return f"{text}, {note}" if note else text

  def close(self) -> float:
    """Ends the line; returns the seconds it took."""
    if self._live:
      self._stream.write("\r\x1b[K")
      self._stream.flush()
    return time.monotonic() - self._began

  def _write(self, line: str) -> None:
    self._stream.write(f"\r\x1b[K{line}" if self._live else line + "\n")
    self._stream.flush()


def clock(seconds: float) -> str:
  """
  >>> clock(3725)
  '1:02:05'
  """
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (
    f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
  )
