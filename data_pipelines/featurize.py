"""Writes a data set again with what a frozen encoder gives for its frames.

The encoder is a function that is handed in, so nothing here knows what it is;
the layout of what it gives is that of features.py.
"""

from collections.abc import Callable, Mapping
from concurrent import futures
import dataclasses
import os
from typing import Any

import numpy as np

from data_pipelines import example as example_lib
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.assemble import (
  Log,
  Made,
  OutputOptions,
  Plan,
  assemble,
  drop,
)
from data_pipelines.clips import clip_facts
from data_pipelines.example import Window
from data_pipelines.features import KEY, FeatureFacts, Features, pack
from data_pipelines.manifest import read_manifest
from data_pipelines.source import open_source
from data_pipelines.writer import Outcome
from v2a_jax import media

# uint8 frames [n h w 3] -> float32 features [n f].
Encode = Callable[[np.ndarray], np.ndarray]


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
  """Writes a data set again, with features; its videos stay in it.

  Args:
    source: a data set's folder.
    out: the new one's.
    encode: uint8 frames [n h w 3] -> float32 [n f].
    encoder: digest of what encodes.
    window: as the loader's, with the number of features in it.
    whole: encode the whole record; else the window at its start.
    output: how the data set is written; the tokenizer is the source's.
    log: takes lines for people.

  Returns:
    The manifest.

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
  told = dataclasses.asdict(facts)
  looks = dataclasses.replace(window, frames=True, features=0)

  def make(key: str) -> Made:
    split, index = key.split("/")
    record = splits[split][int(index)]
    try:
      made = _of_record(record, encode, looks, whole=whole)
    except media.MediaError as error:
      drops = [drop("unreadable", error.reason)]
      return Outcome(key=key, drops=drops), []
    record |= {"features": pack(made) if len(made.times) else b""}
    return Outcome(key=key, clips=[clip_facts(record)]), [record]

  plan = Plan(
    keys=[f"{s}/{i:07d}" for s in splits for i in range(len(splits[s]))],
    unit="records",
    settings=manifest["settings"] | {KEY: told},
    inputs=manifest["fingerprint"],
    facts={KEY: told},
    description=f"The same records as {os.path.basename(source)}, with"
    " features of their frames.",
  )
  own = os.path.join(source, tokenizer_lib.FILENAME)
  return assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=dataclasses.replace(output, tokenizer=own),
    log=log,
  )


def _of_record(
  record: Mapping[str, Any], encode: Encode, window: Window, *, whole: bool
) -> Features:
  """Features of the frames that the loader decodes from a record's start."""
  if whole and record["video"]:
    content = media.read_video(
      record["video"], max_fps=window.fps, size=window.frame_size
    )
  else:
    content = example_lib.decode_media(record, window)
  frames, times = content.frames, content.times
  if not whole:
    shown = example_lib.inside(times, window, 0.0)
    frames, times = frames[shown], times[shown]
  return Features(times, np.asarray(encode(frames), np.float32), whole)
