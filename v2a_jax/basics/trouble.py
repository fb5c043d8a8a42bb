"""Trouble that lasts: logged when it begins, not each time that it is met."""

import logging


class Trouble:
  """What fails again and again until it is over, as on a full disk."""

  def __init__(self, log: logging.Logger):
    self._log, self._lasts = log, False

  def met(self, message: str, *args: object) -> None:
    """Logs a warning, unless the trouble has lasted since the last one."""
    if not self._lasts:
      self._log.warning(message, *args)
    self._lasts = True

  def over(self) -> None:
    """Notes that it went well, so that the next trouble is logged."""
    self._lasts = False
