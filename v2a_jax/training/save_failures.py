"""Failures of a save by several processes, which all of them learn.

Where one process cannot write, because a disk of its own is full, Orbax lets the
others wait for it until they give up, after 20 minutes. Here it goes on to
where they wait, after it has left word in JAX's coordination service, and there
the save ends for all.
"""

from collections.abc import Iterator, Sequence
import contextlib
import json
import platform

import jax

from v2a_jax.parallel.distributed import global_state

# Part of the name of the barrier behind which nobody writes any more.
_WRITTEN = "async_write_complete"


class SaveFailed(Exception):
  """Some processes could not write; says which, and why.

  Attributes:
    where: hosts and numbers of these processes.
  """

  def __init__(self, found: Sequence[tuple[str, str]]):
    """Takes (where, why) of each process."""
    super().__init__("; ".join(f"{where}: {why}" for where, why in found))
    self.where = ", ".join(where for where, _ in found)


class Failures:
  """What went wrong in the save under way, on all processes."""

  def __init__(self):
    """Knows of no failure; all processes make one for the same saves."""
    self._save = 0

  def begin(self) -> None:
    """Notes that a save begins; all processes call it equally often."""
    self._save += 1

  @contextlib.contextmanager
  def told(self) -> Iterator[None]:
    """Keeps an error for the end of the save, if there are others to wait."""
    try:
      yield
    except Exception as error:  # Orbax and TensorStore raise many kinds.
      if jax.process_count() == 1:
        raise
      # Whole: TensorStore says at the end what the matter is.
      why = " ".join(str(error).split()) or type(error).__name__
      index = jax.process_index()
      failure = f"{platform.node()}, process {index}", why
      global_state.client.key_value_set(
        f"{self._place}{index}", json.dumps(failure), allow_overwrite=True
      )

  def barrier(self, *, key: str, timeout_ms: int) -> None:
    """Waits for all processes, as Orbax asks.

    Raises:
      SaveFailed: all have written or given up, and some have given up.
    """
    if jax.process_count() == 1:
      return
    client = global_state.client
    client.wait_at_barrier(key, timeout_ms)
    if _WRITTEN not in key:
      return
    if found := client.key_value_dir_get(self._place):
      raise SaveFailed([json.loads(text) for _, text in sorted(found)])

  @property
  def _place(self) -> str:
    return f"v2a/save/{self._save}/"
