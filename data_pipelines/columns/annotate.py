"""Asks a labeller, a process of its own, about the clips of a data set.

The contract is in v2a_jax/labellers/contract.py: one JSON object a line, requests
on its standard input, answers on its standard output. Each answer is written to
the journal of its source at once, so that nothing is lost when the labeller, or
this process, ends; started again, it asks about the clips that have no answer.
"""

import collections
from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import shlex
import subprocess
import tempfile
import threading
import time
from typing import Any

from data_pipelines.assemble import Log
from data_pipelines.columns import records, store
from data_pipelines.columns.values import BY, ERROR, ColumnError
from data_pipelines.source import open_source
from v2a_jax.basics import parent
from v2a_jax.basics.progress import Progress
from v2a_jax.basics.settings import check

_TEXTS = ("caption", "audio_caption", "transcript", "label")
_LONGEST_LINE = 16 << 20  # bytes
_LAST_WORDS = 300  # letters of what a labeller said before it failed
_END_SECONDS = 10.0


class LabellerError(RuntimeError):
  """A labeller that did not finish; one line: what it did, what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
  """Options for asking a labeller.

  Attributes:
    by: who says it, where the answers do not say so themselves.
    ahead: clips that the labeller has at a time.
    timeout: seconds for which a labeller that owes answers may give none.
    per_minute: most clips that are asked about in a minute; 0 for no limit.
    limit: most clips that are asked about; 0 for all.
    again: ask about clips again that have an answer.
  """

  by: str = ""
  ahead: int = 8
  timeout: float = 600.0
  per_minute: float = 0.0
  limit: int = 0
  again: bool = False

  def __post_init__(self):
    check(self, ahead="[1, 1024]", timeout="(0, inf)", per_minute="[0, inf)")
    check(self, limit="[0, inf)")


@dataclasses.dataclass
class _Counts:
  """What came of the answers: of each wrong kind how many, and the first."""

  answers: int = 0
  errors: int = 0
  wrong: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  firsts: dict[str, str] = dataclasses.field(default_factory=dict)

  def refuse(self, kind: str, what: str) -> None:
    self.wrong[kind] += 1
    self.firsts.setdefault(kind, what[:120])

  def lines(self) -> Iterator[str]:
    """Yields the lines of the summary."""
    text = f"{self.answers:,} clips answered"
    yield text + f", of which {self.errors:,} with an error" * bool(self.errors)
    for kind, count in self.wrong.items():
      yield f"not used: {count:,} {kind}, the first: {self.firsts[kind]}"


def annotate(
  dataset: str | os.PathLike,
  name: str,
  command: str,
  *,
  options: AnnotateOptions = AnnotateOptions(),  # noqa: B008
  log: Log = print,
) -> None:
  """Asks a labeller about all clips that it has not answered yet.

  Args:
    dataset: folder of the data set.
    name: source that the columns are written to.
    command: program and arguments, as in a shell but without one.
    options: how it is asked.
    log: called with each line of the summary.

  Raises:
    DataError: the data set is missing or cannot be read.
    LabellerError: the labeller cannot be started, ended too early, or gave no
      answer for long.
  """
  known = records.make_records(dataset)
  source = open_source(dataset, "all")
  by, counts = options.by or command, _Counts()
  failure: Exception | None = None
  with store.Journal(dataset, name, again=options.again) as journal:
    todo = [
      i for i, k in enumerate(known.keys.tolist()) if k not in journal.done
    ]
    log(
      f"{len(known):,} clips, of which {len(known) - len(todo):,} are answered"
    )
    todo = todo[: options.limit or None]
    if todo:
      try:
        _ask(source, todo, command, by, journal, options, counts)
      except LabellerError as error:
        failure = error
    # Until all are asked again, their answers stay in the journal, by which the
    # same command knows them from those of before.
    if not (failure and options.again):
      journal.finish()
  for line in counts.lines():
    log(line)
  if failure:
    raise failure


def _ask(
  source, todo, command: str, by: str, journal, options, counts: _Counts
) -> None:
  """Sends requests and takes answers until all are there."""
  progress = Progress(len(todo), "annotate", unit="clips")
  owed: dict[str, tuple[str, tuple[pathlib.Path, ...]]] = {}
  given: set[str] = set()
  waiting, sent, heard_at = iter(todo), 0, time.monotonic()
  start = time.monotonic()
  with (
    tempfile.TemporaryDirectory(prefix="v2a_annotate_") as folder,
    _Labeller(command) as labeller,
  ):
    more = True
    while more or owed:
      while more and len(owed) < options.ahead:
        pause = sent * 60 / options.per_minute if options.per_minute else 0.0
        if time.monotonic() - start < pause:
          break
        index = next(waiting, None)
        if index is None:
          more = False
          labeller.close_input()
          break
        request, files = _request(source[index], index, pathlib.Path(folder))
        if not owed:
          heard_at = time.monotonic()
        owed[request["id"]] = (request["sha256"], files)
        labeller.send(json.dumps(request))
        sent += 1
      if not owed and more:
        time.sleep(0.05)  # The rate is limited.
        continue
      if not owed:
        break
      line = labeller.hear(0.1)
      if line is None:
        if time.monotonic() - heard_at > options.timeout:
          raise LabellerError(_silent(options, owed, labeller))
        continue
      if line == "":
        raise LabellerError(
          f"the labeller ended {labeller.status()} before it had answered;"
          f" {_unanswered(owed)}{labeller.last_words()}"
        )
      answer = _parse(line, owed, given, counts)
      if answer is None:
        late = time.monotonic() - heard_at > options.timeout
        if late:
          raise LabellerError(_silent(options, owed, labeller))
        continue
      heard_at = time.monotonic()
      id = answer.pop("id")
      sha256, files = owed.pop(id)
      given.add(id)
      for file in files:
        file.unlink(missing_ok=True)
      answer.pop("sha256", None)
      try:
        journal.add(id, sha256, answer | {BY: answer.get(BY) or by})
      except ColumnError as error:
        counts.refuse("answers of a wrong kind", f"{id}: {error}")
      else:
        counts.answers += 1
        counts.errors += ERROR in answer
      progress.update()
    progress.close()


def _silent(options: AnnotateOptions, owed, labeller) -> str:
  return (
    f"the labeller gave no answer for {options.timeout:g} s and was stopped;"
    f" {_unanswered(owed)}{labeller.last_words()}"
  )


def _parse(line: str, owed, given, counts: _Counts) -> dict[str, Any] | None:
  """Returns an answer that is owed; counts what is none."""
  try:
    answer = json.loads(line)
  except (ValueError, RecursionError):
    answer = None
  if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
    counts.refuse("lines that are no answers", repr(line.strip()))
    return None
  id = answer["id"]
  if id in owed:
    return answer
  kind = (
    "second answers" if id in given else "answers for clips not asked about"
  )
  counts.refuse(kind, repr(id))
  return None


def _request(
  record: Mapping[str, Any], index: int, folder: pathlib.Path
) -> tuple[dict[str, Any], tuple[pathlib.Path, ...]]:
  """Writes a record's media to files; returns the request and the files."""
  request = {"id": record["id"], "sha256": record["sha256"]}
  request["seconds"] = record["duration"]
  files = []
  for part, suffix in (("video", ".mp4"), ("audio", ".flac")):
    request[part] = None
    if record[part]:
      path = folder / f"{index:08d}{suffix}"
      path.write_bytes(record[part])
      files.append(path)
      request[part] = str(path)
  return request | {name: record[name] for name in _TEXTS}, tuple(files)


