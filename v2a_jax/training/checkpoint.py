"""Checkpoints: the only door to Orbax.

A checkpoint is a folder `<workdir>/checkpoints/<step>` with the items `state`
(arrays, named by their path in the train state), `data` and `meta` (JSON), and
`sha256.json`, the digests of all their files. The digests are written before
the folder gets its final name, and verified before anything is restored:
Orbax itself restores flipped bits without a word. Processes share the work of
both.

Arrays are restored into whatever layout is asked for, so a run may continue on
another mesh, another number of devices or of processes.
"""

from collections.abc import Callable, Mapping
import dataclasses
import json
import logging
import pathlib
from typing import Any

from etils import epath
from flax import nnx, traverse_util
import jax
from jax.experimental import multihost_utils
import numpy as np
import orbax.checkpoint as ocp

from v2a_jax.training import digests
from v2a_jax.training.digests import find_damage, list_steps
from v2a_jax.training.retention import Retention, ranked
from v2a_jax.training.state import TrainState, abstract_model
from v2a_jax.weights import names

# What users write in place of a step.
BEST = "best"


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
  path: epath.Path
  state: Any
  data: Mapping[str, Any]
  meta: Mapping[str, Any]
  sha256: str


class _DigestedHandler(ocp.PyTreeCheckpointHandler):
  """Saves arrays; each process hashes its own files once they are written."""

  async def async_save(self, directory, *args, **settings):
    futures = await super().async_save(directory, *args, **settings)
    # The folder may not be made yet; it is when the arrays are written.
    folder = getattr(directory, "path", directory)
    return [_Digested(futures or [], folder)]


class _Digested:
  """An Orbax future: waits for the writing of arrays, then hashes them."""

  def __init__(self, futures, folder):
    self._futures, self._folder = futures, folder

  def result(self, timeout: float | None = None) -> None:
    ocp.future.ChainedFuture(self._futures, lambda: None).result(timeout)
    digests.write_part(self._folder, jax.process_index())

  def cancel(self) -> None:
    for future in self._futures:
      future.cancel()


# Orbax wants a handler for both; nothing is restored through this one.
@ocp.args.register_with_handler(
  _DigestedHandler, for_save=True, for_restore=True
)
@dataclasses.dataclass
class _DigestedSave(ocp.args.PyTreeSave):
  """Asks for a `_DigestedHandler`."""


