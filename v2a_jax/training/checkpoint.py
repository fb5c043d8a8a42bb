"""Checkpoints: when they are saved, kept, verified and restored.

A checkpoint is a folder `<workdir>/checkpoints/<step>` with the items `weights`
and `state` (arrays, named by their path in the train state), `data` and `meta`
(JSON), and `sha256.json`, the digests of all their files. The digests are
written before a checkpoint counts as one, and verified before anything is
restored: Orbax itself restores flipped bits without a word. Processes share the
work of both.

Orbax writes to the workdir, or to a folder of this machine, from which
checkpoints are copied (copies.py). Only this file and checkpoint_arrays.py
import it.

Arrays are restored into whatever layout is asked for, so a run may continue on
another mesh, another number of devices or of processes.
"""

from collections.abc import Callable, Mapping
import contextlib
import hashlib
import logging
import pathlib
import sys
import tempfile
import time
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from v2a_jax.basics.paths import local_path
from v2a_jax.training import checkpoint_arrays, copies, digests
from v2a_jax.training.checkpoint_arrays import CheckpointError
from v2a_jax.training.copies import Mirror
from v2a_jax.training.digests import find_damage, list_steps
from v2a_jax.training.restore import (
  Restored,
  checkpoint_root,
  read_json,
  read_score,
)
from v2a_jax.training.retention import Retention
from v2a_jax.training.save_failures import Failures, SaveFailed
from v2a_jax.training.state import TrainState
from v2a_jax.weights import names

_log = logging.getLogger(__name__)
_STORAGE_ERRORS = {
  "no space left": "the disk is full",
  "quota": "the disk quota is used up",
  "file too large": "a file is larger than allowed",
  "read-only file system": "the disk is read-only",
  "input/output error": "the disk fails",
}
# Orbax logs hundreds of lines of threads' tracebacks for an error that it also
# raises, and that is reported here in one.
logging.getLogger("absl").addFilter(lambda r: "orbax" not in r.pathname)
# asyncio logs it again, for each file of the save after the first that failed.
logging.getLogger("asyncio").addFilter(
  lambda r: "orbax-checkpoint-tmp" not in r.getMessage()
)


