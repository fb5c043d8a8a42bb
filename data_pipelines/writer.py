"""Writes a data set: sharded, resumable, atomic.

Everything goes to `OUT.building` first and gets its name `OUT` when it is
whole, so `OUT` is a finished data set or does not exist. Items (source files,
scenes) arrive in a fixed order. A shard is closed between items, read back and
only then entered into `journal.jsonl`, with what became of each of its items.
Whoever starts the same build again finds those items done, and the interrupted
build ends with the same records in the same order as an undisturbed one: each
split's shards hold its items in order, and what an unclosed shard held is
simply made again.

Shards are ArrayRecord files with one record a group, uncompressed, because the
media inside is compressed already: 3 times faster random reads than the
default (https://github.com/google/array_record).
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

from array_record.python import array_record_module as array_record

from data_pipelines import schema
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.manifest import MANIFEST, file_sha256

DROPS = "drops.csv"
UNMATCHED = "unmatched.csv"
_JOURNAL = "journal.jsonl"
_BUILD = "build.json"
_LOCK = "lock"
_OPTIONS = "group_size:1,uncompressed"
# What must stay free on the disk: room to close shards and write the rest.
_RESERVE_BYTES = 16 << 20
_PART = re.compile(r"(train|val|test)-(\d{5})\.part")
_FINAL = re.compile(
  rf"{schema.DATASET_NAME}-(train|val|test)\.array_record-(\d{{5}})-of-\d{{5}}"
)


class BuildError(RuntimeError):
  """A data set that cannot be built: one line, what, where, what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """What became of one item.

  Attributes:
    key: the item's name; unique in the build.
    sha256: of the source file; "" where there is none.
    clips: for each record written {"id", "split", "seconds", "texts"}.
    drops: for each stretch not written {"start", "end", "reason", "detail"};
      start and end are None for the whole item.
    notes: counted in the manifest, for example "transcoded".
  """

  key: str
  sha256: str = ""
  clips: Sequence[Mapping[str, Any]] = ()
  drops: Sequence[Mapping[str, Any]] = ()
  notes: Sequence[str] = ()


