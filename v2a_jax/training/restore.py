"""Weights for use, from any checkpoint of a run."""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import pathlib
import tempfile
from typing import Any

from etils import epath
from flax import nnx
import jax
import numpy as np

from v2a_jax.basics import files
from v2a_jax.training import checkpoint_arrays, copies, digests, posthoc
from v2a_jax.training.checkpoint_arrays import STATE, WEIGHTS, CheckpointError
from v2a_jax.training.digests import find_damage, list_steps
from v2a_jax.training.retention import ranked
from v2a_jax.training.state import abstract_model
from v2a_jax.weights import names

# What users write in place of a step.
BEST = "best"

_log = logging.getLogger(__name__)


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


def checkpoint_root(workdir: epath.PathLike) -> epath.Path:
  """Returns the folder of a run's checkpoints."""
  workdir = epath.Path(workdir)
  if not digests.is_remote(workdir):
    workdir = epath.Path(pathlib.Path(workdir).absolute())
  return workdir / "checkpoints"


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
  with tempfile.TemporaryDirectory() as place:
    path, folder = _find_sound(
      checkpoint_root(workdir), step, weights_only=ema, place=place
    )
    # Nothing else was checked where the weights are apart.
    apart = ema and (folder / WEIGHTS).is_dir()
    items = [WEIGHTS] if apart else [WEIGHTS, STATE]
    saved = checkpoint_arrays.read_shapes(folder, items)
    averaged = ema and any(name[0] == "ema" for name in saved)
    wanted = ("ema" if averaged else "params", "buffers")
    target = {name: leaf for name, leaf in saved.items() if name[0] in wanted}
    arrays = checkpoint_arrays.read_arrays(folder, target) if target else {}
    under = lambda top: {k[1:]: v for k, v in arrays.items() if k[0] == top}
    return Restored(
      step=int(path.name),
      path=path,
      state={"params": under(wanted[0]), "buffers": under("buffers")},
      data=read_json(folder, "data"),
      meta=read_json(folder, "meta"),
      sha256=digests.identity(folder),
    )


def restore_average(
  workdir: epath.PathLike, length: float, *, step: int | str | None = None
) -> Restored:
  """Makes the average of a length from all sound checkpoints up to a step.

  Args:
    workdir: folder of a run with `posthoc_averages`.
    length: length as a share of the training; see `posthoc.py`.
    step: as in `restore_params`.

  Raises:
    CheckpointError: as `restore_params`, or one has no such averages.
    SettingError: no average has that length, or too few checkpoints are left.
  """
  newest, root = restore_params(workdir, step=step), checkpoint_root(workdir)
  steps = [taken for taken in list_steps(root) if 0 < taken <= newest.step]
  params = None
  while steps and params is None:
    params = _summed(root, steps, length=length, step=newest.step)
  if params is None:
    raise CheckpointError(
      f"{root}: until step {newest.step} there is no sound checkpoint to make an"
      " average of"
    )
  return dataclasses.replace(newest, state=newest.state | {"params": params})


def _summed(
  root: epath.Path, steps: list[int], *, length: float, step: int
) -> dict[names.Name, np.ndarray] | None:
  """Sums the averages in checkpoints to one.

  Returns:
    Arrays by name; None if a checkpoint is damaged, which is taken off `steps`.
  """
  snapshots = [(taken, name) for taken in steps for name in posthoc.LENGTHS]
  shares = posthoc.shares(snapshots, step=step, length=length)
  share, total = dict(zip(snapshots, shares)), {}
  for taken in steps:
    path = root / str(taken)
    with tempfile.TemporaryDirectory() as place:
      folder, damage = _fetch(path, weights_only=False, place=place)
      if damage:
        steps.remove(taken)
        return None
      saved = checkpoint_arrays.read_shapes(folder)
      named = {k: v for k, v in saved.items() if k[0] == "averages"}
      if not named:
        raise CheckpointError(
          f"{path} has no averages of other lengths: they are kept by runs with"
          " config.posthoc_averages=True"
        )
      arrays = checkpoint_arrays.read_arrays(folder, named)
    for (_, average, *name), array in arrays.items():
      part = share[taken, average] * array.astype(np.float64)
      total[tuple(name)] = total.get(tuple(name), 0.0) + part
  return {name: array.astype(np.float32) for name, array in total.items()}