def _unanswered(owed) -> str:
  return (
    f"{len(owed)} clips that it had are not answered, the first: {next(iter(owed))};"
    " answers so far are kept, the same command goes on"
  )


class _Labeller:
  """A labeller's process, with threads that read and write its pipes."""

  def __init__(self, command: str):
    """Starts it; raises LabellerError if that is impossible."""
    self._stack = contextlib.ExitStack()
    try:
      words = shlex.split(command)
      if not words:
        raise ValueError("it is empty")
      session = parent.session(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
      )
      self._process = self._stack.enter_context(session)
    except (OSError, ValueError) as error:
      raise LabellerError(
        f"the labeller cannot be started: {command!r}: {error}"
      ) from None
    self._heard: queue.Queue[str] = queue.Queue()
    self._to_send: queue.Queue[str | None] = queue.Queue()
    self._errors = b""
    self._threads = [
      threading.Thread(target=target, daemon=True)
      for target in (self._read, self._write, self._read_errors)
    ]
    for thread in self._threads:
      thread.start()

  def __enter__(self) -> "_Labeller":
    return self

  def __exit__(self, kind, *_):
    with contextlib.suppress(subprocess.TimeoutExpired):
      if kind is None:
        self._process.wait(_END_SECONDS)
    self._to_send.put(None)
    self._stack.close()

  def send(self, line: str) -> None:
    self._to_send.put(line)

  def close_input(self) -> None:
    self._to_send.put(None)

  def hear(self, seconds: float) -> str | None:
    """Returns the next line, "" at the end, None if there is none in time."""
    try:
      return self._heard.get(timeout=seconds)
    except queue.Empty:
      return None

  def status(self) -> str:
    """Says how it ended."""
    try:
      code = self._process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
      return "its answers"
    return f"by signal {-code}" if code < 0 else f"with status {code}"

  def last_words(self) -> str:
    """Returns the end of what it wrote on standard error, for a message."""
    self._threads[2].join(1.0)
    text = " ".join(self._errors.decode(errors="replace").split())
    return f"; it said: {text[-_LAST_WORDS:]}" if text else ""

  def _read(self) -> None:
    for line in iter(lambda: self._process.stdout.readline(_LONGEST_LINE), b""):
      if line.strip():
        self._heard.put(line.decode(errors="replace"))
    self._heard.put("")

  def _write(self) -> None:
    # A labeller that ended reads no more; `_read` notices that.
    with contextlib.suppress(OSError):
      for line in iter(self._to_send.get, None):
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
    with contextlib.suppress(OSError):
      self._process.stdin.close()

  def _read_errors(self) -> None:
    for line in iter(lambda: self._process.stderr.readline(1 << 16), b""):
      self._errors = (self._errors + line)[-4 * _LAST_WORDS :]
