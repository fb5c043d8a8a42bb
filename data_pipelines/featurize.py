"""Copies a data set and adds a frozen encoder's features of its frames.

The encoder is a function that the caller passes in; features.py describes what
is stored.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
import dataclasses
import os
from typing import Any

import numpy as np

from data_pipelines import assemble as assemble_lib
from data_pipelines import example as example_lib
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.assemble import Item, Log, OutputOptions, Plan
from data_pipelines.clips import clip_facts
from data_pipelines.example import Window
from data_pipelines.features import KEY, FeatureFacts, Features, pack
from data_pipelines.manifest import read_manifest
from data_pipelines.source import open_source
from data_pipelines.writer import Outcome
from v2a_jax import media

Encode = Callable[[Mapping[str, Any]], Features]


def add_features(
  source: str | os.PathLike,
  *,
  out: str | os.PathLike,
  encode: Encode,
  encoder: str,
  window: Window,
  whole: bool,
  output: OutputOptions,
  log: Log = print,
) -> dict[str, Any]:
  """Copies a data set and adds features to its records; returns the manifest.

  Args:
    source: folder of the data set.
    out: folder of the copy.
    encode: maps a record to the features of its frames; see `of_frames`.
    encoder: digest of the encoder.
    window: the loader's window; its `features` is the size of a feature.
    whole: whether whole records are encoded, or only the window at their start.
    output: how the copy is written; its tokenizer is the source's.
    log: called with each line of the progress report.

  Raises:
    DataError: the source cannot be read.
    BuildError: `out` is taken, or the disk is full.
  """
  manifest = read_manifest(source)
  splits = {s: open_source(source, s) for s in manifest["splits"]}
  facts = FeatureFacts(
    encoder=encoder,
    dim=window.features,
    fps=window.fps,
    frame_size=window.frame_size,
    seconds=0.0 if whole else window.seconds,
  )
  entry = dataclasses.asdict(facts)

  def make(key: str) -> Item:
    split, index = key.split("/")
    record = splits[split][int(index)]
    try:
      features = encode(record)
    except media.MediaError as error:
      drops = [assemble_lib.drop("unreadable", error.reason)]
      return Outcome(key=key, drops=drops), []
    record |= {"features": pack(features) if len(features.times) else b""}
    return Outcome(key=key, clips=[clip_facts(record)]), [record]

  plan = Plan(
    keys=[f"{s}/{i:07d}" for s in splits for i in range(len(splits[s]))],
    unit="records",
    settings=manifest["settings"] | {KEY: entry},
    inputs=manifest["fingerprint"],
    facts={KEY: entry},
    description=f"The same records as {os.path.basename(source)}, with"
    " features of their frames.",
  )
  tokenizer = os.path.join(source, tokenizer_lib.FILENAME)
  return assemble_lib.assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=dataclasses.replace(output, tokenizer=tokenizer),
    log=log,
  )


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
      content = example_lib.decode_media(record, window)
    frames, times = content.frames, content.times
    if not whole:
      where = example_lib.inside(times, window, 0.0)
      frames, times = frames[where], times[where]
    return Features(times, np.asarray(encode(frames), np.float32), whole)

  return encode_record
