"""The clips that a model is evaluated on.

Which records are used is drawn from a seed, so all models evaluated with the
same seed, set and number get the same clips. A record that cannot be used (no
video, no sound, not decodable) is named with the reason and left out; no other
record takes its place.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any

import numpy as np

from data_pipelines import source
from data_pipelines.loader import LoaderConfig, make_decoder
from v2a_jax.evaluation import motion

LEAST_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
  """One record as the evaluation uses it.

  Attributes:
    video: bytes of the record's video file.
    example: a loader's example, numpy arrays without a batch axis.
    audio: the true sound, float32 [samples, channels], as long as `seconds`.
    seconds: length of the part of the window that exists.
    events: known event times on screen, seconds; None where none are known.
    off_screen: known event times off screen, seconds.
    motion: times of the video's motion peaks, seconds.
  """

  id: str
  caption: str
  transcript: str
  label: str
  video: bytes
  example: Mapping[str, np.ndarray]
  audio: np.ndarray
  seconds: float
  events: np.ndarray | None
  off_screen: np.ndarray
  motion: np.ndarray


@dataclasses.dataclass(frozen=True)
class Failure:
  """A record that is not scored, and why, in one line."""

  id: str
  reason: str


def choose(
  path: str | os.PathLike, split: str, *, num: int | None, seed: int
) -> tuple[source.Source, list[int]]:
  """Draws `num` records to evaluate on, or all of them where None.

  Returns:
    The split's records, and the indices of the chosen ones, ascending.

  Raises:
    DataError: there is no such data set or split.
    ValueError: fewer than two records.
  """
  records = source.open_source(path, split)
  count = len(records) if num is None else min(num, len(records))
  if count < 2:
    raise ValueError(
      f"{path}: {count} clips of the split {split!r} to score; intervals need"
      " two or more"
    )
  order = np.random.default_rng(seed).permutation(len(records))
  return records, sorted(int(index) for index in order[:count])


def load(
  records: Sequence[Mapping[str, Any]],
  indices: Sequence[int],
  config: LoaderConfig,
) -> tuple[list[Clip], list[Failure]]:
  """Decodes the chosen records; those that cannot be used become failures."""
  decode = make_decoder(config)
  clips, failures = [], []
  for index in indices:
    record = records[index]
    try:
      clips.append(_clip(record, decode(record, index=index), config))
    except ValueError as error:  # MediaError is one.
      failures.append(Failure(record["id"], " ".join(str(error).split())))
  return clips, failures


def _clip(record, example, config: LoaderConfig) -> Clip:
  seconds = float(example["duration"])
  if not record["video"]:
    raise ValueError("has no video")
  if seconds < LEAST_SECONDS:
    raise ValueError(f"has {seconds:g} s of sound; {LEAST_SECONDS} s needed")
  samples = round(seconds * config.sample_rate)
  on_screen, off_screen = _event_times(record["events"], seconds)
  return Clip(
    id=record["id"],
    caption=next((record[f] for f in config.caption_fields if record[f]), ""),
    transcript=record["transcript"],
    label=record["label"],
    video=record["video"],
    example=example,
    audio=example["audio"][:samples],
    seconds=seconds,
    events=on_screen if record["events"] else None,
    off_screen=off_screen,
    motion=motion.detect(record["video"], seconds=seconds),
  )


def _event_times(events, seconds) -> tuple[np.ndarray, np.ndarray]:
  """Returns sorted times inside the clip, of events on and off screen."""
  inside = [e for e in events if 0 <= e["time"] < seconds]
  seen = [e["time"] for e in inside if e.get("on_screen", True)]
  unseen = [e["time"] for e in inside if not e.get("on_screen", True)]
  return np.sort(np.array(seen, float)), np.sort(np.array(unseen, float))


def stacked(
  clips: Sequence[Clip], *, size: int | None = None
) -> dict[str, np.ndarray]:
  """Stacks examples to a batch; the last is repeated up to `size` rows."""
  examples = [clip.example for clip in clips]
  examples += [examples[-1]] * ((size or 0) - len(examples))
  return {k: np.stack([e[k] for e in examples]) for k in examples[0]}