class Checkpoints:
  """Saves in the background and restores the newest sound checkpoint."""

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep: Retention | None = None,
  ):
    """Opens or makes `<workdir>/checkpoints`.

    Args:
      workdir: the run's folder, seen by all processes.
      keep: which checkpoints are kept; None for the newest three.
    """
    self.root = checkpoint_root(workdir)
    self.root.mkdir(parents=True, exist_ok=True)
    self._keep = keep or Retention()
    self._scores = {}
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=self,
      cleanup_tmp_directories=True,
      async_options=ocp.AsyncOptions(
        post_finalization_callback=self._write_digests
      ),
    )
    self._pending: int | None = None
    self._remove_unfinished()
    self._manager = ocp.CheckpointManager(self.root, options=self._options)

  def save(
    self,
    step: int,
    state: TrainState,
    *,
    data: Mapping[str, Any],
    meta: Mapping[str, Any],
    validation: Mapping[str, float] | None = None,
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
    """
    self.wait()
    if step in list_steps(self.root):
      return
    self._scores[step] = score = self._keep.score(validation)
    meta = {**meta, "score": score} if score else dict(meta)
    items = ocp.args.Composite(
      state=_DigestedSave(traverse_util.unflatten_dict(names.flatten(state))),
      data=ocp.args.JsonSave(dict(data)),
      meta=ocp.args.JsonSave(meta),
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

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Says for each checkpoint whether it stays; Orbax asks."""
    steps = [info.step for info in checkpoints]
    for step in steps:
      if step not in self._scores:
        self._scores[step] = _read_score(self.root / str(step))
    kept = self._keep.kept({step: self._scores[step] for step in steps})
    return [step in kept for step in steps]

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
    """Returns the newest step that every process finds sound in its share.

    Damaged checkpoints are moved out of the way.
    """
    agree = multihost_utils.broadcast_one_to_all
    index, count = jax.process_index(), jax.process_count()
    for step in agree(np.asarray(list_steps(self.root), np.int32)):
      folder = self.root / str(step)
      reason = _first_reason(find_damage(folder, index=index, count=count))
      if reason is None:
        self._manager.reload()
        return int(step)
      if index == 0:
        self._quarantine(int(step), reason)
    raise CheckpointError(
      f"{self.root}: no sound checkpoint is left; the damaged ones are in"
      f" {self.root.parent / 'damaged'}. Use another --workdir to start"
      " again"
    )

  def _quarantine(self, step: int, reason: str) -> None:
    place = self.root.parent / "damaged"
    place.mkdir(exist_ok=True)
    names = digests.list_names(place)
    taken = sum(name.partition(".")[0] == str(step) for name in names)
    target = place / (f"{step}.{taken}" if taken else str(step))
    digests.move(self.root / str(step), target)
    _log.warning(
      "checkpoint %s is damaged (%s); moved to %s, falling back to the one"
      " before it",
      self.root / str(step),
      reason,
      target,
    )

  def _write_digests(self) -> None:
    """Runs on process 0, when all is written but the final name."""
    for folder in self._unfinished(self._pending):
      digests.write_digests(folder)

  def _unfinished(self, step: int | None) -> list[epath.Path]:
    """Returns the folder of a save under way, as a list of one or none.

    An object store has only final names; there a folder without digests is
    unfinished.
    """
    temporary = f"{step}.orbax-checkpoint-tmp"
    complete = list_steps(self.root)
    return [
      self.root / name
      for name in digests.list_names(self.root)
      if name.startswith(temporary)
      or (name == str(step) and step not in complete)
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
      for folder in self._unfinished(step):
        folder.rmtree(missing_ok=True)

  def _remove_unfinished(self) -> None:
    """Removes what a killed process left on an object store.

    Orbax does it for local folders, and knows nothing of digests.
    """
    if digests.is_remote(self.root) and jax.process_index() == 0:
      steps = [int(n) for n in digests.list_names(self.root) if n.isdigit()]
      for step in set(steps) - set(list_steps(self.root)):
        self._discard(step)
    multihost_utils.sync_global_devices("unfinished checkpoints are removed")


def checkpoint_root(workdir: epath.PathLike) -> epath.Path:
  """Returns the folder of a run's checkpoints."""
  workdir = epath.Path(workdir)
  if not digests.is_remote(workdir):
    workdir = epath.Path(pathlib.Path(workdir).absolute())
  return workdir / "checkpoints"


def _first_reason(reason: str | None) -> str | None:
  """Returns the reason of the first process that has one; None if none has."""
  text = (reason or "").encode()[:200].ljust(200)
  every = multihost_utils.process_allgather(np.frombuffer(text, np.uint8))
  rows = [bytes(row).decode(errors="replace") for row in every.reshape(-1, 200)]
  return next((row.strip() for row in rows if row.strip()), None)


def restore_params(
  workdir: epath.PathLike, *, step: int | str | None = None, ema: bool = True
) -> Restored:
  """Reads a model's weights for use, without the optimizer.

  Args:
    workdir: the run's folder.
    step: which checkpoint; "best" for that of the best validation result, None
      for the newest sound one.
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
  workdir: epath.PathLike,
  make_model: Callable[[nnx.Rngs], nnx.Module],
  *,
  step: int | str | None = None,
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


def _find_sound(root: epath.Path, step: int | str | None) -> epath.Path:
  """Returns the folder of `step`, or of the newest sound checkpoint."""
  steps = list_steps(root)
  if not steps:
    raise CheckpointError(
      f"{root}: no checkpoint there; train first, or name another workdir"
    )
  if step == BEST:
    step = _best_step(root, steps)
  if step is not None and step not in steps:
    raise CheckpointError(f"{root}: no step {step}; there are {steps[::-1]}")
  for candidate in steps if step is None else [step]:
    path = root / str(candidate)
    if (reason := find_damage(path)) is None:
      return path
    _log.warning("checkpoint %s is damaged (%s)", path, reason)
  raise CheckpointError(f"{path}: damaged ({reason}); use another checkpoint")


def _best_step(root: epath.Path, steps: list[int]) -> int:
  best = ranked({step: _read_score(root / str(step)) for step in steps})
  if not best:
    raise CheckpointError(
      f"{root}: no checkpoint has a validation result, so none is the best;"
      f" name a step of {steps[::-1]}, or train with config.eval_every"
    )
  return best[0]


def _read_score(path: epath.Path) -> Mapping[str, Any] | None:
  """Reads what a checkpoint is ranked by; None if it is not, or is damaged."""
  try:
    return _read_json(path, "meta").get("score")
  except (OSError, ValueError):
    return None


def _read_shapes(path: epath.Path) -> dict[tuple[str, ...], Any]:
  """Returns {name: shape and type} of a checkpoint, without its arrays."""
  tree = ocp.PyTreeCheckpointHandler().metadata(path / "state").tree
  return {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for name, leaf in traverse_util.flatten_dict(tree).items()
  }


def _read_state(
  path: epath.Path, named: Mapping[names.Name, Any]
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


def _compare(path: epath.Path, saved: Mapping, wanted: Mapping) -> None:
  """Raises one line that names everything missing, misshapen or extra."""
  if faults := names.compare(saved, wanted):
    raise CheckpointError(
      f"{path}: {faults}; use the config it was trained with, or another workdir"
    )


def _read_json(path: epath.Path, item: str) -> dict[str, Any]:
  return json.loads((path / item / "metadata").read_text())
