"""Copies of checkpoints between this machine and the workdir's storage.

Saving to this machine is fast; the copy goes on in the background. Each process
saves to a folder of its own and copies what it wrote there, and process 0
writes `sha256.json` when all have done so, last. What has no digests is not a
checkpoint, wherever the copy was interrupted.
"""

from collections.abc import Callable, Collection
import concurrent.futures
import hashlib
import logging
import os
import shutil
import time

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np

from v2a_jax.basics.files import sha256_of
from v2a_jax.training import digests
from v2a_jax.training.digests import DIGESTS, is_remote, list_names

# On object stores a copy under way has its final name; elsewhere this after it.
COPYING = ".copying"
_THREADS = 8
_POLL_SECONDS = 0.05
# How long process 0 waits for the others to copy their part.
_PATIENCE_SECONDS = 3600

_log = logging.getLogger(__name__)


def copy_file(source: epath.Path, target: epath.Path) -> str:
  """Copies a file between any two kinds of storage; returns its sha256."""
  digest = hashlib.sha256()
  if not is_remote(target):
    target.parent.mkdir(parents=True, exist_ok=True)
  with source.open("rb") as reader, target.open("wb") as writer:
    while block := reader.read(1 << 24):
      digest.update(block)
      writer.write(block)
  return digest.hexdigest()


def move(source: epath.Path, target: epath.Path) -> None:
  """Moves a checkpoint's folder; half of it never passes for a checkpoint."""
  if not is_remote(source):
    source.rename(target)
    return
  names = list(digests.list_files(source))
  for name in names:
    copy_file(source / name, target / name)
  remove(source)


def remove(folder: epath.Path) -> None:
  """Removes a checkpoint's folder, its digests first."""
  (folder / DIGESTS).unlink(missing_ok=True)
  folder.rmtree(missing_ok=True)


def fetch(
  source: epath.Path,
  target: epath.Path,
  *,
  items: Collection[str] | None = None,
  near: epath.Path | None = None,
) -> str | None:
  """Copies a checkpoint to this machine and verifies what arrives.

  Args:
    source: folder of the checkpoint.
    target: local folder; made anew.
    items: items to copy; None for all.
    near: local folder that may hold some of the files already.

  Returns:
    What is wrong with the checkpoint, or None.
  """
  target.rmtree(missing_ok=True)
  target.mkdir(parents=True)
  try:
    expected = digests.read_digests(source)
    copy_file(source / DIGESTS, target / DIGESTS)
  except (OSError, ValueError) as error:
    return str(error)[:200]

  def fault(name: str) -> str | None:
    if near is not None and _is(near / name, expected[name]):
      (target / name).parent.mkdir(parents=True, exist_ok=True)
      os.link(near / name, target / name)
      return None
    try:
      found = copy_file(source / name, target / name)
    except OSError as error:
      return f"{name} cannot be read ({error})"
    return None if found == expected[name] else f"{name} lacks its sha256"

  wanted = [
    x for x in sorted(expected) if not items or x.split("/")[0] in items
  ]
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return next(filter(None, pool.map(fault, wanted)), None)


def _is(path: epath.Path, digest: str) -> bool:
  return path.exists() and sha256_of(path) == digest


def unfinished(root: epath.Path) -> dict[int, epath.Path]:
  """Returns the folders of interrupted copies, by step."""
  mark = "" if is_remote(root) else COPYING
  names = [name for name in list_names(root) if name.endswith(mark)]
  found = {name.removesuffix(mark): root / name for name in names}
  return {
    int(step): folder
    for step, folder in found.items()
    if step.isdigit() and not (folder / DIGESTS).exists()
  }


