"""Checkpoints: the only door to Orbax.

A checkpoint is a folder `<workdir>/checkpoints/<step>` with the items `state`
(arrays, named by their path in the train state), `data` and `meta` (JSON), and
`sha256.json`, the digests of all their files. The digests are written before
the folder gets its final name, and verified before anything is restored:
Orbax itself restores flipped bits without a word.

Arrays are restored into whatever layout is asked for, so a run may continue on
another mesh, another number of devices or of processes.
"""

from collections.abc import Callable, Mapping
import dataclasses
import json
import logging
import pathlib
import shutil
from typing import Any

from flax import nnx, traverse_util
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from v2a_jax.training import digests
from v2a_jax.training.digests import find_damage, list_steps
from v2a_jax.training.state import TrainState, abstract_model
from v2a_jax.weights import names


class CheckpointError(Exception):
  """A checkpoint is missing, damaged, of another shape, or cannot be saved."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
  """What a checkpoint held.

  Attributes:
    step: the number of training steps behind it.
    path: its folder.
    state: the train state, in `restore`; else {"params", "buffers"}, numpy
      arrays by name, of which `params` may be the average.
    data: the data position, as saved.
    meta: as saved; the loop adds `train_seconds` and `clips_seen`.
    sha256: digest of `sha256.json`, which identifies the checkpoint's contents.
  """

  step: int
  path: pathlib.Path
  state: Any
  data: Mapping[str, Any]
  meta: Mapping[str, Any]
  sha256: str


class Checkpoints:
  """Saves in the background and restores the newest sound checkpoint."""

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    keep: int = 3,
    keep_period: int | None = None,
  ):
    """Opens or makes `<workdir>/checkpoints`.

    Args:
      workdir: the run's folder, seen by all processes.
      keep: number of newest checkpoints to keep.
      keep_period: also keep each step that is a multiple of it, for good.
    """
    self.root = checkpoint_root(workdir)
    self.root.mkdir(parents=True, exist_ok=True)
    policies = ocp.checkpoint_managers
    preserve = [policies.LatestN(keep)]
    if keep_period:
      preserve.append(policies.EveryNSteps(keep_period))
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy(preserve),
      cleanup_tmp_directories=True,
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._write_digests
      ),
    )
    self._pending: int | None = None
    self._manager = ocp.CheckpointManager(self.root, options=self._options)

  def save(
    self,
    step: int,
    state: TrainState,
    *,
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
  ) -> None:
    """Starts saving; returns once the arrays are copied off the device.

    A full or failing disk is reported in one line and training goes on: the
    previous checkpoints stay, and the next call tries again.
    """
    self.wait()
    if step in list_steps(self.root):
      return
    items = ocp.args.Composite(
      state=ocp.args.PyTreeSave(
        traverse_util.unflatten_dict(names.flatten(state))
      ),
      data=ocp.args.JsonSave(dict(data)),
      meta=ocp.args.JsonSave(dict(meta)),
    )
    self._pending = step
    self._guard(lambda: self._manager.save(step, args=items, force=True))

  def wait(self) -> bool:
    """Waits for the save under way; False if it failed (and was reported)."""
    return self._guard(self._manager.wait_until_finished)

  def check(self) -> bool:
    """Reports a failed save without waiting."""
    return self._guard(self._manager.check_for_errors)

  def close(self) -> None:
    self.wait()
    self._manager.close()

  def latest_step(self) -> int | None:
    """Returns the newest step that has been saved completely, or None."""
    return max(list_steps(self.root), default=None)

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
    while True:
      step = self._agree_on_sound_step()
      path = self.root / str(step)
      target = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract_state,
        shardings,
      )
      named = names.flatten(target)
      _compare(path, _read_shapes(path), named)
      return Restored(
        step=step,
        path=path,
        state=names.fill(target, _read_state(path, named)),
        data=_read_json(path, "data"),
        meta=_read_json(path, "meta"),
        sha256=digests.identity(path),
      )

  def _agree_on_sound_step(self) -> int:
    """Process 0 verifies; damaged checkpoints are moved out of the way."""
    step = -1
    if jax.process_index() == 0:
      for candidate in list_steps(self.root):
        if (reason := find_damage(self.root / str(candidate))) is None:
          step = candidate
          break
        self._quarantine(candidate, reason)
    step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    self._manager.reload()
    if step < 0:
      raise CheckpointError(
        f"{self.root}: no sound checkpoint is left; the damaged ones are in"
        f" {self.root.parent / 'damaged'}. Use another --workdir to start"
        " again"
      )
    return step

  def _quarantine(self, step: int, reason: str) -> None:
    place = self.root.parent / "damaged"
    place.mkdir(exist_ok=True)
    taken = len(list(place.glob(f"{step}*")))
    target = place / (f"{step}.{taken}" if taken else str(step))
    shutil.move(self.root / str(step), target)
    _log.warning(
      "checkpoint %s is damaged (%s); moved to %s, falling back to the one"
      " before it",
      self.root / str(step),
      reason,
      target,
    )

  def _write_digests(self) -> None:
    """Runs in the background, when all is written but the final name."""
    if jax.process_index() == 0:
      for folder in self.root.glob(f"{self._pending}.orbax-checkpoint-tmp*"):
        digests.write_digests(folder)

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
      _log.warning(
        "checkpoint %s could not be saved: %s. The previous checkpoints are"
        " kept, training goes on, and the next interval tries again",
        self.root / str(self._pending),
        known[0],
      )
    self._discard(self._pending)
    self._manager = ocp.CheckpointManager(self.root, options=self._options)
    return False

  def _discard(self, step: int | None) -> None:
    """Removes what a failed save left behind."""
    if jax.process_index() == 0:
      for folder in self.root.glob(f"{step}.orbax-checkpoint-tmp*"):
        shutil.rmtree(folder, ignore_errors=True)


def checkpoint_root(workdir: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(workdir).absolute() / "checkpoints"


def restore_params(
  workdir: str | pathlib.Path, *, step: int | None = None, ema: bool = True
) -> Restored:
  """Reads a model's weights for use, without the optimizer.

  Args:
    workdir: the run's folder.
    step: which checkpoint; None for the newest sound one.
    ema: read the average instead of the weights, if the run kept one.

  Returns:
    `Restored`, whose `state` has numpy arrays by name under `params` and
    `buffers` (see `restore_model` for a module).

  Raises:
    CheckpointError: if there is none, or the one asked for is damaged.
  """
  path = _find_sound(checkpoint_root(workdir), step)
  saved = _read_shapes(path)
  averaged = ema and any(name[0] == "ema" for name in saved)
  wanted = ("ema" if averaged else "params", "buffers")
  target = {name: leaf for name, leaf in saved.items() if name[0] in wanted}
  arrays = _read_state(path, target) if target else {}
  under = lambda top: {k[1:]: v for k, v in arrays.items() if k[0] == top}
  return Restored(
    step=int(path.name),
    path=path,
    state={"params": under(wanted[0]), "buffers": under("buffers")},
    data=_read_json(path, "data"),
    meta=_read_json(path, "meta"),
    sha256=digests.identity(path),
  )


def restore_model(
  workdir: str | pathlib.Path,
  make_model: Callable[[nnx.Rngs], nnx.Module],
  *,
  step: int | None = None,
  ema: bool = True,
) -> tuple[nnx.Module, Restored]:
  """Returns the trained module and where it came from.

  Raises:
    CheckpointError: as `restore_params`, or if a shape is not the model's.
  """
  restored = restore_params(workdir, step=step, ema=ema)
  graphdef, params, buffers = abstract_model(make_model)
  parts = []
  for part, abstract in (("params", params), ("buffers", buffers)):
    arrays = restored.state[part]
    prefixed = lambda named, part=part: {
      (part, *k): v for k, v in named.items()
    }
    wanted = prefixed(names.flatten(abstract))
    _compare(restored.path, prefixed(arrays), wanted)
    to_jax = lambda array, _: jax.numpy.asarray(array)
    parts.append(names.fill(abstract, arrays, to_jax))
  return nnx.merge(graphdef, *parts), restored


def _find_sound(root: pathlib.Path, step: int | None) -> pathlib.Path:
  """Returns the folder of `step`, or of the newest sound checkpoint."""
  steps = list_steps(root)
  if not steps:
    raise CheckpointError(
      f"{root}: no checkpoint there; train first, or name another workdir"
    )
  if step is not None and step not in steps:
    raise CheckpointError(f"{root}: no step {step}; there are {steps[::-1]}")
  for candidate in steps if step is None else [step]:
    path = root / str(candidate)
    if (reason := find_damage(path)) is None:
      return path
    _log.warning("checkpoint %s is damaged (%s)", path, reason)
  raise CheckpointError(f"{path}: damaged ({reason}); use another checkpoint")


def _read_shapes(path: pathlib.Path) -> dict[tuple[str, ...], Any]:
  """Returns {name: shape and type} of a checkpoint, without its arrays."""
  tree = ocp.PyTreeCheckpointHandler().metadata(path / "state").tree
  return {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for name, leaf in traverse_util.flatten_dict(tree).items()
  }


def _read_state(
  path: pathlib.Path, named: Mapping[names.Name, Any]
) -> dict[names.Name, Any]:
  """Reads the leaves of `named`, as jax arrays where it has shardings."""
  target = traverse_util.unflatten_dict(dict(named))
  if all(leaf.sharding is None for leaf in named.values()):
    as_numpy = lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray)
    restore_args = jax.tree.map(as_numpy, target)
  else:
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
  handler = ocp.PyTreeCheckpointHandler()
  tree = ocp.Checkpointer(handler).restore(
    path / "state",
    args=ocp.args.PyTreeRestore(
      item=target, restore_args=restore_args, partial_restore=True
    ),
  )
  return traverse_util.flatten_dict(tree)


def _compare(path: pathlib.Path, saved: Mapping, wanted: Mapping) -> None:
  """Raises one line that names everything missing, misshapen or extra."""
  if faults := names.compare(saved, wanted):
    raise CheckpointError(
      f"{path}: {faults}; use the config it was trained with, or another workdir"
    )


def _read_json(path: pathlib.Path, item: str) -> dict[str, Any]:
  return json.loads((path / item / "metadata").read_text())
