"""Errors that last are logged when they begin, not each time they occur."""

import logging


class Trouble:
  """An error that may occur again and again, as on a full disk."""

  def __init__(self, log: logging.Logger):
    self._log, self._lasts = log, False

  def met(self, message: str, *args: object) -> None:
    """Logs a warning, unless one was logged since the last success."""
    if not self._lasts:
      self._log.warning(message, *args)
    self._lasts = True

  def over(self) -> None:
    """Notes a success, after which the next error is logged."""
    self._lasts = False