class Mirror:
  """Copies one checkpoint after the other to where they are to be kept."""

  def __init__(
    self,
    local: epath.Path,
    root: epath.Path,
    copied: Callable[[], None],
  ):
    """Starts nothing yet.

    Args:
      local: folder of this process, in which it has saved checkpoints.
      root: folder of the run's checkpoints.
      copied: is called on process 0 after each copy.
    """
    self._local, self._root, self._copied = local, root, copied
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._copies = {}

  def target(self, step: int) -> epath.Path:
    """Returns the folder that a step is copied to, before it is whole."""
    mark = "" if is_remote(self._root) else COPYING
    return self._root / f"{step}{mark}"

  def announce(self, step: int) -> None:
    """Leaves a mark that a step is to be copied, for the case of a crash."""
    if jax.process_index() == 0:
      if not is_remote(self._root):
        self.target(step).mkdir(parents=True, exist_ok=True)
      (self.target(step) / "announced").write_text("")

  def start(self, step: int, is_saving: Callable[[], bool]) -> None:
    """Copies a step as soon as it is saved."""
    self._copies[step] = self._pool.submit(self._follow, step, is_saving)

  def wait(self, *, keep: int = 0) -> bool:
    """Waits for all copies but the `keep` newest; False if one failed."""
    steps = sorted(self._copies)
    done = steps[: len(steps) - keep]
    return all([self._copies.pop(step).result() for step in done])

  def close(self) -> None:
    self._pool.shutdown()

  def _follow(self, step: int, is_saving: Callable[[], bool]) -> bool:
    while is_saving():
      time.sleep(_POLL_SECONDS)
    if step not in digests.list_steps(self._local):
      return False  # Whoever waits for the save reports why.
    try:
      self.copy(step)
      return True
    except Exception as error:  # Clients of stores raise many kinds.
      _log.warning(
        "checkpoint %s is on this machine, but could not be copied to %s (%s)."
        " Training goes on, and the next one is copied as usual",
        self._local / str(step),
        self._root,
        str(error).splitlines()[0][:200] if str(error) else repr(error),
      )
      return False

  def copy(self, step: int) -> None:
    """Copies what this process saved; process 0 makes it a checkpoint.

    Raises:
      OSError: it cannot be copied, or others do not copy their part.
    """
    source, target = self._local / str(step), self.target(step)
    index, count = jax.process_index(), jax.process_count()
    files = digests.read_digests(source)
    own = {x: files[x] for x in files if _is_own(x, index)}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      copied = pool.map(lambda x: copy_file(source / x, target / x), own)
      for name, found in zip(own, copied):
        if found != own[name]:
          raise OSError(f"{source / name} does not have its sha256")
    if index > 0:
      digests.write(target / _part(index), own, processes=count)
      return
    parts = [target / _part(i) for i in range(1, count)]
    _wait_for(parts)
    for part in parts:
      own |= digests.read(part)
    digests.write(target / DIGESTS, own, processes=count)
    for path in [*parts, target / "announced"]:
      path.unlink(missing_ok=True)
    if not is_remote(target):
      target.rename(self._root / str(step))
    self._copied()

  def finish(self) -> None:
    """Finishes or removes what the last run did not copy to the end.

    All processes must have saved the step, and as many as there are now. A
    copy that lacks nothing but its name gets it.
    """
    if jax.process_index() == 0 and not is_remote(self._root):
      for folder in self._root.glob(f"*{COPYING}"):
        if (folder / DIGESTS).exists():
          folder.rename(self._root / folder.name.removesuffix(COPYING))
    multihost_utils.sync_global_devices("copies: whole ones have their names")
    for step in agreed(sorted(unfinished(self._root), reverse=True)):
      found = self._local / str(step)
      sound = (
        digests.find_damage(found) is None
        and digests.count_processes(found) == jax.process_count()
      )
      folder = self.target(step)
      if _all_agree(sound):
        _log.warning("checkpoint %s: its copy is finished now", found)
        self.copy(step)
      elif jax.process_index() == 0:
        remove(folder)
    kept = set(digests.list_steps(self._root))
    for step in set(digests.list_steps(self._local)) - kept:
      shutil.rmtree(self._local / str(step))


def _part(index: int) -> str:
  return f"sha256.process_{index}.json"


def _is_own(name: str, index: int) -> bool:
  """Says whether a file is this process's to copy."""
  own = {f"ocdbt.process_{index}", f"process_{index}"}
  return index == 0 or bool(own & set(name.split("/")))


def _wait_for(paths: list[epath.Path]) -> None:
  began = time.monotonic()
  for path in paths:
    while not path.exists():
      if time.monotonic() - began > _PATIENCE_SECONDS:
        raise TimeoutError(f"{path} has not been written by its process")
      time.sleep(_POLL_SECONDS)


def agreed(steps: list[int]) -> list[int]:
  """Returns the steps that process 0 sees, on all processes."""
  share = multihost_utils.broadcast_one_to_all
  count = int(share(np.int32(len(steps))))
  if not count:
    return []
  return share(np.resize(np.asarray(steps or [0], np.int32), count)).tolist()


def _all_agree(value: bool) -> bool:
  return bool(multihost_utils.process_allgather(np.asarray(value)).all())
