"""Compiled programs on disk, so that a restart need not compile again.

Whoever can write to the folder can make a run execute code of theirs
(https://docs.jax.dev/en/latest/persistent_compilation_cache.html), so one that
others can write to is not used.
"""

import logging
import os
import pathlib
import stat

import jax

VARIABLE = "V2A_COMPILE_CACHE"
DEFAULT = "~/.cache/v2a_jax/xla"

_log = logging.getLogger(__name__)


def enable() -> str | None:
  """Makes JAX keep and find compiled programs; call it before any is compiled.

  The folder is that of V2A_COMPILE_CACHE, where `off` is none, else of
  JAX_COMPILATION_CACHE_DIR, else `~/.cache/v2a_jax/xla`, made with mode 0700. A
  bucket (`gs://...`) is taken as it is.

  Returns:
    The folder; None where it is off, or refused with a warning.
  """
  place = os.environ.get(VARIABLE) or jax.config.jax_compilation_cache_dir
  place = place or DEFAULT
  if place == "off":
    return None
  if "://" not in place:
    folder = pathlib.Path(place).expanduser()
    place = str(folder)
    if fault := _fault(folder):
      jax.config.update("jax_compilation_cache_dir", None)
      _log.warning(
        "compiled programs are not kept: %s %s; mend that, or set %s to another"
        " folder or to 'off'",
        folder,
        fault,
        VARIABLE,
      )
      return None
  jax.config.update("jax_compilation_cache_dir", place)
  return place


def _fault(folder: pathlib.Path) -> str:
  """Returns what makes a folder unfit, or ""; makes it where it is missing."""
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
  except OSError as error:
    return f"cannot be made ({error.strerror})"
  if found.st_uid != os.getuid():
    return f"belongs to another user (id {found.st_uid})"
  if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
    return f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
  return ""
