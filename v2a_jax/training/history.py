"""A finished or running run's record, written anew for wandb and TensorBoard.

`metrics.jsonl` is the record. What is written from it replaces what was written
from it before, so that doing it again adds nothing.
"""

from collections.abc import Iterator, Sequence
import json
import pathlib
import shutil
from typing import Any

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import PathLike, as_path, is_remote
from v2a_jax.training import event_files, sample_files
from v2a_jax.training.writers import WandbWriter, Writer, run_record

WANDB = "wandb_from_metrics"


class HistoryError(ValueError):
  """A folder without a record of metrics; one line."""


def rows(workdir: PathLike) -> Iterator[tuple[int, dict[str, float]]]:
  """Yields step and metrics of each row; a torn line is passed over.

  Raises:
    HistoryError: there is no metrics.jsonl.
    OSError: it cannot be read, or is a pipe, socket or device.
  """
  file = as_path(workdir) / "metrics.jsonl"
  try:
    text = files.read_bytes(file).decode(errors="replace")
  except (FileNotFoundError, NotADirectoryError):
    raise HistoryError(
      f"no {file}: name a workdir of v2a train, which writes it"
    ) from None
  for line in text.splitlines():
    try:
      row = json.loads(line)
      yield row.pop("step"), {k: v for k, v in row.items() if v is not None}
    except (ValueError, KeyError, AttributeError):
      continue


def to_tensorboard(workdir: PathLike) -> PathLike:
  """Writes the event files of a run anew; returns their folder.

  Raises:
    HistoryError: there is no metrics.jsonl.
    ModuleNotFoundError: tensorboardX is not installed.
  """
  found = list(rows(workdir))
  event_files.remove(workdir)
  writer = event_files.TensorBoardWriter(
    workdir, start_step=-1, config=_config(workdir)
  )
  _write(writer, workdir, found)
  return as_path(workdir) / event_files.FOLDER


def to_wandb(
  workdir: PathLike,
  *,
  group: str | None = None,
  tags: Sequence[str] | None = None,
) -> pathlib.Path:
  """Records a run for wandb anew, offline and with the id that it has.

  Args:
    workdir: the run's folder.
    group: group of runs; None for that of the environment.
    tags: tags; None for those of the environment.

  Returns:
    The folder to give to `wandb sync`.

  Raises:
    HistoryError: there is no metrics.jsonl.
  """
  found = list(rows(workdir))
  folder = as_path(workdir) / WANDB
  if is_remote(folder):
    folder = cache.place(folder, WANDB)
  shutil.rmtree(folder, ignore_errors=True)
  record = run_record(workdir)
  writer = WandbWriter(
    workdir,
    run_id=record["wandb_id"],
    config=_config(workdir),
    folder=folder,
    group=group,
    tags=tags,
  )
  _write(writer, workdir, found)
  (written,) = (folder / "wandb").glob(f"offline-run-*-{record['wandb_id']}")
  return written


def _write(
  writer: Writer,
  workdir: PathLike,
  found: Sequence[tuple[int, dict[str, float]]],
) -> None:
  """Writes rows and samples in the order of their steps."""
  shows = {step: {} for step in sample_files.sampled_steps(workdir)}
  try:
    for step, row in sorted([*found, *shows.items()], key=lambda x: x[0]):
      if row:
        writer.write(step, row)
      else:
        writer.show(step, sample_files.samples_folder(workdir, step))
  finally:
    writer.close()


def _config(workdir: PathLike) -> dict[str, Any]:
  """Returns what training tells of the config; {} where it is not there."""
  file = as_path(workdir) / "config.json"
  try:
    return {"config": files.read_json(file)}
  except FileNotFoundError:
    return {}