class DatasetWriter:
  """Takes items in order and leaves a data set; see the module's text.

  A context manager: leaving it in any way closes the shards begun, so that
  everything added counts when the build is started again.

  Attributes:
    done: outcomes of items that an interrupted build left, by key.
  """

  def __init__(
    self,
    out: str | os.PathLike,
    *,
    fingerprint: str,
    shard_bytes: int = 128 << 20,
    overwrite: bool = False,
  ):
    """Opens or continues the build of `out`.

    Raises:
      BuildError: `out` exists and may not be overwritten, is being built by
        another process, or its folder cannot be written.
    """
    self.out = pathlib.Path(out)
    self._check_target(overwrite)
    self._work = self.out.with_name(self.out.name + ".building")
    self._shard_bytes = shard_bytes
    self._features = schema.features()
    self._open: dict[str, _Shard] = {}
    self._shards: list[dict[str, Any]] = []
    self.done: dict[str, Outcome] = {}
    try:
      self._work.mkdir(parents=True, exist_ok=True)
      self._lock = open(self._work / _LOCK, "w")
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise BuildError(
        f"{self.out} is being built by another process right now"
      ) from None
    except OSError as error:
      raise BuildError(f"cannot write to {self._work}: {error}") from None
    self._continue_or_restart(fingerprint)

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

  def add(self, outcome: Outcome, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes the records of one item, which all belong to one split.

    Raises:
      SchemaError: a record is not valid.
      BuildError: the disk is full.
    """
    for record in records:
      schema.validate(record)
    encoded = [self._serialize(record) for record in records]
    self._check_space(sum(map(len, encoded)))
    if not records:
      self._journal({"items": [dataclasses.asdict(outcome)]})
    else:
      split = records[0]["split"]
      if split not in self._open:
        number = sum(shard["split"] == split for shard in self._shards)
        part = self._work / f"{split}-{number:05d}.part"
        self._open[split] = _Shard(part, split)
      shard = self._open[split]
      shard.write(outcome, encoded)
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
  ) -> dict[str, Any]:
    """Gives the data set its name; returns the whole manifest.

    Raises:
      BuildError: nothing was kept, or the disk is full. What was written
        stays for the next attempt.
    """
    for split in list(self._open):
      self._close_shard(split)
    if not self._shards:
      raise BuildError(
        f"no clip was kept, so {self.out} is not made: "
        f"{_reasons(manifest['drops'])}; see {self._save_drops()}"
      )
    try:
      shards = self._name_shards()
      whole = dict(manifest, shards=shards)
      whole["tokenizer"] = _tokenizer_facts(tokenizer)
      self._write_metadata(shards, description)
      (self._work / tokenizer_lib.FILENAME).write_bytes(tokenizer)
      if unmatched is not None:
        header = ("line", "file", "reason")
        _write_csv(self._work / UNMATCHED, header, unmatched)
      self._save_drops()
      (self._work / MANIFEST).write_text(
        json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
      )
      self._swap_in()
    except OSError as error:
      raise _disk_error(self._work, error) from None
    return whole

  def _serialize(self, record: Mapping[str, Any]) -> bytes:
    """The same bytes for the same record; a protobuf map has no order."""
    # pylint: disable=g-import-not-at-top
    from tensorflow_datasets.proto import tf_example_pb2

    stored = self._features.encode_example(schema.encode(record))
    message = tf_example_pb2.Example.FromString(
      self._features.serialize_example(stored)
    )
    return message.SerializeToString(deterministic=True)

  def _check_target(self, overwrite: bool) -> None:
    if not self.out.exists() or not any(self.out.iterdir()):
      return
    if not (self.out / MANIFEST).is_file():
      raise BuildError(
        f"{self.out} exists and is no data set; it is left alone, so give "
        "another folder"
      )
    if not overwrite:
      raise BuildError(
        f"{self.out} holds a data set built from other files or settings; "
        "give another folder, or --overwrite to replace it"
      )

  def _continue_or_restart(self, wanted: str) -> None:
    build, journal = self._work / _BUILD, self._work / _JOURNAL
    same = build.is_file() and wanted in build.read_text()
    if not same:
      for path in self._work.iterdir():
        if path.name != _LOCK:
          path.unlink()
      build.write_text(json.dumps({"fingerprint": wanted}) + "\n")
      journal.touch()
    for path in self._work.iterdir():  # named for good, then interrupted
      if match := _FINAL.fullmatch(path.name):
        path.rename(self._work / f"{match[1]}-{match[2]}.part")
    for line in journal.read_text().splitlines():
      try:
        entry = json.loads(line)
      except ValueError:  # cut off while it was written: not entered
        continue
      self._shards += [entry["shard"]] if "shard" in entry else []
      for item in entry["items"]:
        self.done[item["key"]] = Outcome(**item)
    kept = {shard["file"] for shard in self._shards}
    for path in self._work.iterdir():
      if _PART.fullmatch(path.name) and path.name not in kept:
        path.unlink()

  def _check_space(self, size: int) -> None:
    free = shutil.disk_usage(self._work).free
    if free < size + _RESERVE_BYTES:
      error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      raise _disk_error(self._work, error)

  def _journal(self, entry: Mapping[str, Any]) -> None:
    try:
      with open(self._work / _JOURNAL, "a") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
      raise _disk_error(self._work, error) from None

  def _close_shard(self, split: str) -> None:
    shard = self._open.pop(split)
    facts = shard.close()
    items = [dataclasses.asdict(outcome) for outcome in shard.outcomes]
    self._journal({"shard": facts, "items": items})
    self._shards.append(facts)

  def _name_shards(self) -> list[dict[str, Any]]:
    """Renames parts to TFDS's `-00001-of-00004`, which needs the total."""
    named = []
    for split in schema.SPLITS:
      shards = [shard for shard in self._shards if shard["split"] == split]
      for i, shard in enumerate(shards):
        name = (
          f"{schema.DATASET_NAME}-{split}.array_record-"
          f"{i:05d}-of-{len(shards):05d}"
        )
        (self._work / shard["file"]).rename(self._work / name)
        named.append(dict(shard, file=name))
    return named

  def _write_metadata(self, shards, description: str) -> None:
    """What lets anyone open the folder with `tfds.builder_from_directory`."""
    import tensorflow_datasets as tfds  # pylint: disable=g-import-not-at-top

    template = tfds.core.ShardedFileTemplate(
      data_dir=self._work,
      dataset_name=schema.DATASET_NAME,
      filetype_suffix="array_record",
      template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
    splits = []
    for split in schema.SPLITS:
      own = [shard for shard in shards if shard["split"] == split]
      if own:
        splits.append(
          tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard["records"] for shard in own],
            num_bytes=sum(shard["bytes"] for shard in own),
            filename_template=template,
          )
        )
    tfds.folder_dataset.write_metadata(
      data_dir=self._work,
      features=self._features,
      split_infos=splits,
      version=f"{schema.SCHEMA_VERSION}.0.0",
      description=description,
      check_data=False,  # the check needs TensorFlow; ours is in `close`
    )

  def _save_drops(self) -> pathlib.Path:
    rows = [
      (o.key, d["start"], d["end"], d["reason"], d["detail"])
      for o in sorted(self.done.values(), key=lambda o: o.key)
      for d in o.drops
    ]
    path = self._work / DROPS
    _write_csv(path, ("file", "start", "end", "reason", "detail"), rows)
    return path

  def _swap_in(self) -> None:
    for name in (_JOURNAL, _BUILD, _LOCK):
      (self._work / name).unlink()
    old = self.out.with_name(self.out.name + ".old")
    if self.out.exists():
      shutil.rmtree(old, ignore_errors=True)
      self.out.rename(old)
    self._work.rename(self.out)
    shutil.rmtree(old, ignore_errors=True)