def _without_late_writes(hook: Callable[[Any], None]) -> Callable[[Any], None]:
  """Wraps `sys.unraisablehook`, which gets the errors of TensorStore's threads.

  Where one file of a save fails, Orbax closes the event loop that all of them
  report to, and each of the others would print a traceback of that.
  """

  def report(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
      hook(unraisable)

  return report


sys.unraisablehook = _without_late_writes(sys.unraisablehook)


class Checkpoints:
  """Saves in the background and restores the newest sound checkpoint."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep: Retention | None = None,
    local: epath.PathLike = "",
  ):
    """Opens or makes `<workdir>/checkpoints`.

    Args:
      workdir: the run's folder, seen by all processes.
      keep: which checkpoints are kept; None for the newest three.
      local: folder of this machine to save to; the copy to the workdir goes on
        in the background. "" for one in the folder of temporary files if Orbax
        cannot write to the workdir (s3://), else for none.
    """
    self.root = self._folder = checkpoint_root(workdir)
    self.root.mkdir(parents=True, exist_ok=True)
    self._keep = keep or Retention()
    self._scores = {}
    self._pending: int | None = None
    self._good: int | None = None
    self._failures = Failures()
    self._mirror = None
    if local or str(self.root).startswith("s3://"):
      self._folder = _local_folder(local, self.root)
      self._mirror = Mirror(self._folder, self.root, self._make_room)
      self._mirror.finish()
    else:
      self._remove_unfinished()
    digests.check_files(self._folder)
    multihost_utils.sync_global_devices("checkpoints: nothing is unfinished")
    self._manager = self._open_manager()

  def _open_manager(self) -> ocp.CheckpointManager:
    # Each process is on its own where each has a folder of its own.
    primary = None if self._mirror else 0
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self,
      cleanup_tmp_directories=True,
      async_options=ocp.AsyncOptions(
        barrier_sync_fn=self._failures.barrier,
        post_finalization_callback=self._write_digests,
        # Else a process takes another's word that the folders are made, and
        # writes into one that its own disk does not have yet.
        create_directories_asynchronously=self._mirror is None,
      ),
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=primary
      ),
    )
    return ocp.CheckpointManager(
      self._folder,
      options=options,
      item_handlers=checkpoint_arrays.make_handlers(
        self._failures, primary=primary
      ),
    )

  def save(
    self,
    step: int,
    state: TrainState,
    *,
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
    validation: Mapping[str, float] | None = None,
    good: int | None = None,
  ) -> None:
    """Starts saving; returns once the arrays are copied off the device.

    A full or failing disk is reported in one line and training goes on: the
    previous checkpoints stay, and the next call tries again.

    Args:
      step: number of steps done.
      state: the train state.
      data: position in the data, JSON-able.
      meta: further facts, JSON-able.
      validation: validation results of this step; without them the checkpoint
        is not ranked (see `Retention`).
      good: newest step whose weights have proven good; of the checkpoints up to
        it the newest is kept, whatever the other rules say. None if nothing is
        known.
    """
    self._good = good
    self._guard(self._manager.wait_until_finished)
    if self._mirror:
      # Orbax keeps the two newest: one is being copied, one is being saved.
      self._mirror.wait(keep=1)
    if step in list_steps(self.root) or step in list_steps(self._folder):
      return
    self._scores[step] = score = self._keep.score(validation)
    meta = {**meta, "score": score} if score else dict(meta)
    items = ocp.args.Composite(
      **checkpoint_arrays.items_of(state),
      data=checkpoint_arrays.JsonSave(dict(data)),
      meta=checkpoint_arrays.JsonSave(meta),
    )
    self._pending = step
    self._failures.begin()
    if self._mirror:
      self._mirror.announce(step)
    save = lambda: self._manager.save(step, args=items, force=True)
    if self._guard(save) and self._mirror:
      self._mirror.start(step, self._manager.is_saving_in_progress)

  def wait(self) -> bool:
    """Waits for saves and copies; False if one failed (and was reported)."""
    saved = self._guard(self._manager.wait_until_finished)
    copied = self._mirror is None or self._mirror.wait()
    return saved and copied

  def check(self) -> bool:
    """Reports a failed save without waiting.

    Several processes, which would come to know at different steps, report it
    together before the next save.
    """
    if jax.process_count() > 1:
      return True
    return self._guard(self._manager.check_for_errors)

  def close(self) -> None:
    self.wait()
    self._manager.close()
    if self._mirror:
      self._mirror.close()

  def steps(self) -> list[int]:
    """Returns the steps that have been saved completely, on all processes."""
    return copies.agreed(list_steps(self.root))

  def latest_step(self) -> int | None:
    """Returns the newest step that has been saved completely, or None."""
    return max(list_steps(self.root), default=None)

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Says for each saved checkpoint whether it stays; Orbax asks."""
    steps = [info.step for info in checkpoints]
    kept = set(steps[-2:]) if self._mirror else self._kept(steps)
    return [step in kept for step in steps]

  def _kept(self, steps: list[int]) -> set[int]:
    for step in steps:
      if step not in self._scores:
        self._scores[step] = read_score(self.root / str(step))
    kept = self._keep.kept({step: self._scores[step] for step in steps})
    proven = [step for step in steps if step <= (self._good or -1)]
    return kept | set(sorted(proven)[-1:])

  def _make_room(self) -> None:
    """Removes what need not be kept, after a copy."""
    steps = list_steps(self.root)
    for step in set(steps) - self._kept(steps):
      copies.remove(self.root / str(step))

  def restore(self, abstract_state: TrainState, shardings: Any) -> Restored:
    """Restores the newest sound checkpoint into `shardings`.

    A damaged one is named, moved to `<workdir>/damaged`, and the one before it
    is taken.

    Args:
      abstract_state: shapes of the train state.
      shardings: layout of each leaf.

    Raises:
      CheckpointError: if none is sound, or one has another shape.
    """
    step, folder = self._agree_on_sound_step()
    path = self.root / str(step)
    target = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      abstract_state,
      shardings,
    )
    named = names.flatten(target)
    saved = checkpoint_arrays.read_shapes(folder)
    checkpoint_arrays.compare(path, saved, named)
    arrays = checkpoint_arrays.read_arrays(folder, named)
    restored = Restored(
      step=step,
      path=path,
      state=names.fill(target, arrays),
      data=read_json(folder, "data"),
      meta=read_json(folder, "meta"),
      sha256=digests.identity(folder),
    )
    if folder != path:
      folder.rmtree()
    return restored

  def _agree_on_sound_step(self) -> tuple[int, epath.Path]:
    """Returns the newest step that all processes find sound, and its folder.

    Each looks at its share of the files or, where they are copied to this
    machine, at all. Damaged checkpoints are moved out of the way.
    """
    index, count = jax.process_index(), jax.process_count()
    for step in copies.agreed(list_steps(self.root)):
      folder = path = self.root / str(step)
      if self._mirror:
        near = self._folder / str(step)
        folder = self._folder.with_name(f"restored_{index}")
        reason = copies.fetch(path, folder, near=near)
      else:
        reason = find_damage(path, index=index, count=count)
      reason = _first_reason(reason)
      if reason is None:
        self._manager.reload()
        return step, checkpoint_arrays.merge(folder)
      if index == 0:
        self._quarantine(step, f"is damaged ({reason})")
    raise CheckpointError(
      f"{self.root}: no sound checkpoint is left; the damaged ones are in"
      f" {self.root.parent / 'damaged'}. Use another --workdir to start"
      " again"
    )

  def set_aside(self, *, after: int) -> int | None:
    """Moves the checkpoints after a step to `<workdir>/damaged`.

    All processes call it. What is being saved is waited for.

    Returns:
      The newest step that is left, or None.
    """
    self.wait()
    steps = self.steps()
    late = [step for step in steps if step > after]
    if jax.process_index() == 0:
      for step in late:
        self._quarantine(step, "is suspect: bad steps followed")
    if self._mirror:
      for step in late:
        (self._folder / str(step)).rmtree(missing_ok=True)
    multihost_utils.sync_global_devices("checkpoints: suspect ones are aside")
    self._manager.reload()
    return max(set(steps) - set(late), default=None)

  def _quarantine(self, step: int, fault: str) -> None:
    place = self.root.parent / "damaged"
    place.mkdir(exist_ok=True)
    names = digests.list_names(place)
    taken = sum(name.partition(".")[0] == str(step) for name in names)
    target = place / (f"{step}.{taken}" if taken else str(step))
    copies.move(self.root / str(step), target)
    _log.warning(
      "checkpoint %s %s; moved to %s, falling back to the one before it",
      self.root / str(step),
      fault,
      target,
    )

  def _write_digests(self) -> None:
    """Runs when all is written but the final name, where Orbax gives it."""
    for folder in self._unfinished(self._folder, self._pending):
      digests.write_digests(folder, processes=jax.process_count())

  def _unfinished(self, root: epath.Path, step: int | None) -> list[epath.Path]:
    """Returns the folder of a save under way, as a list of one or none.

    An object store has only final names; there a folder without digests is
    unfinished.
    """
    starts = (f"{step}.orbax-checkpoint-tmp", f"{step}{copies.COPYING}")
    complete = list_steps(root)
    return [
      root / name
      for name in digests.list_names(root)
      if name.startswith(starts) or (name == str(step) and step not in complete)
    ]

  def _guard(self, action: Callable[[], Any]) -> bool:
    """Runs `action`; a storage error is reported and leaves a new manager."""
    try:
      action()
      return True
    except Exception as error:  # Orbax and TensorStore raise many kinds.
      text = str(error).lower()
      known = [v for k, v in _STORAGE_ERRORS.items() if k in text]
      if not known:
        raise
      where = f" on {error.where}" if isinstance(error, SaveFailed) else ""
      _log.warning(
        "checkpoint %s could not be saved: %s%s. The previous checkpoints are"
        " kept, training goes on, and the next interval tries again",
        self.root / str(self._pending),
        known[0],
        where,
      )
    self._discard(self._pending)
    self._manager = self._open_manager()
    return False

  def _discard(self, step: int | None) -> None:
    """Removes what a failed save left behind."""
    if jax.process_index() == 0 or self._mirror:
      for folder in self._unfinished(self._folder, step):
        _remove(folder)
    if jax.process_index() == 0:
      for folder in self._unfinished(self.root, step):
        _remove(folder)

  def _remove_unfinished(self) -> None:
    """Removes what a killed process left on an object store.

    Orbax does it for local folders, and knows nothing of digests.
    """
    if digests.is_remote(self.root) and jax.process_index() == 0:
      for folder in copies.unfinished(self.root).values():
        copies.remove(folder)


def _remove(folder: epath.Path) -> None:
  """Removes the folder of a failed save, to which threads may still write."""
  for seconds in (0.0, 0.1, 0.5, 2.0):
    time.sleep(seconds)
    with contextlib.suppress(OSError):
      folder.rmtree(missing_ok=True)
      return
  _log.warning("%s, of a save that failed, cannot be removed", folder)


def _local_folder(local: epath.PathLike, root: epath.Path) -> epath.Path:
  """Returns the folder that this process saves to, of this run alone."""
  place = local or pathlib.Path(tempfile.gettempdir(), "v2a_jax")
  place = local_path(place, "config.checkpoint_dir")
  run = hashlib.sha256(str(root).encode()).hexdigest()[:16]
  folder = epath.Path(place.absolute()) / run / f"process_{jax.process_index()}"
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def _first_reason(reason: str | None) -> str | None:
  """Returns the reason of the first process that has one; None if none has."""
  text = (reason or "").encode()[:200].ljust(200)
  every = multihost_utils.process_allgather(np.frombuffer(text, np.uint8))
  rows = [bytes(row).decode(errors="replace") for row in every.reshape(-1, 200)]
  return next((row.strip() for row in rows if row.strip()), None)
