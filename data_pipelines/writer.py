"""Writes a data set: sharded, resumable, atomic.

All files are written to `OUT.building`, which is renamed to `OUT` when the data
set is complete: `OUT` is a finished data set or does not exist. Items (source
files, scenes) arrive in a fixed order. A shard is closed between two items,
read back, and only then entered into `journal.jsonl` together with the outcomes
of its items. The same build, started again, skips those items and repeats those
of shards that were not closed. It ends with the same records in the same order
as a build without interruption: a split's shards hold its items in order.

Beside each closed shard lies the list of its records without media, which is
joined to `columns/records.arrow` in the end.

A data set on an object store is built in the cache of this machine and then
uploaded, its manifest last: without it there is no data set.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

import pyarrow as pa

from data_pipelines import schema, tfds_files
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.columns import arrow, provenance
from data_pipelines.columns import records as records_lib
from data_pipelines.manifest import MANIFEST
from data_pipelines.places import (
  DROPS,
  UNMATCHED,
  put_in_place,
  work_place,
)
from data_pipelines.readings import READINGS
from data_pipelines.shard import (
  BUILD,
  JOURNAL,
  LOCK,
  BuildError,
  Outcome,
  Shard,
  disk_error,
  read_journal,
  serialize,
)
from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path, check_writable

_ROWS = ".rows.arrow"
# Free space that the disk must keep, to close shards and write the metadata.
_RESERVE_BYTES = 16 << 20
_PART = re.compile(r"(train|val|test)-(\d{5})\.part")


class DatasetWriter:
  """Writes items, in order, as a data set; see the module's text.

  A context manager: leaving it, also by an exception, closes the open shards,
  so that the build can continue after every item that was added.

  Attributes:
    out: folder of the data set; it appears when the build is complete.
    done: outcomes by key, those of an interrupted build included.
    discarded: whether an interrupted build of another fingerprint was there.
  """

  def __init__(
    self,
    out: str | os.PathLike,
    *,
    fingerprint: str,
    shard_bytes: int = 128 << 20,
    overwrite: bool = False,
    changes: str = "",
    media: Any = None,
  ):
    """Starts the build of `out`, or continues it.

    Args:
      out: folder of the data set.
      fingerprint: digest of the input and settings; a build is continued only
        with the same one.
      shard_bytes: a shard is closed once its records have this many bytes.
      overwrite: whether to replace a finished data set of another fingerprint.
      changes: what differs from it, for the error.
      media: settings that shape the media, JSON-able; see readings.py.

    Raises:
      BuildError: `out` exists and may not be overwritten, is being built by
        another process, or its folder cannot be written.
    """
    self.out = as_path(out)
    check_writable(self.out)
    self._check_target(overwrite, changes)
    self._work = work_place(out)
    self._shard_bytes = shard_bytes
    self._features = schema.features()
    self._open: dict[str, Shard] = {}
    self._shards: list[dict[str, Any]] = []
    self.done: dict[str, Outcome] = {}
    try:
      self._work.mkdir(parents=True, exist_ok=True)
      flags = os.O_WRONLY | os.O_CREAT
      self._lock = open(files.open_regular(self._work / LOCK, flags), "w")
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      for path in self._work.iterdir():
        if not path.is_dir():
          files.check_regular(path)
    except BlockingIOError:
      raise BuildError(
        f"{self.out} is being built by another process; wait for it, or give "
        "another folder"
      ) from None
    except OSError as error:
      raise BuildError(f"cannot write to {self._work}: {error}") from None
    self._continue_or_restart(fingerprint, media)

  def __enter__(self) -> "DatasetWriter":
    return self

  def __exit__(self, kind, error, trace):
    try:
      for split in list(self._open):
        self._close_shard(split)
    except BuildError:
      if error is None:
        raise
    finally:
      self._lock.close()

  def add(
    self, outcome: Outcome, records: Sequence[Mapping[str, Any] | bytes]
  ) -> None:
    """Writes the records of one item, all of one split; none if it was dropped.

    Args:
      outcome: what became of the item.
      records: its records, or what `shard.serialize` has made of them.

    Raises:
      SchemaError: a record is not valid.
      BuildError: the disk is full.
    """
    encoded = list(map(_encoded, records))
    rows = list(map(self._row, records))
    self._check_space(sum(map(len, encoded)))
    if not records:
      self._journal({"items": [dataclasses.asdict(outcome)]})
    else:
      split = outcome.clips[0]["split"]
      if split not in self._open:
        number = sum(shard["split"] == split for shard in self._shards)
        part = self._work / f"{split}-{number:05d}.part"
        self._open[split] = Shard(part, split)
      shard = self._open[split]
      shard.write(outcome, encoded, rows)
      if shard.bytes >= self._shard_bytes:
        self._close_shard(split)
    self.done[outcome.key] = outcome

  def finish(
    self,
    manifest: Mapping[str, Any],
    *,
    description: str,
    tokenizer: bytes,
    unmatched: Sequence[tuple[int, str, str]] | None = None,
    readings: str = "",
  ) -> dict[str, Any]:
    """Completes the data set, renames it to `out`, returns the whole manifest.

    Args:
      manifest: entries of the manifest besides the shards and the tokenizer.
      description: one sentence for TFDS.
      tokenizer: the sentencepiece model's bytes.
      unmatched: see `assemble.Plan`.
      readings: content of `readings.jsonl`; "" for none.

    Raises:
      BuildError: nothing was kept, or the disk is full. The next attempt
        continues with what was written.
    """
    for split in list(self._open):
      self._close_shard(split)
    if not self._shards:
      raise BuildError(
        f"no clip was kept, so {self.out} is not written: "
        f"{listing(manifest['drops']) or 'no input'}; see {self._save_drops()}"
      )
    try:
      rows = self._rows()
      shards = self._name_shards()
      whole = dict(manifest, shards=shards)
      if rows is not None:
        records_lib.write_records(self._work, whole, rows)
      provenance.write(
        self._work,
        ((o.sha256, clip) for o in self.done.values() for clip in o.clips),
      )
      whole["tokenizer"] = {
        "file": tokenizer_lib.FILENAME,
        "vocab_size": tokenizer_lib.Tokenizer(tokenizer).vocab_size,
        "sha256": hashlib.sha256(tokenizer).hexdigest(),
      }
      tfds_files.write(self._work, shards, description)
      (self._work / tokenizer_lib.FILENAME).write_bytes(tokenizer)
      if unmatched is not None:
        header = ("line", "file", "reason")
        _write_csv(self._work / UNMATCHED, header, unmatched)
      if readings:
        (self._work / READINGS).write_text(readings, "utf-8")
        whole["readings"] = hashlib.sha256(readings.encode()).hexdigest()
      self._save_drops()
      files.write_json(self._work / MANIFEST, whole, ensure_ascii=False)
      self._put_in_place()
    except OSError as error:
      raise disk_error(self._work, error) from None
    return whole

  def _check_target(self, overwrite: bool, changes: str) -> None:
    if self.out.is_file():
      raise BuildError(f"{self.out} is a file; give another folder")
    if not self.out.exists() or not any(self.out.iterdir()):
      return
    if not (self.out / MANIFEST).is_file():
      raise BuildError(
        f"{self.out} exists and is no data set; it is not touched, so give "
        "another folder"
      )
    if not overwrite:
      raise BuildError(
        f"{self.out} is a data set built from other files or settings"
        f"{f' ({changes})' * bool(changes)}; give another folder, or --overwrite"
        " to replace it"
      )

  def _continue_or_restart(self, wanted: str, media) -> None:
    """Reads the journal of a build of the same fingerprint, or starts anew."""
    build, journal = self._work / BUILD, self._work / JOURNAL
    same = build.is_file() and wanted in files.read_bytes(build).decode()
    self.discarded = not same and journal.is_file()
    if not same:
      for path in self._work.iterdir():
        if path.is_dir():
          shutil.rmtree(path)
        elif path.name != LOCK:
          path.unlink()
      build.write_text(
        json.dumps({"fingerprint": wanted, "media": media}) + "\n"
      )
      journal.touch()
    # `_name_shards` may have run before the interruption.
    for path in self._work.iterdir():
      if match := tfds_files.SHARD.fullmatch(path.name):
        path.rename(self._work / f"{match[1]}-{match[2]}.part")
    if not files.read_bytes(journal).endswith(b"\n"):
      with open(journal, "ab") as file:
        file.write(b"\n")  # the last line was cut off: end it
    try:
      self._shards, outcomes = read_journal(journal)
    except ValueError as error:
      raise BuildError(
        f"{error}; remove {self._work} to begin this build again"
      ) from None
    self.done = {outcome.key: outcome for outcome in outcomes}
    entered = {shard["file"] for shard in self._shards}
    for path in self._work.iterdir():
      if _PART.fullmatch(path.name) and path.name not in entered:
        path.unlink()

  def _check_space(self, size: int) -> None:
    free = shutil.disk_usage(self._work).free
    if free < size + _RESERVE_BYTES:
      error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      raise disk_error(self._work, error)

  def _journal(self, entry: Mapping[str, Any]) -> None:
    try:
      with open(self._work / JOURNAL, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
      raise disk_error(self._work, error) from None

  def _close_shard(self, split: str) -> None:
    shard = self._open.pop(split)
    facts = shard.close()
    table = pa.Table.from_pylist(shard.rows, records_lib.SCHEMA)
    try:
      arrow.write(self._work / _rows_of(facts["file"]), table)
    except OSError as error:
      raise disk_error(self._work, error) from None
    items = [dataclasses.asdict(outcome) for outcome in shard.outcomes]
    self._journal({"shard": facts, "items": items})
    self._shards.append(facts)

  def _row(self, record: Mapping[str, Any] | bytes) -> dict[str, Any]:
    """Returns what `records.arrow` lists of a record, as it is stored."""
    if isinstance(record, bytes):
      stored = self._features.deserialize_example_np(record)
    else:
      stored = schema.encode(record)
    return records_lib.row_of(schema.decode(stored))

  def _rows(self) -> list[pa.Table] | None:
    """Reads the rows of all shards, in their order; None if some are missing.

    An earlier version, which has closed shards of this build, wrote none.
    """
    tables = [
      arrow.read(self._work / _rows_of(shard["file"]))
      for split in schema.SPLITS
      for shard in self._shards
      if shard["split"] == split
    ]
    return None if any(table is None for table in tables) else tables

  def _name_shards(self) -> list[dict[str, Any]]:
    """Renames shards to TFDS's `-00001-of-00004`; returns their entries."""
    named = []
    for split in schema.SPLITS:
      shards = [shard for shard in self._shards if shard["split"] == split]
      for i, shard in enumerate(shards):
        name = tfds_files.shard_name(split, i, len(shards))
        (self._work / shard["file"]).rename(self._work / name)
        named.append(dict(shard, file=name))
    return named

  def _save_drops(self) -> pathlib.Path:
    rows = [
      (o.key, d["start"], d["end"], d["reason"], d["detail"])
      for o in sorted(self.done.values(), key=lambda o: o.key)
      for d in o.drops
    ]
    path = self._work / DROPS
    _write_csv(path, ("file", "start", "end", "reason", "detail"), rows)
    return path

  def _put_in_place(self) -> None:
    rows = [path.name for path in self._work.glob(f"*{_ROWS}")]
    own = (JOURNAL, BUILD, LOCK, *rows)
    put_in_place(self._work, self.out, without=own)


def _rows_of(part: str) -> str:
  """Returns the name of the file with the rows of a shard that is closed."""
  return part.removesuffix(".part") + _ROWS


def _encoded(record: Mapping[str, Any] | bytes) -> bytes:
  if isinstance(record, bytes):
    return record
  schema.validate(record)
  return serialize(record)


def listing(counts: Mapping[str, int]) -> str:
  """Returns counts by name as text, such as `3 silent, 1 too short`."""
  return ", ".join(f"{n} {name}" for name, n in counts.items())


def _write_csv(path: pathlib.Path, header: Sequence[str], rows) -> None:
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
