"""Builds on many machines: an Apache Beam pipeline in place of the local pool.

The same function makes the records of an item. Items are divided into chunks of
consecutive ones; a worker makes one chunk and leaves it as one file in
`OUT.parts`, a folder that all machines reach. This machine then writes the parts,
in order, as the pool's results would be written, so the shards are the same,
byte for byte. A part appears whole or not at all, and its name has digests of
the build and of its items: a pipeline that was interrupted makes only what is
missing, and no part is taken for another's.

https://beam.apache.org/documentation/runners/capability-matrix/
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import shlex
import tempfile
import threading
from typing import Any

from array_record.python import array_record_module as array_record

from data_pipelines import schema
from data_pipelines.shard import WRITE_OPTIONS, BuildError, Outcome, serialize
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.basics.progress import Progress
from v2a_jax.basics.settings import SettingError, check, choose

RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner")
_POLL_SECONDS = 2.0

# The outcome of an item and its records, as they are stored.
Stored = tuple[Outcome, Sequence[bytes]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamOptions:
  """Where a build runs.

  Attributes:
    runner: one of `RUNNERS`; "" for processes of this machine without Beam.
    beam_options: further options of the pipeline, as on a command line.
    chunk: number of items that a worker makes at a time.
  """

  runner: str = ""
  beam_options: str = ""
  chunk: int = 64

  def __post_init__(self):
    choose(self, runner=("", *RUNNERS))
    check(self, chunk="[1, inf)")
    try:
      shlex.split(self.beam_options)
    except ValueError as error:
      raise SettingError(
        f"beam_options={self.beam_options!r}: {error}; write them as in a shell"
      ) from None


def run(
  make: Callable[[str], Any],
  keys: Sequence[str],
  *,
  done: Container[str],
  out,
  digest: str,
  options: BeamOptions,
  workers: int,
  unit: str,
) -> Iterator[Stored]:
  """Yields the results of `make(key)` for the keys not done, in their order.

  Args:
    make: maps a key to an outcome and records. Where it is a
      `functools.partial`, mappings by key among its keyword arguments are cut
      to the keys of a chunk.
    keys: names of all items.
    done: names of the items that an interrupted build has finished.
    out: folder of the data set.
    digest: digest of the build.
    options: where it runs.
    workers: number of workers of a DirectRunner.
    unit: name of the items, in plural.

  Raises:
    BuildError: Beam is not installed, or the pipeline fails.
  """
  folder = parts_place(out)
  folder.mkdir(parents=True, exist_ok=True)
  try:
    yield from _made(
      make, keys, done, folder, digest, options, workers=workers, unit=unit
    )
  finally:
    if not is_remote(folder):  # An object store has no folders.
      with contextlib.suppress(OSError):
        folder.rmdir()  # If nothing is left in it.


def _made(
  make, keys, done, folder, digest: str, options: BeamOptions, *, workers, unit
) -> Iterator[Stored]:
  """Makes the parts that are missing; yields what all hold, and removes them."""
  chunks = {}
  # Of all keys, so that they stay where they are when more of them are done.
  for first in range(0, len(keys), options.chunk):
    chunk = [k for k in keys[first : first + options.chunk] if k not in done]
    if chunk:
      of_keys = hashlib.sha256("\n".join(chunk).encode()).hexdigest()
      chunks[f"{digest[:16]}-{first:09d}-{of_keys[:16]}.part"] = chunk
  there = {path.name for path in folder.iterdir()}
  tasks = [
    _Task(str(folder / name), _narrow(make, chunk), chunk)
    for name, chunk in chunks.items()
    if name not in there
  ]
  if tasks:
    count = sum(map(len, chunks.values()))
    with _progress(folder, [*chunks], count, options.chunk, unit):
      _run_pipeline(tasks, options, workers)
  for name in chunks:
    yield from _read_part(folder / name)
    (folder / name).unlink()
  for path in folder.iterdir():  # Of builds that were interrupted.
    path.unlink()


def parts_place(out) -> Any:
  """Returns the folder of the parts of a build; it may be on an object store."""
  out = as_path(out)
  return out.with_name(out.name + ".parts")


@dataclasses.dataclass(frozen=True)
class _Task:
  """What a worker does: the items `keys`, by `make`, to the file `part`."""

  part: str
  make: Callable[[str], Any]
  keys: Sequence[str]


def _narrow(make: Callable[[str], Any], keys: Sequence[str]):
  """Returns `make` without what other keys need, which would travel along."""
  if not isinstance(make, functools.partial):
    return make
  cut = {
    name: {key: value[key] for key in keys if key in value}
    for name, value in make.keywords.items()
    if isinstance(value, Mapping)
  }
  return functools.partial(make.func, *make.args, **make.keywords | cut)


def _run_pipeline(tasks: Sequence[_Task], options: BeamOptions, workers: int):
  try:
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as error:
    raise BuildError(
      f"--runner={options.runner} needs Apache Beam ({error}): pip install"
      " 'v2a_jax[beam]'"
    ) from None
  flags = {"runner": options.runner}
  if options.runner == "DirectRunner":
    # Threads suffice: each waits for a media process.
    flags |= {"direct_num_workers": workers}
    flags |= {"direct_running_mode": "multi_threading"}
  given, heard = shlex.split(options.beam_options), io.StringIO()
  try:
    with contextlib.redirect_stderr(heard):
      given = PipelineOptions(given, **flags)
      given.get_all_options()
  except SystemExit:  # They are parsed by argparse.
    *_, line = heard.getvalue().strip().split("\n")
    raise BuildError(f"beam_options={options.beam_options!r}: {line}") from None
  try:
    with apache_beam.Pipeline(options=given) as pipeline:
      created = pipeline | "tasks" >> apache_beam.Create(tasks)
      spread = created | "spread" >> apache_beam.Reshuffle()
      _ = spread | "make parts" >> apache_beam.Map(make_part)
  except Exception as error:  # Runners raise whatever they like.
    # Their texts are those of a worker's traceback, which ends with the reason.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else type(error).__name__
    raise BuildError(
      f"{options.runner}: {reason}; parts that are done are kept, so start the"
      " same command again"
    ) from None


def make_part(task: _Task) -> str:
  """Makes the items of a task and leaves them as one file; returns its path."""
  items, encoded = [], []
  for key in task.keys:
    outcome, records = task.make(key)
    for record in records:
      schema.validate(record)
      encoded.append(serialize(record))
    items.append(dataclasses.asdict(outcome) | {"records": len(records)})
  with tempfile.TemporaryDirectory() as folder:
    part = pathlib.Path(folder, "part")
    writer = array_record.ArrayRecordWriter(str(part), WRITE_OPTIONS)
    writer.write(json.dumps(items, ensure_ascii=False).encode())
    for record in encoded:
      writer.write(record)
    writer.close()
    target = as_path(task.part)
    if is_remote(target):
      target.upload(part)
    else:
      files.write_whole(target, part.read_bytes())
  return task.part


def _read_part(path) -> Iterator[Stored]:
  """Yields the items of a part."""
  with tempfile.TemporaryDirectory() as folder:
    local = path
    if is_remote(path):
      local = pathlib.Path(folder, "part")
      path.download(local)
    reader = array_record.ArrayRecordReader(str(local))
    try:
      (head,) = reader.read([0])
      first = 1
      for item in json.loads(head):
        count = item.pop("records")
        records = (
          list(reader.read(list(range(first, first + count)))) if count else []
        )
        first += count
        yield Outcome(**item), records
    finally:
      reader.close()


@contextlib.contextmanager
def _progress(folder, names: Sequence[str], total: int, chunk: int, unit: str):
  """Shows, while the pipeline runs, how many items have been made."""
  done, wanted = threading.Event(), set(names)

  def count() -> int:
    there = sum(path.name in wanted for path in folder.iterdir())
    return min(there * chunk, total)

  seen = count()
  progress = Progress(total, "build", unit=unit, done=seen)

  def watch(seen: int) -> None:
    while not done.wait(_POLL_SECONDS):
      now = count()
      progress.update(now - seen)
      seen = now

  thread = threading.Thread(target=watch, args=(seen,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    progress.close()
