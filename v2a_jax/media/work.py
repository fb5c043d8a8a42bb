"""Counting of the work that decoding a file takes.

Work, not time on the clock, is limited: a busy machine refuses no file. Each
packet and each decoded pixel earns CPU time, several times what it costs on a
slow machine. So a long film may take long, while a decoder that runs without
giving frames has used up what it earned after `Limits.seconds`.
"""

from collections.abc import Callable

from v2a_jax.media.base import Limits, MediaError, more

PER_PACKET = 2e-3  # CPU seconds that a packet earns
_PER_PIXEL = 5e-8  # CPU seconds that a decoded pixel earns

# Called with CPU seconds as they are earned; child.py sets it.
on_earned: Callable[[float], None] = lambda seconds: None


class Meter:
  """Counts the pixels that are decoded from one stream."""

  def __init__(self, name: str, limits: Limits):
    self._name, self._limits, self._pixels = name, limits, 0

  def count_frame(self, pixels: int) -> None:
    """Counts one decoded frame.

    Raises:
      MediaError: all frames together are over `Limits.decoded_pixels`.
    """
    self._pixels += pixels
    if self._pixels > self._limits.decoded_pixels:
      raise MediaError(
        self._name,
        f"has over {self._limits.decoded_pixels / 1e9:,.3g} billion pixels to"
        " decode",
        f"cut it, make it smaller, or {more('decoded_pixels')}",
      )
    on_earned(_PER_PIXEL * pixels)