class _Shard:
  """One ArrayRecord file that is being written."""

  def __init__(self, path: pathlib.Path, split: str):
    self._path, self._split = path, split
    self._writer = array_record.ArrayRecordWriter(str(path), _OPTIONS)
    self.outcomes: list[Outcome] = []
    self.records, self.bytes = 0, 0

  def write(self, outcome: Outcome, records: Sequence[bytes]) -> None:
    for record in records:
      self._writer.write(record)
      self.bytes += len(record)
    self.records += len(records)
    self.outcomes.append(outcome)

  def close(self) -> dict[str, Any]:
    """Closes, reads back, and gives the manifest's entry.

    Errors of earlier writes appear only here: ArrayRecord writes behind.
    """
    try:
      self._writer.close()
      reader = array_record.ArrayRecordReader(str(self._path))
      found = reader.num_records()
      reader.close()
    except (RuntimeError, OSError) as error:
      raise _disk_error(self._path, error) from None
    if found != self.records:
      raise _disk_error(self._path, f"{found} of {self.records} records")
    return {
      "file": self._path.name,
      "split": self._split,
      "records": self.records,
      "bytes": self._path.stat().st_size,
      "sha256": file_sha256(self._path),
    }


def _disk_error(path: pathlib.Path, error: Exception | str) -> BuildError:
  full = isinstance(error, OSError) and error.errno == errno.ENOSPC
  what = "the disk is full" if full else f"cannot write: {error}"
  what = " ".join(what.split())
  return BuildError(
    f"{path}: {what}; what was written is kept, so make room and start the "
    "same command again"
  )


def _tokenizer_facts(model: bytes) -> dict[str, Any]:
  return {
    "file": tokenizer_lib.FILENAME,
    "vocab_size": tokenizer_lib.Tokenizer(model).vocab_size,
    "sha256": hashlib.sha256(model).hexdigest(),
  }


def _reasons(drops: Mapping[str, int]) -> str:
  return ", ".join(f"{n} {reason}" for reason, n in drops.items()) or "no input"


def _write_csv(path: pathlib.Path, header: Sequence[str], rows) -> None:
  with open(path, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
