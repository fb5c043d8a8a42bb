"""Where metrics go: a JSON line a step, wandb, and the progress line.

`metrics.jsonl` is the record; wandb (offline unless asked otherwise) and
TensorBoard's event files (event_files.py) are copies. Only process 0 makes
writers.
"""

from collections.abc import Mapping, Sequence
import datetime
import functools
import json
import logging
import math
import os
import pathlib
import platform
import socket
import sys
from typing import Any, Protocol, TextIO
import urllib.parse
import urllib.request
import uuid

from v2a_jax.basics import cache, files
from v2a_jax.basics.growing import open_append
from v2a_jax.basics.paths import PathLike, as_path, is_remote
from v2a_jax.basics.text import clock
from v2a_jax.training import sample_files

_WANDB_SERVER = "https://api.wandb.ai"
_WANDB_SECONDS = 30

_log = logging.getLogger(__name__)


class Writer(Protocol):
  """Takes scalars by name.

  Attributes:
    name: what it writes, for messages.
  """

  name: str

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the metrics of a step.

    Raises:
      OSError: they cannot be written.
    """

  def close(self) -> None:
    """Ends what is written."""

  def say(self, text: str) -> None:
    """Prints a line, where this is for people."""

  def rewind(self, step: int) -> None:
    """Drops the rows after a step, where they can be dropped."""

  def show(self, step: int, folder: PathLike) -> None:
    """Shows the sounds and videos of a folder, where that is possible.

    Raises:
      OSError: they cannot be read, or not be written.
    """


class JsonlWriter(Writer):
  """One JSON object a line in `<workdir>/metrics.jsonl`, `step` among its keys.

  Rows after `start_step` are left-overs of steps that were lost and are about
  to be done again; they are dropped. A number that is not finite is null.
  """

  def __init__(self, workdir: PathLike, *, start_step: int):
    self._path = as_path(workdir) / "metrics.jsonl"
    self.name = str(self._path)
    if self._path.exists():
      _drop_after(self._path, start_step)
    self._file = open_append(self._path)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    row = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
    self._file.write(json.dumps({"step": step, **row}) + "\n")

  def rewind(self, step: int) -> None:
    try:
      self._file.close()
      _drop_after(self._path, step)
    finally:
      self._file = open_append(self._path)

  def close(self) -> None:
    self._file.close()


class WandbWriter(Writer):
  """A wandb run whose id outlives the process, so that a resume continues it.

  wandb writes to this machine only. For a workdir on an object store that is a
  folder of the cache, which is copied to `<workdir>/wandb` when the run ends.
  """

  name = "wandb"

  def __init__(
    self,
    workdir: PathLike,
    *,
    run_id: str,
    mode: str = "offline",
    config: Mapping[str, Any] | None = None,
    folder: pathlib.Path | None = None,
    group: str | None = None,
    tags: Sequence[str] | None = None,
  ):
    """Starts it.

    A run whose server cannot be reached, or refuses it, is recorded offline.

    Args:
      workdir: the run's folder, whose name it has.
      run_id: id of the run.
      mode: `offline`, `online` or `disabled`.
      config: settings that wandb shows.
      folder: local folder that it is recorded in; None for the workdir.
      group: group of runs; None for that of the environment.
      tags: tags; None for those of the environment.
    """
    import wandb

    self._teardown = wandb.teardown
    self._workdir = as_path(workdir)
    self._folder = folder or self._workdir
    self._uploads = not folder and is_remote(self._workdir)
    if self._uploads:
      self._folder = cache.place(self._workdir, "wandb")
    self._folder.mkdir(parents=True, exist_ok=True)
    begin = functools.partial(
      wandb.init,
      project=os.environ.get("WANDB_PROJECT", "v2a_jax"),
      dir=str(self._folder),
      id=run_id,
      name=self._workdir.name,
      resume="allow",
      config=dict(config or {}),
      group=group,
      tags=tags,
    )
    settings = dict(silent=True, console="off", init_timeout=_WANDB_SECONDS)
    settings = wandb.Settings(**settings)
    try:
      if mode == "online":
        _check_server(os.environ.get("WANDB_BASE_URL", _WANDB_SERVER))
      self._run = begin(mode=mode, settings=settings)
    except (OSError, wandb.errors.Error) as error:
      _log.warning(
        "wandb is not online (%s): this run is recorded in %s; `wandb sync`"
        " uploads it later",
        *(str(error).splitlines()[0], self._folder / "wandb"),
      )
      self._run = begin(mode="offline", settings=settings)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    self._run.log(dict(metrics), step=step)

  def show(self, step: int, folder: PathLike) -> None:
    import wandb

    kinds = {sample_files.SOUND: wandb.Audio, sample_files.VIDEO: wandb.Video}
    for suffix, kind in kinds.items():
      with sample_files.local_files(folder, suffix) as found:
        for file in found:
          # wandb.Video is told the format, because it would re-encode arrays.
          options = {"format": "mp4"} if kind is wandb.Video else {}
          name = f"samples/{file.stem}{suffix}"
          self._run.log({name: kind(str(file), **options)}, step=step)

  def close(self) -> None:
    self._run.finish()
    # Its process would live on, and may lose a second run of this id.
    self._teardown()
    if self._uploads:
      files.upload(self._folder / "wandb", self._workdir / "wandb")


def _check_server(url: str) -> None:
  """Connects to a server; wandb itself would try for a minute and a half.

  Raises:
    OSError: nobody answers; the message names the server.
  """
  if urllib.request.getproxies():
    return  # The proxy connects.
  parts = urllib.parse.urlsplit(url)
  port = parts.port or (80 if parts.scheme == "http" else 443)
  try:
    socket.create_connection((parts.hostname, port), timeout=5).close()
  except OSError as error:
    raise OSError(f"{url}: {error.strerror or error}") from None


class ProgressWriter(Writer):
  """The progress line: in place on a terminal, a line each time in a log."""

  name = "the progress line"

  def __init__(self, num_train_steps: int, *, stream: TextIO | None = None):
    self._total = num_train_steps
    self._stream = stream or sys.stdout
    self._in_place = self._stream.isatty()

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    line = format_progress(step, self._total, metrics)
    self._print(f"\r\x1b[2K{line}" if self._in_place else line + "\n")

  def say(self, text: str) -> None:
    self._print(("\r\x1b[2K" if self._in_place else "") + text + "\n")

  def close(self) -> None:
    if self._in_place:
      self._print("\n")

  def _print(self, text: str) -> None:
    """Prints a text.

    Raises:
      OSError: nobody reads it any more, as after `| head` or when the terminal
        was closed; from then on nothing is printed.
    """
    try:
      self._stream.write(text)
      self._stream.flush()
    except OSError:
      # What is left in the stream would fail again when Python ends.
      with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), self._stream.fileno())
      raise


def format_progress(step: int, total: int, metrics: Mapping[str, float]) -> str:
  """Formats `step 20/100  loss 1.23  8.1 clips/s  MFU 12.0 %  ETA 1:02`."""
  parts = [f"step {step}/{total}"]
  if "train/loss" in metrics:
    parts.append(f"loss {metrics['train/loss']:.4g}")
  if "perf/examples_per_sec" in metrics:
    parts.append(f"{metrics['perf/examples_per_sec']:.1f} clips/s")
    mfu = metrics.get("perf/mfu")
    parts.append("MFU n/a" if mfu is None else f"MFU {100 * mfu:.1f} %")
  if (eta := metrics.get("perf/eta_seconds")) is not None:
    parts.append(f"ETA {clock(eta)}")
  for name in ("eval/loss", "eval_mean/loss"):
    if name in metrics:
      parts.append(f"{name} {metrics[name]:.4g}")
  if skipped := metrics.get("train/skipped"):
    parts.append(f"skipped {skipped:.0f}")
  return "  ".join(parts)


def run_record(workdir: PathLike) -> dict[str, Any]:
  """Reads or creates `<workdir>/run.json`: the run's id, start and host."""
  path = as_path(workdir) / "run.json"
  if path.exists():
    try:
      return files.read_json(path)
    except ValueError as error:
      _log.warning(
        "%s: a new one is written, and wandb begins a new run", error
      )
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
  record = {
    "wandb_id": uuid.uuid4().hex[:12],
    "started": now,
    "host": platform.node(),
  }
  files.write_json(path, record)
  return record


def _drop_after(path, step: int) -> None:
  """Keeps the rows up to `step`; a line cut short by a crash goes too."""
  kept = []
  text = files.read_bytes(path).decode(errors="replace")
  for line in text.splitlines():
    try:
      if json.loads(line)["step"] <= step:
        kept.append(line + "\n")
    except (ValueError, KeyError, TypeError):
      continue
  files.write_whole(path, "".join(kept))