def restore_model(
  workdir: epath.PathLike,
  make_model: Callable[[nnx.Rngs], nnx.Module],
  *,
  step: int | str | None = None,
  ema: bool = True,
  average_length: float | None = None,
) -> tuple[nnx.Module, Restored]:
  """Returns the trained module and where it came from.

  Args:
    workdir: the run's folder.
    make_model: makes the module; is traced.
    step: see `restore_params`.
    ema: see `restore_params`.
    average_length: length of the average that is read instead; see
      `restore_average`.

  Raises:
    CheckpointError: as `restore_params`, or if a shape is not the model's.
    SettingError: no average has that length.
  """
  if average_length is None:
    restored = restore_params(workdir, step=step, ema=ema)
  else:
    restored = restore_average(workdir, average_length, step=step)
  graphdef, params, buffers = abstract_model(make_model)
  parts = []
  for part, abstract in (("params", params), ("buffers", buffers)):
    arrays = restored.state[part]
    prefixed = lambda named, part=part: {
      (part, *k): v for k, v in named.items()
    }
    wanted = prefixed(names.flatten(abstract))
    checkpoint_arrays.compare(restored.path, prefixed(arrays), wanted)
    to_jax = lambda array, _: jax.numpy.asarray(array)
    parts.append(names.fill(abstract, arrays, to_jax))
  return nnx.merge(graphdef, *parts), restored


def _find_sound(
  root: epath.Path, step: int | str | None, *, weights_only: bool, place: str
) -> tuple[epath.Path, epath.Path]:
  """Returns the folder of `step`, or of the newest sound checkpoint.

  Args:
    root: folder of the checkpoints.
    step: as in `restore_params`.
    weights_only: leave the rest of the train state out.
    place: local folder for the files of a checkpoint on an object store.

  Returns:
    (path, where its files can be read).
  """
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
    folder, damage = _fetch(path, weights_only=weights_only, place=place)
    if damage is None:
      return path, folder
  raise CheckpointError(f"{path}: damaged ({damage}); use another checkpoint")


def _fetch(
  path: epath.Path, *, weights_only: bool, place: str
) -> tuple[epath.Path, str | None]:
  """Checks a checkpoint, and copies one of an object store here.

  Returns:
    (where its files can be read, what is damaged: None if it is sound).
  """
  items = None
  if weights_only and (path / WEIGHTS).is_dir():
    items = (WEIGHTS, "data", "meta")
  folder = path
  if digests.is_remote(path):
    # By one transfer, which serves the check and the reading.
    folder = epath.Path(place) / path.name
    damage = copies.fetch(path, folder, items=items)
  else:
    damage = find_damage(path, items=items)
  if damage is None:
    return checkpoint_arrays.merge(folder), None
  _log.warning("checkpoint %s is damaged (%s)", path, damage)
  return folder, damage


def _best_step(root: epath.Path, steps: list[int]) -> int:
  best = ranked({step: read_score(root / str(step)) for step in steps})
  if not best:
    raise CheckpointError(
      f"{root}: no checkpoint has a validation result, so none is the best;"
      f" name a step of {steps[::-1]}, or train with config.eval_every"
    )
  return best[0]


def read_score(path: epath.Path) -> Mapping[str, Any] | None:
  """Reads what a checkpoint is ranked by; None if it is not, or is damaged."""
  try:
    return read_json(path, "meta").get("score")
  except (OSError, ValueError):
    return None


def read_json(path: epath.Path, item: str) -> dict[str, Any]:
  """Reads `data` or `meta` of a checkpoint."""
  return files.read_json(path / item / "metadata")
