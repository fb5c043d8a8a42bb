"""The clips that a model is judged on, and the true sounds it is judged by.

Which records are taken is drawn from a seed, so all models judged with the same
seed, set and number meet the same clips. A record that cannot be used (no
picture, no sound, not decodable) is named with the reason and left out; nothing
takes its place.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any

import numpy as np

from data_pipelines import manifest, source
from data_pipelines.loader import LoaderConfig, make_decoder
from v2a_jax import media
from v2a_jax.evaluation.metrics import av_align

_LEAST_SECONDS = 0.5
_REFERENCE_SPLITS = ("val", "test", "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
  """One record as the evaluation sees it.

  Attributes:
    id: of the record.
    caption: the record's best caption.
    transcript: its spoken words.
    label: its class.
    video: bytes of the record's video.
    example: a loader's example, numpy arrays without a batch axis.
    audio: float32 [samples, channels], the true sound, as long as `seconds`.
    seconds: of the window that exist.
    events: known event times on screen, seconds; None where none are known.
    off_screen: known event times off screen, seconds.
    motion: times of the picture's motion peaks, seconds.
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
  """A record that is not judged, and why."""

  id: str
  reason: str


def choose(
  path: str | os.PathLike, split: str, *, num: int | None, seed: int
) -> tuple[source.Source, list[int]]:
  """The split, and the indices of the records to judge, ascending.

  Args:
    path: the data set's folder.
    split: of the data set.
    num: how many; None is all, and more than there are is all too.
    seed: of the choice.

  Raises:
    DataError: there is no such data set or split.
    ValueError: fewer than two records.
  """
  records = source.open_source(path, split)
  count = len(records) if num is None else min(num, len(records))
  if count < 2:
    raise ValueError(
      f"{path}: {count} clips of the split {split!r} to judge; intervals need"
      " two or more"
    )
  order = np.random.default_rng(seed).permutation(len(records))
  return records, sorted(int(index) for index in order[:count])


def load(
  records: Sequence[Mapping[str, Any]],
  indices: Sequence[int],
  config: LoaderConfig,
) -> tuple[list[Clip], list[Failure]]:
  """Decodes the chosen records; see the module for what becomes of bad ones."""
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
    raise ValueError("has no picture")
  if seconds < _LEAST_SECONDS:
    raise ValueError(f"has {seconds:g} s of sound; {_LEAST_SECONDS} s needed")
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
    motion=_motion_peaks(record["video"], seconds),
  )


def _event_times(events, seconds) -> tuple[np.ndarray, np.ndarray]:
  """Sorted times inside the clip, of events on screen and off screen."""
  inside = [e for e in events if 0 <= e["time"] < seconds]
  seen = [e["time"] for e in inside if e.get("on_screen", True)]
  unseen = [e["time"] for e in inside if not e.get("on_screen", True)]
  return np.sort(np.array(seen, float)), np.sort(np.array(unseen, float))


def _motion_peaks(video: bytes, seconds: float) -> np.ndarray:
  """At the picture's own rate and shape, not at the model's."""
  info = media.probe(video)
  scale = min(1.0, av_align.SHORT_SIDE / min(info.height, info.width))
  size = (round(info.height * scale), round(info.width * scale))
  # More frames than the metric looks at only cost time.
  picture = media.read_video(
    video, duration=seconds, max_fps=2 * av_align.FPS, size=size
  )
  return av_align.video_peaks(av_align.flow(picture.frames, picture.times))


@dataclasses.dataclass(frozen=True)
class Reference:
  """True sounds of other clips, that distances are measured to.

  Attributes:
    waveforms: float32 [samples, channels] each.
    about: where they are from, for results.json.
  """

  waveforms: list[np.ndarray]
  about: str


def load_reference(
  path: str | os.PathLike,
  split: str,
  *,
  exclude: Sequence[int],
  num: int,
  config: LoaderConfig,
) -> Reference:
  """True sounds of records that are not judged.

  They come from the rest of the judged split, then from the validation, test
  and training splits, in this order, until there are `num`. (Sounds of the
  judged clips themselves would put the ground truth at zero by construction.)

  Args:
    path: the data set's folder.
    split: the judged split.
    exclude: its judged records.
    num: how many sounds are wanted.
    config: of the model's loader: rate, channels and window.

  Returns:
    The sounds, fewer than `num` where the data set has no more.
  """
  waveforms, taken = [], {}
  held = manifest.read_manifest(path)["splits"]
  others = [name for name in _REFERENCE_SPLITS if name in held]
  names = [split] if split == "all" else dict.fromkeys([split, *others])
  for name in names:
    records = source.open_source(path, name)
    skipped = set(exclude) if name == split else set()
    for index in sorted(set(range(len(records))) - skipped):
      if len(waveforms) == num:
        break
      sound = _sound(records[index], config)
      if sound is not None:
        waveforms.append(sound)
        taken[name] = taken.get(name, 0) + 1
  parts = ", ".join(f"{count} of {name}" for name, count in taken.items())
  return Reference(waveforms, f"true sounds of other clips: {parts or 'none'}")


def _sound(record, config: LoaderConfig) -> np.ndarray | None:
  if not record["audio"]:
    return None
  try:
    sound = media.read_audio(
      record["audio"],
      sample_rate=config.sample_rate,
      channels=config.channels,
      duration=min(config.seconds, record["duration"]),
    ).samples
  except media.MediaError:
    return None  # The count in `about` says how many there are.
  if len(sound) < _LEAST_SECONDS * config.sample_rate:
    return None
  return np.clip(sound, -1.0, 1.0)


def stacked(
  clips: Sequence[Clip], *, size: int | None = None
) -> dict[str, np.ndarray]:
  """Examples as a batch; the last is repeated up to `size` rows."""
  examples = [clip.example for clip in clips]
  examples += [examples[-1]] * ((size or 0) - len(examples))
  return {k: np.stack([e[k] for e in examples]) for k in examples[0]}
