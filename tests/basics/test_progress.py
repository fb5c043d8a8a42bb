"""The progress line on a terminal and in a log file."""

import io

import pytest

from v2a_jax.basics import progress as progress_lib
from v2a_jax.basics.progress import Progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def now(monkeypatch):
  """A clock that is set by hand."""
  time = [100.0]
  monkeypatch.setattr(progress_lib.time, "monotonic", lambda: time[0])
  return time


def test_rate_and_time_left_are_those_of_this_run():
  """400 of 1000 are from before: 100 in 50 s leave 500, so 250 s."""
  progress = Progress(1000, "build", unit="clips", done=400)
  progress.update(100)
  assert progress.line(50.0) == (
    "build: 500/1000 clips (50%), 2.0/s, 4:10 left"
  )
  assert progress.line(50.0, note="3 dropped").endswith("left, 3 dropped")


def test_the_time_left_is_unknown_before_the_first_item():
  progress = Progress(10, "report")
  assert progress.line(5.0) == "report: 0/10 files (0%), 0.0/s, ? left"
  assert progress.line(0.0).endswith("? left")
  assert "0/0" in Progress(0, "report").line(1.0)


def test_a_log_gets_a_whole_line_now_and_then(now):
  stream = io.StringIO()
  progress = Progress(100, "build", stream=stream)
  for _ in range(90):
    now[0] += 1
    progress.update()
  lines = stream.getvalue().splitlines()
  assert [line.split()[1] for line in lines] == [
    "20/100",
    "40/100",
    "60/100",
    "80/100",
  ]
  assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()
  before = stream.getvalue()
  assert progress.close() == 90
  assert stream.getvalue() == before


def test_a_terminal_has_one_line_that_is_erased_at_the_end(now):
  stream = Terminal()
  progress = Progress(100, "build", stream=stream)
  for _ in range(10):
    now[0] += 0.2
    progress.update(note="1 dropped")
  progress.close()
  text = stream.getvalue()
  assert "\n" not in text and text.endswith("\r\x1b[K")
  shown = [line for line in text.split("\r\x1b[K") if line]
  assert [line.split()[1] for line in shown] == ["3/100", "6/100", "9/100"]
  assert all(line.endswith("1 dropped") for line in shown)
