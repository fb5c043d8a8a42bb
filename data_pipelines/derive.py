"""Copies a data set with what training would compute of each record every time.

The caller passes in the function that computes it. features.py and targets.py
describe what a record's `features` field then holds. A copy is brought up to
date as a build is: what was computed of the same media stays, whatever is said
of them now, and the columns of the source go with it.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from data_pipelines import assemble as assemble_lib
from data_pipelines import example as example_lib
from data_pipelines import features, stored, targets
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.assemble import Item, Log, OutputOptions, Plan
from data_pipelines.clips import clip_facts
from data_pipelines.columns import store
from data_pipelines.decoding import decode_media
from data_pipelines.features import Features
from data_pipelines.manifest import fingerprint, read_manifest
from data_pipelines.places import restore, work_place
from data_pipelines.readings import MEDIA, open_readings
from data_pipelines.schema import BYTES_FIELDS
from data_pipelines.source import open_source
from data_pipelines.window import Window
from data_pipelines.writer import Outcome
from v2a_jax import media
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.settings import SettingError, choose

# Returns a record with other media, or features.
Change = Callable[[dict[str, Any]], dict[str, Any]]
Encode = Callable[[Mapping[str, Any]], Features]
# Entries of the manifest that say what a copy holds.
KEYS = (features.KEY, targets.KEY, stored.KEY)
# Fields of a record that a copy has of its own.
_MADE = (*BYTES_FIELDS, "duration")

ADDED = ("features", "target")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyOptions:
  """What a copy of a data set holds besides its texts.

  Attributes:
    add: what is computed of each clip: `features` of its frames by the model's
      frozen encoder, and `target`, the latents or codes of its sound.
    media: pictures and sound: `keep` as they are; `h264` or `raw` (uncompressed)
      frames of the size and rate of config.data, and sound at the codec's rate;
      `none` leaves them out.
  """

  add: tuple[str, ...] = ()
  media: str = "keep"

  def __post_init__(self):
    object.__setattr__(self, "add", tuple(self.add))
    choose(self, media=("keep", *stored.FORMS))
    for name in self.add:
      if name not in ADDED:
        raise SettingError(f"add={name!r} is not one of {', '.join(ADDED)}")
    if not self.add and self.media in ("keep", "none"):
      raise SettingError(
        f"media={self.media!r} and nothing in add: name what to compute,"
        " --add features, --add target, --media=h264 or --media=raw"
      )


def copy_with(
  source: str | os.PathLike,
  *,
  out: str | os.PathLike,
  change: Change,
  facts: Mapping[str, Any],
  output: OutputOptions,
  log: Log = print,
) -> dict[str, Any]:
  """Copies a data set, each record changed; returns the manifest.

  If `out` is such a copy already, `change` is called for new records alone.

  Args:
    source: folder of the data set.
    out: folder of the copy.
    change: maps a record to that of the copy, with other media, or features.
    facts: entries of the manifest that say what the copy holds, of `KEYS`;
      those of the source are kept.
    output: how the copy is written; its tokenizer is the source's.
    log: called with each line of the progress report.

  Raises:
    DataError: the source cannot be read.
    BuildError: `out` is taken, or the disk is full.
  """
  manifest = read_manifest(source)
  splits = {s: open_source(source, s) for s in manifest["splits"]}
  facts = {k: manifest[k] for k in KEYS if k in manifest} | dict(facts)
  plain = json.loads(json.dumps(facts))  # As a manifest gives them back.
  form = {"computed": plain}
  restore(out)
  earlier = open_readings(out, work_place(out), media=form)

  def make(key: str) -> Item:
    split, index = key.split("/")
    record = splits[split][int(index)]
    digest = _digest(record)
    part: dict[str, Any] = {"start": None, "end": None}
    known = earlier.find(pathlib.PurePath(key), digest)
    if known and (made := known.record(None, None)):
      record |= {field: made[field] for field in _MADE}
      part["taken"] = True
    else:
      try:
        record = change(record)
      except media.MediaError as error:
        drops = [assemble_lib.drop("unreadable", error.reason)]
        return Outcome(key=key, drops=drops), []
    clips = [clip_facts(record)]
    return Outcome(key=key, sha256=digest, clips=clips, parts=[part]), [record]

  plan = Plan(
    keys=[f"{s}/{i:07d}" for s in splits for i in range(len(splits[s]))],
    unit="records",
    settings=manifest["settings"] | plain,
    inputs=[manifest["shards"], manifest["tokenizer"]],
    facts=facts | {MEDIA: form},
    origin=fingerprint(["copy", str(as_path(source).resolve())]),
    description=f"The records of {os.path.basename(source)}, with"
    f" {', '.join(facts)}.",
    tokenizer=os.path.join(source, tokenizer_lib.FILENAME),
  )
  copied = assemble_lib.assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=output,
    log=log,
  )
  names = store.sources(source)
  for name in names:
    store.copy(source, out, name)
  if names:
    log(f"with the columns of its source: {', '.join(names)}")
  return copied


def _digest(record: Mapping[str, Any]) -> str:
  """Returns a digest of a record's name, its source file and its media."""
  digest = hashlib.sha256()
  for field in ("id", "sha256", *_MADE):
    value = record[field]
    data = value if isinstance(value, bytes) else str(value).encode()
    digest.update(len(data).to_bytes(8, "little") + data)
  return digest.hexdigest()


def of_frames(
  encode: Callable[[np.ndarray], np.ndarray], window: Window, *, whole: bool
) -> Encode:
  """Makes features of the frames that the loader decodes from a record.

  Args:
    encode: maps frames uint8 [n h w 3] to features float32 [n f].
    window: the loader's window.
    whole: whether to encode whole records, or only the window at their start.
  """
  window = dataclasses.replace(window, frames=True, features=0)

  def encode_record(record: Mapping[str, Any]) -> Features:
    if whole and record["video"]:
      content = media.read_video(
        record["video"], max_fps=window.fps, size=window.frame_size
      )
    else:
      content = decode_media(record, window)
    frames, times = content.frames, content.times
    if not whole:
      where = example_lib.inside(times, window, 0.0)
      frames, times = frames[where], times[where]
    return Features(times, np.asarray(encode(frames), np.float32), whole)

  return encode_record
