"""The thread that makes soundtracks, one job after another.

A take is on disk before the next is begun. What a killed service had begun goes
on where it was when the next one starts.
"""

import collections
from collections.abc import Callable
import contextlib
import functools
import logging
import pathlib
import re
import shutil
import threading
import time
from typing import Any

import numpy as np

from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.service.jobs import request_of
from v2a_jax.service.store import Store
from v2a_jax.service.turns import QueueFullError
from v2a_jax.soundtrack.takes import Soundtracks

# Of an absolute path, but not of a URL.
_FOLDERS = re.compile(r"(?<![\w:/])/(?:[^\s/]+/)+")
_HOUR = 3600.0
_log = logging.getLogger(__name__)


class _StopError(Exception):
  """A job is cancelled, or the service ends."""


class Worker:
  """A queue of jobs and the thread that does them.

  Args:
    store: where jobs are.
    tracker: a `Soundtracker`.
    limits: resource limits of reading a video.
    key: key of the watermark.
    queue: how many jobs may wait.
    keep_seconds: after how long jobs without a kept take are removed.
  """

  def __init__(
    self,
    store: Store,
    tracker: Any,
    *,
    limits: media.Limits,
    key: str | None,
    queue: int,
    keep_seconds: float,
  ):
    self.store, self.tracker = store, tracker
    self._limits, self._key, self._size = limits, key, queue
    self._keep_seconds = keep_seconds
    self._waiting: collections.deque[str] = collections.deque()
    self._cancelled: set[str] = set()
    # The job at hand, and the share of its take at hand that is made.
    self._at_hand: tuple[str, float] = ("", 0.0)
    # Of jobs whose state could not be written, as on a full disk.
    self._broken: dict[str, str] = {}
    self._changed = threading.Condition()
    self._ended = False
    for job in store.jobs():
      if job["state"] in ("queued", "running"):
        self._waiting.append(job["id"])
    self._thread = threading.Thread(target=self._run, daemon=True)

  def start(self) -> None:
    """Begins to work."""
    self._thread.start()

  def stop(self) -> None:
    """Ends after the passage that is being made."""
    with self._changed:
      self._ended = True
      self._changed.notify_all()
    self._thread.join(timeout=60)

  def check_room(self) -> None:
    """Refuses another job when too many wait.

    Raises:
      QueueFullError: too many wait.
    """
    with self._changed:
      if len(self._waiting) >= self._size:
        raise QueueFullError(f"{self._size} jobs wait already; try again later")

  def add(self, id_: str, write: Callable[[], None]) -> None:
    """Puts a job into the queue, after `write` has written it.

    Raises:
      QueueFullError: too many wait; it is not written.
    """
    with self._changed:
      self.check_room()
      write()
      self._waiting.append(id_)
      self._changed.notify()

  def cancel(self, id_: str) -> None:
    """Takes a job out of the queue, or ends it after the passage at hand."""
    with self._changed:
      self._cancelled.add(id_)
      with contextlib.suppress(ValueError):
        self._waiting.remove(id_)
        self._finish(id_, "cancelled")

  def state(self, id_: str) -> dict[str, Any]:
    """Returns a job, and how far it is.

    `ahead` is how many are before it in the queue, `progress` the share of its
    take at hand that is made.
    """
    job = self.store.job(id_)
    if error := self._broken.get(id_):
      job |= {"state": "failed", "error": error}
    with self._changed:
      ahead = self._waiting.index(id_) if id_ in self._waiting else 0
    at_hand, share = self._at_hand
    return job | {"ahead": ahead, "progress": share if at_hand == id_ else 0.0}

  def _run(self) -> None:
    due = 0.0
    while True:
      if time.monotonic() >= due:
        self._purge()
        due = time.monotonic() + min(self._keep_seconds, _HOUR)
      with self._changed:
        if not self._waiting and not self._ended:
          self._changed.wait(due - time.monotonic())
        if self._ended:
          return
        if not self._waiting:
          continue
        id_ = self._waiting.popleft()
      try:
        self._do(id_)
      except Exception as error:  # One job must not cost the others theirs.
        self._fail(id_, error)

  def _purge(self) -> None:
    try:
      self.store.purge(self._keep_seconds)
    except (OSError, ValueError) as error:
      _log.warning("what is old stays: %s", error)

  def _fail(self, id_: str, error: Exception) -> None:
    expected = isinstance(error, ValueError | OSError)
    if not expected:
      _log.exception("job %s", id_)
    said = hidden(error, self.store) if expected else "an internal error"
    try:
      self._finish(id_, "failed", error=said)
    except (OSError, LookupError) as full:
      self._broken[id_] = f"{said}; and {hidden(full, self.store)}"

  def _finish(self, id_: str, state: str, error: str = "") -> None:
    change = lambda job: job.update(state=state, error=error, stage="")
    self.store.change(id_, change)

  def _do(self, id_: str) -> None:
    job = self.store.change(
      id_, lambda job: job.update(state="running", stage="reading the video")
    )
    video = self.store.video(job["video"])["path"]
    request = request_of(self.store, job)
    done = len(job["takes"])
    passed = functools.partial(self._passed, id_)
    stream = self.tracker.stream(
      video, limits=self._limits, first=done, on_passage=passed, **vars(request)
    )
    with contextlib.suppress(_StopError):
      for number in range(done, request.num_candidates):
        stage = f"take {number + 1} of {request.num_candidates}"
        self.store.change(id_, lambda job, stage=stage: job.update(stage=stage))
        passed(0.0)
        job = self._keep(id_, job, next(stream))
    self._at_hand = ("", 0.0)
    if self._ended:
      return
    state = "cancelled" if id_ in self._cancelled else "done"
    self._finish(id_, state)

  def _passed(self, id_: str, share: float) -> None:
    """Notes how much of the take at hand is made; ends what is to end."""
    self._at_hand = (id_, share)
    if id_ in self._cancelled or self._ended:
      raise _StopError

  def _keep(
    self, id_: str, job: dict[str, Any], takes: Soundtracks
  ) -> dict[str, Any]:
    """Writes a take: its samples, and as it is delivered; returns the job."""
    take = takes.best
    if take.seed in [entry["seed"] for entry in job["takes"]]:
      raise RuntimeError(f"seed {take.seed} is made already")
    folder = self.store.take_folder(id_, take.seed)
    shutil.rmtree(folder, ignore_errors=True)  # Of a killed attempt.
    folder.mkdir(parents=True)
    done = takes.save(folder, key=self._key, **job["delivery"])
    with files.written(folder / "raw.npz") as part:
      with part.open("wb") as file:
        layers = {f"layer_{kind}": part for kind, part in take.layers.items()}
        rate = take.sample_rate
        np.savez(file, samples=take.samples, sample_rate=rate, **layers)
    row = done.rows[0]
    name = lambda path: path.relative_to(folder).as_posix()
    entry = {
      "seed": take.seed,
      "score": take.score,
      "scores": dict(take.scores),
      "heard": dict(take.heard),
      "rejected": take.rejected,
      "tried": 1 + len(takes.rejected),
      "loudness_lufs": row["loudness_lufs"],
      "true_peak_dbtp": row["true_peak_dbtp"],
      "watermark": row["watermark"] is not None and row["watermark"]["found"],
      "sound": name(done.waves[0]),
      "video": name(done.videos[0]),
      "sidecar": name(done.sidecar),
      "kept": False,
    }
    job = self.store.change(id_, lambda job: job["takes"].append(entry))
    self.store.log(
      "take",
      job=id_,
      seed=take.seed,
      payload=job["delivery"]["payload"],
      marked=job["delivery"]["mark"],
      sha256_samples=row["sha256_samples"],
    )
    return job


def hidden(error: Exception, store: Store) -> str:
  """Returns the message of an error without paths of this machine."""
  if isinstance(error, media.MediaError):
    name = pathlib.PurePath(error.name).name
    return " ".join(f"{name}: {error.reason}; {error.advice}".split())
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  said = str(error).replace(str(store.root), "")
  return " ".join(_FOLDERS.sub("", said).split())
