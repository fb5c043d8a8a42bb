"""The arrays of a checkpoint: how Orbax writes and reads them.

They are in two items: `weights`, which is what a model's user needs (the
average if there is one, else the parameters, and the buffers), and `state`, the
rest. So using a model reads, and verifies, no more than its weights. A
checkpoint of before has all in `state`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
from typing import Any

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from v2a_jax.training import digests
from v2a_jax.training.save_failures import Failures
from v2a_jax.training.state import TrainState
from v2a_jax.weights import names

WEIGHTS, STATE = "weights", "state"

_log = logging.getLogger(__name__)


class CheckpointError(Exception):
  """A checkpoint is missing, damaged, of another shape, or cannot be saved."""


class _Told:
  """An Orbax future whose error all processes learn."""

  def __init__(self, futures: Sequence[Any], failures: Failures, then=None):
    """Waits for several futures.

    Args:
      futures: those that are waited for.
      failures: where an error is told.
      then: what is called after them, without arguments.
    """
    self._futures, self._failures, self._then = futures, failures, then

  def result(self, timeout: float | None = None) -> None:
    with self._failures.told():
      ocp.future.ChainedFuture(self._futures, lambda: None).result(timeout)
      if self._then:
        self._then()

  def cancel(self) -> None:
    for future in self._futures:
      future.cancel()


class _DigestedHandler(ocp.PyTreeCheckpointHandler):
  """Saves arrays; each process hashes its own files once they are written."""

  def __init__(self, failures: Failures, primary: int | None = 0):
    """Sets who writes what is written once: one process, or, if None, all."""
    self._failures = failures
    self._complete = primary is not None or jax.process_count() == 1
    arrays = ocp.type_handlers.ArrayHandler(primary_host=primary)
    super().__init__(
      # Packing takes longer than writing, and weights shrink by 8 % only.
      use_compression=False,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        primary_host=primary
      ),
      type_handler_registry=ocp.type_handlers.create_type_handler_registry(
        (jax.Array, arrays)
      ),
    )

  async def async_save(self, directory, *args, **settings):
    futures = await super().async_save(directory, *args, **settings)
    # The folder may not be made yet; it is when the arrays are written.
    folder = getattr(directory, "path", directory)
    digest = lambda: digests.write_part(folder, jax.process_index())
    return [_Told(futures or [], self._failures, digest)]

  def finalize(self, directory):
    """Merges what all processes wrote, where they wrote to one folder."""
    if self._complete:
      super().finalize(directory)


# Orbax wants a handler for both; nothing is restored through this one.
@ocp.args.register_with_handler(
  _DigestedHandler, for_save=True, for_restore=True
)
@dataclasses.dataclass
class _DigestedSave(ocp.args.PyTreeSave):
  """Asks for a `_DigestedHandler`."""


class _JsonHandler(ocp.JsonCheckpointHandler):
  """Saves JSON; an error is told to all processes."""

  def __init__(self, failures: Failures, **settings):
    self._failures = failures
    super().__init__(**settings)

  async def async_save(self, directory, *args, **settings):
    futures = await super().async_save(directory, *args, **settings)
    return [_Told(futures or [], self._failures)]


@ocp.args.register_with_handler(_JsonHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class JsonSave(ocp.args.JsonSave):
  """Asks for a `_JsonHandler`."""


def make_handlers(
  failures: Failures, *, primary: int | None
) -> dict[str, ocp.CheckpointHandler]:
  """Makes Orbax's handlers, by item.

  Args:
    failures: where the errors of saves are told.
    primary: process that writes what is written once; None if each process
      saves to a folder of its own.
  """
  options = ocp.options.MultiprocessingOptions(primary_host=primary)
  json_handler = lambda: _JsonHandler(failures, multiprocessing_options=options)
  return {
    WEIGHTS: _DigestedHandler(failures, primary),
    STATE: _DigestedHandler(failures, primary),
    "data": json_handler(),
    "meta": json_handler(),
  }


def merge(folder: epath.Path) -> epath.Path:
  """Merges what several processes have written, if that was not done yet."""
  for item in (WEIGHTS, STATE):
    present = (folder / item).is_dir()
    if present and not (folder / item / "manifest.ocdbt").exists():
      ocp.PyTreeCheckpointHandler().finalize(folder / item)
  return folder


def items_of(state: TrainState) -> dict[str, ocp.args.CheckpointArgs]:
  """Returns what is to be saved of a train state, by item."""
  first = ("params" if state.ema is None else "ema", "buffers")
  items = {WEIGHTS: {}, STATE: {}}
  for name, leaf in names.flatten(state).items():
    items[WEIGHTS if name[0] in first else STATE][name] = leaf
  return {
    item: _DigestedSave(traverse_util.unflatten_dict(named))
    for item, named in items.items()
  }


def read_shapes(
  path: epath.Path, items: Sequence[str] = (WEIGHTS, STATE)
) -> dict[names.Name, Any]:
  """Returns {name: shape and type} of a checkpoint, without its arrays.

  Args:
    path: folder of the checkpoint.
    items: parts of it that are read, where they are there.
  """
  shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
  handler, found = ocp.PyTreeCheckpointHandler(), {}
  for item in items:
    if (path / item).is_dir():
      tree = handler.metadata(path / item).tree
      named = traverse_util.flatten_dict(tree).items()
      found |= {name: shape(leaf) for name, leaf in named}
  return found


def read_arrays(
  path: epath.Path, named: Mapping[names.Name, Any]
) -> dict[names.Name, Any]:
  """Reads the arrays of `named`.

  Args:
    path: folder of the checkpoint.
    named: shapes by name; with shardings for jax arrays in that layout and
      type, without for numpy arrays as they are stored.
  """
  arrays = {}
  for item in (WEIGHTS, STATE):
    if arrays.keys() != named.keys():  # What is not wanted may be damaged.
      shapes = read_shapes(path, [item])
      wanted = {name: named[name] for name in named if name in shapes}
      arrays |= _read_item(path / item, wanted) if wanted else {}
  return arrays


def _read_item(
  folder: epath.Path, named: Mapping[names.Name, Any]
) -> dict[names.Name, Any]:
  target = traverse_util.unflatten_dict(dict(named))
  if all(leaf.sharding is None for leaf in named.values()):
    as_numpy = lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray)
    restore_args = jax.tree.map(as_numpy, target)
  else:
    restore_args = ocp.checkpoint_utils.construct_restore_args(target)
  handler = ocp.PyTreeCheckpointHandler()
  tree = ocp.Checkpointer(handler).restore(
    folder,
    args=ocp.args.PyTreeRestore(
      item=target, restore_args=restore_args, partial_restore=True
    ),
  )
  return traverse_util.flatten_dict(tree)


def compare(path: epath.Path, saved: Mapping, wanted: Mapping) -> None:
  """Refuses a checkpoint of another model; says which numbers are converted.

  Args:
    path: folder of the checkpoint, for messages.
    saved: shapes and types by name, as they are stored.
    wanted: those of the model; numbers with a fraction may be of another type.

  Raises:
    CheckpointError: one line that names everything missing, misshapen or extra.
  """
  faults = names.compare(saved, wanted)
  casts = set()
  for name in saved.keys() & wanted.keys():
    old, new = saved[name].dtype, wanted[name].dtype
    if old != new:
      casts.add(f"{old} to {new}")
      if not all(jnp.issubdtype(x, jnp.floating) for x in (old, new)):
        label = "/".join(name)
        faults = faults or f"{label} is {old}, the model has {new}"
  if faults:
    raise CheckpointError(
      f"{path}: {faults}; use the config it was trained with, or another workdir"
    )
  if casts:
    _log.warning(
      "checkpoint %s: converted from %s", path, ", ".join(sorted(casts))
    )
