"""Measures all clips of a data set: `v2a data measure`.

Nothing is deleted and no media changed; what is measured stands in columns:

  measures       loudness, peak, silence, … (sound.py), still, motion, shots
                 (picture.py), `unsounded`: seconds of the clip without sound
  fingerprints   of sound and picture (prints.py), and `bytes`, a digest
  copies         what the fingerprints say: `duplicate` of an earlier clip (of
                 test before val before train), `leak`: a copy of a clip that is
                 held out, of this or another data set; `duplicate_of`,
                 `leak_of`, `sound_of`, `frames_of` name the other one
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.assemble import Log, ordered_map
from data_pipelines.columns import (
  copies,
  picture,
  prints,
  records,
  sound,
  store,
)
from data_pipelines.columns.records import Records, key_of
from data_pipelines.source import Source, open_source
from v2a_jax import media
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.progress import Progress
from v2a_jax.basics.settings import check

MEASURES, FINGERPRINTS, COPIES = "measures", "fingerprints", "copies"
BY = "v2a_jax@1"
_HELD_OUT = ("test", "val")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureOptions:
  """Options for measuring.

  Attributes:
    workers: clips that are measured at a time.
    again: measure clips again that are measured.
  """

  workers: int = 2
  again: bool = False

  def __post_init__(self):
    check(self, workers="[1, inf)")


@dataclasses.dataclass(frozen=True)
class Measured:
  """What one record gives.

  Attributes:
    values: columns of `measures`; `error` if its media cannot be read.
    prints: columns of `fingerprints`.
  """

  id: str
  sha256: str
  values: Mapping[str, Any]
  prints: Mapping[str, Any]


def measure_record(record: Mapping[str, Any]) -> Measured:
  """Measures one record; what cannot be decoded or measured is an `error`."""
  values: dict[str, Any] = {"by": BY}
  digest = hashlib.sha256(record["video"] + record["audio"]).hexdigest()
  found: dict[str, Any] = {"bytes": digest[:32], "by": BY}
  try:
    if record["audio"]:
      samples, rate = media.limited(media.decode_flac)(record["audio"])
      values |= sound.measure(samples, rate)
      values["unsounded"] = max(0.0, record["duration"] - len(samples) / rate)
      found["sound"] = prints.to_text(prints.of_sound(samples, rate))
    if record["video"]:
      video = media.limited(media.read_video)(
        record["video"],
        max_fps=picture.FPS,
        size=(picture.SIDE, picture.SIDE),
      )
      grey = picture.grey(video.frames)
      values |= picture.measure(grey)
      found["frames"] = prints.to_text(prints.of_picture(grey, video.times))
  except media.MediaError as error:
    values["error"] = error.reason
  except ValueError as error:  # BS.1770 has loudness of five channels at most.
    values["error"] = str(error)
  return Measured(record["id"], record["sha256"], values, found)


def measure(
  dataset: str | os.PathLike,
  *,
  against: Sequence[str | os.PathLike] = (),
  options: MeasureOptions = MeasureOptions(),  # noqa: B008
  log: Log = print,
) -> None:
  """Measures a data set, and compares its clips with one another.

  Args:
    dataset: folder of the data set; its `columns` are written.
    against: folders of evaluation sets, none of whose clips should be in it.
    options: how it is measured.
    log: called with each line of the summary.

  Raises:
    DataError: a data set is missing or cannot be read.
    OSError: the folder cannot be written.
  """
  others = [(as_path(path), open_source(path, "all")) for path in against]
  known = records.make_records(dataset)
  source = open_source(dataset, "all")
  with (
    store.Journal(dataset, MEASURES, again=options.again) as values,
    store.Journal(dataset, FINGERPRINTS, again=options.again) as found,
  ):
    done = values.done & found.done
    keys = known.keys.tolist()
    todo = [i for i, key in enumerate(keys) if key not in done]
    failed = 0
    for one in _measured(source, todo, options.workers, "measure"):
      values.add(one.id, one.sha256, one.values)
      found.add(one.id, one.sha256, one.prints)
      failed += "error" in one.values
    values.finish()
    found.finish()
  log(
    f"{len(todo):,} of {len(known):,} clips measured"
    + f", {failed:,} cannot be decoded" * bool(failed)
  )
  _write_copies(dataset, known, others, options, log)
  log(f"see v2a data columns {dataset}, v2a data report {dataset}")


def _measured(
  source: Source, indices: Sequence[int], workers: int, label: str
) -> Iterator[Measured]:
  """Yields what the records give, in order."""
  progress = Progress(len(indices), label, unit="clips")
  work = lambda index: measure_record(source[index])
  # Threads: decoders run in processes of their own, numpy frees the lock.
  with futures.ThreadPoolExecutor(workers) as pool:
    for one in ordered_map(work, indices, pool, ahead=2 * workers):
      yield one
      progress.update()
  progress.close()


def _write_copies(dataset, known: Records, others, options, log: Log) -> None:
  """Compares all fingerprints and writes `copies`."""
  table = known.table
  splits = table["split"].to_numpy(zero_copy_only=False)
  rank = {name: i for i, name in enumerate((*_HELD_OUT, "train"))}
  order = np.argsort([rank[split] for split in splits], kind="stable")
  own = store.open_columns(dataset, FINGERPRINTS)
  _, ends = own.rows(known.keys[order])  # All have been measured.
  columns = {
    name: own.table[name] if name in own.names else None
    for name in ("bytes", "sound", "frames")
  }
  names, foreign = [], {name: [] for name in columns}
  for path, source in others:
    label = f"prints of {path.name}"
    for one in _measured(source, range(len(source)), options.workers, label):
      names.append(f"{path.name}: {one.id}")
      for name, values in foreign.items():
        values.append(one.prints.get(name))
  count, first = len(names) + len(known), len(names)

  def look_up(name: str) -> Callable[[int], Any]:
    def get(clip: int):
      if clip < first:
        return foreign[name][clip]
      column = columns[name]
      return None if column is None else column[ends[clip - first] - 1].as_py()

    return get

  same: dict[str, dict[int, int]] = {"bytes": _equal(look_up("bytes"), count)}
  for name, kind in (("sound", copies.SOUND), ("frames", copies.PICTURE)):
    get = look_up(name)
    unpack = lambda clip, get=get: prints.from_text(get(clip))
    same[name] = copies.find(unpack, count, kind)
  ids = table["id"].take(pa.array(order)).to_pylist()
  hashes = table["sha256"].take(pa.array(order)).to_pylist()
  has = {
    part: table[column].take(pa.array(order)).to_numpy(zero_copy_only=False)
    for part, column in (("sound", "sound"), ("frames", "picture"))
  }
  name_of = lambda clip: names[clip] if clip < first else ids[clip - first]
  held_out = lambda clip: (
    clip < first or splits[order[clip - first]] in _HELD_OUT
  )
  duplicates = leaks = 0
  with store.Journal(dataset, COPIES, fresh=True) as journal:
    for place in range(len(known)):
      clip = first + place
      of = {part: found[clip] for part, found in same.items() if clip in found}
      row = _copy_row(
        of, {part: bool(there[place]) for part, there in has.items()}
      )
      row = {key: name_of(clip) for key, clip in row.items()}
      row["duplicate"] = "duplicate_of" in row
      leak = None
      if splits[order[place]] == "train":
        leak = next((c for c in of.values() if held_out(c)), None)
      row["leak"] = leak is not None
      if leak is not None:
        row["leak_of"] = name_of(leak)
      duplicates += row["duplicate"]
      leaks += row["leak"]
      journal.add(ids[place], hashes[place], row | {"by": BY})
    journal.finish(keep=False)
  log(
    f"{duplicates:,} duplicates of earlier clips, {leaks:,} training clips that"
    " share sound or picture with held-out ones"
  )


def _copy_row(of: Mapping[str, int], has: Mapping[str, bool]) -> dict[str, int]:
  """Returns the columns that name other clips, by the clip's number.

  A duplicate has the bytes of another clip, or all that it has, sound and
  picture, is in earlier clips.
  """
  row = {f"{part}_of": of[part] for part in ("sound", "frames") if part in of}
  parts = [of.get(part) for part, there in has.items() if there]
  if "bytes" in of:
    row["duplicate_of"] = of["bytes"]
  elif None not in parts:
    row["duplicate_of"] = parts[0]
  return row


def _equal(digest: Callable[[int], str], count: int) -> dict[int, int]:
  """Returns the first clip of the same digest of each that is not the first."""
  seen: dict[int, int] = {}
  found = {}
  for clip in range(count):
    before = seen.setdefault(key_of("", digest(clip)), clip)
    if before != clip:
      found[clip] = before
  return found
