"""TensorBoard's copy of a run's metrics: event files in `<workdir>/tensorboard`.

A run that starts again begins a new file in that folder. TensorBoard joins them,
and leaves out the steps of old ones from the step on that a new one begins with.
"""

from collections.abc import Mapping
import json
import math
import os
import platform
import shutil
import struct
import time
from typing import Any

import soundfile

from v2a_jax.basics import cache, files, growing
from v2a_jax.basics.paths import PathLike, as_path, is_remote
from v2a_jax.training import sample_files
from v2a_jax.training.writers import Writer

FOLDER = "tensorboard"
PREFIX = "events.out.tfevents."  # By this TensorBoard knows its files.


class TensorBoardWriter(Writer):
  """Writes scalars by name, each row at once.

  For a workdir on an object store into a folder of the cache, which is copied
  when the run ends.
  """

  name = "the event file of TensorBoard"

  def __init__(
    self,
    workdir: PathLike,
    *,
    start_step: int,
    config: Mapping[str, Any] | None = None,
  ):
    """Begins an event file.

    Args:
      workdir: the run's folder.
      start_step: step at which the run goes on; later ones of older files do not
        count any more.
      config: settings that TensorBoard shows as text.

    Raises:
      ModuleNotFoundError: tensorboardX is not installed.
    """
    try:
      from tensorboardX import record_writer, summary
      from tensorboardX.proto import event_pb2, summary_pb2
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        "config.tensorboard needs tensorboardX: pip install"
        " 'v2a_jax[tensorboard]'",
        name=error.name,
      ) from None
    self._summary, self._event = summary, event_pb2
    self._checksum = record_writer.masked_crc32c
    self._value = summary_pb2.Summary.Value
    self._group = summary_pb2.Summary
    self._target = self._folder = as_path(workdir) / FOLDER
    if is_remote(self._target):
      self._folder = cache.place(self._target, FOLDER)
    self._folder.mkdir(parents=True, exist_ok=True)
    # Their own writer would leave half a record on a full disk, after which
    # TensorBoard reads nothing.
    name = f"{PREFIX}{time.time_ns()}.{platform.node()}.{os.getpid()}"
    self._file = growing.open_append(self._folder / name)
    self._put(0, file_version="brain.Event:2")
    self.rewind(start_step)
    if config:
      text = json.dumps(config, indent=2, default=str)
      block = "\n".join(f"    {line}" for line in text.splitlines())
      self._add(start_step + 1, summary.text("config", block))

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    values = [
      self._value(tag=name, simple_value=value)
      for name, value in metrics.items()
      if value is not None and math.isfinite(value)
    ]
    self._add(step, self._group(value=values))

  def show(self, step: int, folder: PathLike) -> None:
    with sample_files.local_files(folder, sample_files.SOUND) as found:
      for file in found:
        sound, rate = soundfile.read(file, always_2d=True)
        name = f"samples/{file.stem}"
        self._add(step, self._summary.audio(name, sound, rate))

  def rewind(self, step: int) -> None:
    started = self._event.SessionLog(status=self._event.SessionLog.START)
    self._put(step + 1, session_log=started)

  def close(self) -> None:
    self._file.close()
    if is_remote(self._target):
      files.upload(self._folder, self._target)

  def _add(self, step: int, summary) -> None:
    self._put(step, summary=summary)

  def _put(self, step: int, **content) -> None:
    event = self._event.Event(wall_time=time.time(), step=step, **content)
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", self._checksum(x)) for x in (length, data)]
    self._file.write(length + checksums[0] + data + checksums[1])


def remove(workdir: PathLike) -> None:
  """Deletes the event files of a run."""
  folder = as_path(workdir) / FOLDER
  if is_remote(folder):
    shutil.rmtree(cache.place(folder, FOLDER), ignore_errors=True)
  for file in folder.iterdir() if folder.is_dir() else ():
    if file.name.startswith(PREFIX):
      file.unlink()
