"""Videos, jobs and takes on disk, so that a killed service loses none.

  DIR/videos/ID/NAME.mp4         what was uploaded
  DIR/videos/ID/video.json       what is known of it
  DIR/jobs/ID/job.json           a request, its state and its takes
  DIR/jobs/ID/takes/SEED/…       a take: its samples (raw.npz), and as delivered
  DIR/audit.jsonl                what was asked and made, a line each
  DIR/tmp/…                      what is being looked into, exported or removed

An id is 128 random bits, so clients find only what is theirs. Every JSON file
is replaced whole.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import pathlib
import re
import secrets
import shutil
import threading
import time
from typing import Any

from v2a_jax.basics import files

_ID = re.compile(r"[0-9a-f]{32}")
_ENDING = re.compile(r"\.[a-z0-9]{2,5}")
_STEM_LETTERS = 60
KINDS = ("videos", "jobs")
_JOB = {  # The keys of a job, as `jobs.make` makes it.
  *("id", "created", "state", "stage", "error", "video", "name", "audio"),
  *("like", "base", "request", "delivery", "takes", "command"),
}


class NotFoundError(LookupError):
  """Nothing has such an id."""


class Store:
  """A folder of videos and jobs, of one process at a time.

  Attributes:
    root: the folder.
    tmp: folder for what need not outlive the process.
  """

  def __init__(self, root: pathlib.Path):
    self.root = root.absolute()
    self.tmp = self.root / "tmp"
    self._lock = threading.RLock()
    shutil.rmtree(self.tmp, ignore_errors=True)  # Of a killed process.
    self.tmp.mkdir(parents=True)
    for kind in KINDS:
      (self.root / kind).mkdir(parents=True, exist_ok=True)

  def new(self, kind: str) -> tuple[str, pathlib.Path]:
    """Makes a folder; returns its id and the folder."""
    id_ = secrets.token_hex(16)
    folder = self.root / kind / id_
    folder.mkdir()
    return id_, folder

  def folder(self, kind: str, id_: str) -> pathlib.Path:
    """Returns the folder of an id that a client names.

    Raises:
      NotFoundError: nothing has this id.
    """
    folder = self.root / kind / id_ if _ID.fullmatch(id_) else None
    if folder is None or not (folder / f"{kind[:-1]}.json").is_file():
      raise NotFoundError(f"no {kind[:-1]} has this id")
    return folder

  def video(self, id_: str) -> dict[str, Any]:
    """Returns what is known of a video, and its `path`."""
    folder = self.folder("videos", id_)
    found = files.read_json(folder / "video.json")
    return found | {"path": folder / found["file"]}

  def add_video(self, folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Writes what is known of a video; from then on it is there."""
    files.write_json(folder / "video.json", facts)

  def job(self, id_: str) -> dict[str, Any]:
    """Returns a job.

    Raises:
      NotFoundError: none has this id.
      OSError, ValueError: it cannot be read, or is none.
    """
    return _read_job(self.folder("jobs", id_))

  def add_job(self, folder: pathlib.Path, job: dict[str, Any]) -> None:
    """Writes a new job; from then on what it names is not purged.

    Raises:
      NotFoundError: something that it names is purged already.
    """
    with self._lock:
      for id_ in filter(None, (job["video"], job["audio"], job["like"])):
        self.folder("videos", id_)
      if job["base"]:
        self.folder("jobs", job["base"]["job"])
      self.put_job(folder, job)

  def put_job(self, folder: pathlib.Path, job: dict[str, Any]) -> None:
    """Writes a job."""
    files.write_json(folder / "job.json", job)

  def change(
    self, id_: str, change: Callable[[dict[str, Any]], None]
  ) -> dict[str, Any]:
    """Changes a job while nobody else does, and returns it."""
    with self._lock:
      job = self.job(id_)
      change(job)
      self.put_job(self.folder("jobs", id_), job)
      return job

  def jobs(self) -> Iterator[dict[str, Any]]:
    """Yields all jobs that can be read, the oldest first."""
    found = []
    for folder in (self.root / "jobs").iterdir():
      with contextlib.suppress(OSError, ValueError):
        found.append(_read_job(folder))
    yield from sorted(found, key=lambda job: job["created"])

  def take_folder(self, id_: str, seed: int) -> pathlib.Path:
    """Returns the folder of a take of a job."""
    return self.folder("jobs", id_) / "takes" / str(seed)

  def log(self, event: str, **facts: Any) -> None:
    """Adds a line to the audit log."""
    row = {"time": round(time.time(), 3), "event": event} | facts
    path = self.root / "audit.jsonl"
    with self._lock, open(files.open_regular(path, files.APPEND), "a") as file:
      file.write(json.dumps(row) + "\n")

  def purge(self, older_than: float) -> int:
    """Removes jobs without a kept take, and videos of no job, of some age.

    A job from which another that stays was made, stays with it.

    Args:
      older_than: seconds since they were made.

    Returns:
      The number of folders removed.

    Raises:
      OSError, ValueError: a job cannot be read; what it needs is not known, and
        nothing is removed.
    """
    limit, used, old = time.time() - older_than, set(), []
    with self._lock:
      found = {}
      for folder in (self.root / "jobs").iterdir():
        with contextlib.suppress(FileNotFoundError):  # It is being made.
          found[folder] = _read_job(folder)
      # The newest first: a job is made from takes of older ones.
      newest = lambda item: -item[1]["created"]
      for folder, job in sorted(found.items(), key=newest):
        kept = any(take["kept"] for take in job["takes"])
        busy = job["state"] in ("queued", "running")
        if kept or busy or job["created"] > limit or job["id"] in used:
          used |= {job["video"], job["like"], job["audio"]}
          used |= {job["base"]["job"]} if job["base"] else set()
        else:
          old.append(folder)
      for kind in KINDS:
        for folder in (self.root / kind).iterdir():
          unknown = folder not in found and folder.name not in used
          if unknown and folder.stat().st_mtime < limit:
            old.append(folder)
      for folder in old:  # At once, and then whole or not at all.
        folder.rename(self.tmp / folder.name)
    for folder in old:
      shutil.rmtree(self.tmp / folder.name, ignore_errors=True)
    return len(old)


def _read_job(folder: pathlib.Path) -> dict[str, Any]:
  job = files.read_json(folder / "job.json")
  if missing := _JOB - job.keys():
    raise ValueError(
      f"{folder / 'job.json'} is no job: it has no {min(missing)}"
    )
  return job


def safe_name(name: str) -> str:
  """Returns a file name from one that a client gives, which may be anything."""
  name = name.replace("\\", "/").rpartition("/")[2]
  stem, dot, ending = name.rpartition(".")
  ending = f".{ending.lower()}" if dot else ""
  if not _ENDING.fullmatch(ending):
    stem, ending = name, ".mp4"
  kept = (c if c.isalnum() or c in "-_ ." else "_" for c in stem)
  stem = "".join(kept).strip(" .")
  while len(stem.encode()) > _STEM_LETTERS:
    stem = stem[:-1]
  return (stem.strip(" .") or "video") + ending
