"""The clips that systems are evaluated on.

Which ones are used is drawn from a seed, so all systems evaluated with the same
seed, set and number get the same clips. A clip that cannot be used (no sound,
not decodable, no picture for a model) is named with the reason and left out; no
other takes its place.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import time
from typing import Any

import numpy as np

from data_pipelines import manifest, schema, source
from data_pipelines.decoding import Media
from data_pipelines.example import SPOKEN, cut_frames
from data_pipelines.loader import make_decoder
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.media_files import find_media
from data_pipelines.scenes.records import SOURCE
from v2a_jax import media
from v2a_jax.basics.files import sha256_of
from v2a_jax.basics.paths import as_path, is_remote
from v2a_jax.evaluation import folders, looks, motion
from v2a_jax.evaluation.formats import Format
from v2a_jax.evaluation.looks import Look

LEAST_SECONDS = 0.5
# What an example has of the words that are said.
TEXTS = (*SPOKEN, "transcript_timed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
  """One record as the evaluation uses it.

  Attributes:
    position: its place among the chosen clips, from which its seeds come.
    words: words of the transcript whose times are known, with `word`, `start`
      and `end` in seconds; those within the clip.
    of_scenes: whether it is a rendered scene.
    video: bytes of the record's video file; empty without a picture.
    example: a loader's example, numpy arrays without a batch axis; empty where
      no model needs it. Words are without times, as `v2a generate` gives them.
    word_times: the example's transcript with the true times of the words.
    audio: the true sound, float32 [samples, channels], as long as `seconds`.
    seconds: length of the part that is judged.
    events: known event times on screen, seconds; None where none are known.
    off_screen: known event times off screen, seconds.
    motion: times of the video's motion peaks, seconds; None without a picture.
    seen: what looks.py has made of the picture, by the name of the look.
    see_seconds: what encoding the picture for the model took; 0 where the model
      does so itself (`Reader.see`).
  """

  position: int = 0
  id: str
  caption: str = ""
  transcript: str = ""
  label: str = ""
  words: Sequence[Mapping[str, Any]] = ()
  of_scenes: bool = False
  video: bytes = b""
  example: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  word_times: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  audio: np.ndarray
  seconds: float
  events: np.ndarray | None = None
  off_screen: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0)
  )
  motion: np.ndarray | None = None
  seen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  see_seconds: float = 0.0

  def look(self, look: Look) -> Any:
    """Returns what a look makes of the picture; decodes it if none has yet."""
    if look.name in self.seen:
      return self.seen[look.name]
    return looks.read(self.video, [look], seconds=self.seconds)[look.name]

  @property
  def in_sight(self) -> bool:
    """Whether anything that sounds is on screen, as far as is known."""
    return not len(self.off_screen) or bool(len(self.events))

  def light(self) -> "Clip":
    """Returns the clip without its media."""
    return dataclasses.replace(
      self, video=b"", example={}, word_times={}, audio=self.audio[:0], seen={}
    )


@dataclasses.dataclass(frozen=True)
class Failure:
  """A record that is not scored, and why, in one line."""

  id: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Truth:
  """True sounds that systems are judged by: a split of a data set, or a folder.

  Attributes:
    path: the data set or the folder.
    split: the split; "" for a folder.
    records: its records.
    digest: sha256 of what says which clips there are.
    notes: what was found odd, one line each.
  """

  path: str
  split: str
  records: Sequence[Mapping[str, Any]]
  digest: str
  notes: Sequence[str] = ()

  @property
  def is_set(self) -> bool:
    """Whether it is a data set, with other splits and known events."""
    return bool(self.split)

  def ids(self) -> list[str]:
    """Returns the names of all records; reads those of a data set."""
    if isinstance(self.records, folders.FolderRecords):
      return self.records.ids
    return [self.records[i]["id"] for i in range(len(self.records))]


def open_truth(
  path: str | os.PathLike,
  split: str = "test",
  *,
  videos: str | os.PathLike | None = None,
  captions: str | os.PathLike | None = None,
) -> Truth:
  """Opens a data set, or a folder of sounds or videos.

  Args:
    path: its folder.
    split: split of a data set.
    videos: folder of pictures for a folder of sounds.
    captions: table of captions for a folder.

  Raises:
    DataError: the data set or the table cannot be read.
    ValueError: there is no folder, or it has no media.
  """
  folder = as_path(path)
  made = is_remote(folder) or (folder / manifest.MANIFEST).is_file()
  if made or not folder.is_dir() or not (videos or captions or _media(folder)):
    if videos or captions:
      raise ValueError(
        f"{path}: videos and captions go with a folder of true sounds; a data"
        " set has its own"
      )
    records = source.open_source(path, split)
    digest = sha256_of(folder / manifest.MANIFEST)
    return Truth(str(path), split, records, digest)
  truth = folders.read_folder(folder, "the reference")
  pictures = videos and folders.read_folder(videos, "the videos")
  records = folders.FolderRecords(
    truth, videos=pictures or None, captions=captions
  )
  return Truth(str(path), "", records, records.digest, records.notes)


def _media(folder) -> bool:
  """Says whether a folder is one of media, not an unfinished data set."""
  try:
    return bool(find_media(folder).files)
  except schema.DataError:
    return False


def choose(eligible: Sequence[int], *, num: int | None, seed: int) -> list[int]:
  """Draws `num` of the records, or all of them where None; ascending."""
  order = np.random.default_rng(seed).permutation(len(eligible))
  return sorted(int(eligible[place]) for place in order[:num])


@dataclasses.dataclass(frozen=True)
class Reader:
  """Decodes chosen records.

  Attributes:
    records: the records.
    format: rate, channels and length that sounds are judged at.
    config: loader of the model under evaluation; None where no model is.
    word_times: whether the model is also given the times of the words.
    see: encodes a video's bytes for a model that does not encode the frames of
      its example; None for others.
    looks: what looks at a clip's picture, besides the model and motion.
  """

  records: Sequence[Mapping[str, Any]]
  format: Format
  config: LoaderConfig | None = None
  word_times: bool = False
  see: Callable[[bytes], np.ndarray] | None = None
  looks: Callable[[Clip], Sequence[Look]] = lambda clip: ()
  _decode: Callable | None = None

  def __post_init__(self):
    if self.config and not self._decode:
      object.__setattr__(self, "_decode", make_decoder(self.config))

  def __call__(self, index: int, position: int) -> Clip | Failure:
    """Returns the clip, or why it cannot be used."""
    record = self.records[index]
    try:
      return self._clip(record, index, position)
    except ValueError as error:  # MediaError is one.
      return Failure(record["id"], " ".join(str(error).split()))

  def _clip(self, record, index: int, position: int) -> Clip:
    example, word_times, see_seconds = {}, {}, 0.0
    if self.config:
      if not record["video"]:
        raise ValueError("has no video")
      own = without_word_times(record)
      if self._looks():  # Its frames come with those of all others.
        own["video"] = b""
      example = self._decode(own, index=index)
      if self.see:
        start = time.monotonic()
        example = {**example, "features": self.see(record["video"])}
        see_seconds = time.monotonic() - start
      if self.word_times:
        texts = record | dict.fromkeys(schema.BYTES_FIELDS, b"")
        timed = self._decode(texts, index=index)
        word_times = {key: timed[key] for key in TEXTS}
    audio, seconds = self._sound(record, example)
    on_screen, off_screen = _event_times(record["events"], seconds)
    fields = self.config.caption_fields if self.config else _CAPTIONS
    clip = Clip(
      position=position,
      id=record["id"],
      caption=next((record[f] for f in fields if record[f]), ""),
      transcript=record["transcript"],
      label=record["label"],
      words=[word for word in record["words"] if _is_timed(word, seconds)],
      of_scenes=record["source"].startswith(SOURCE),
      video=record["video"],
      example=example,
      word_times=word_times,
      audio=audio,
      seconds=seconds,
      events=on_screen if record["events"] else None,
      off_screen=off_screen,
      see_seconds=see_seconds,
    )
    return self._seen(clip) if clip.video else clip

  def _looks(self) -> list[Look]:
    """Returns how the model looks at the picture, if it takes frames as such."""
    window = self.config and self.config.window
    if not window or window.features or not window.frames:
      return []

    def frames(video: media.Video, seconds: float) -> dict[str, np.ndarray]:
      sound = np.zeros((0, window.channels), np.float32)
      part = Media(0.0, video.frames, video.times, sound)
      return cut_frames(part, window, 0.0)

    size = lambda height, width: window.frame_size
    return [Look("example", window.fps, size, frames, window.seconds, 0.0)]

  def _seen(self, clip: Clip) -> Clip:
    """Returns the clip with all that is made of its picture."""
    wanted = [motion.LOOK, *self._looks(), *self.looks(clip)]
    seen = looks.read(clip.video, wanted, seconds=clip.seconds)
    return dataclasses.replace(
      clip,
      motion=seen.pop(motion.LOOK.name),
      example={**clip.example, **seen.pop("example", {})},
      seen=seen,
    )

  def _sound(self, record, example) -> tuple[np.ndarray, float]:
    """Returns the true sound in the judge's format, and its length."""
    if not record["audio"]:
      raise ValueError("has no sound")
    format, rate = self.format, self.format.sample_rate
    seconds = min(record["duration"], format.seconds)
    if self._decodes_alike(seconds):
      heard = example["audio"][: round(float(example["duration"]) * rate)]
    else:
      heard = format.read(record["audio"], seconds=seconds)
    missing = seconds - len(heard) / rate
    if not np.isfinite(seconds) or missing > schema.SOUND_SLACK:
      seconds = len(heard) / rate  # What is missing is not silence.
    if seconds < LEAST_SECONDS:
      raise ValueError(f"has {seconds:g} s of sound; {LEAST_SECONDS} s needed")
    audio = np.zeros((round(seconds * rate), format.channels), np.float32)
    audio[: len(heard)] = heard[: len(audio)]
    return audio, seconds

  def _decodes_alike(self, seconds: float) -> bool:
    """Whether the model's example has the sound in the judge's format."""
    c, format = self.config, self.format
    if c is None:
      return False
    same = (c.sample_rate, c.channels) == (format.sample_rate, format.channels)
    return same and seconds <= c.seconds


_CAPTIONS = ("audio_caption", "caption")


def _is_timed(word: Mapping[str, Any], seconds: float) -> bool:
  """Says whether the times of a word are known and inside the clip."""
  start, end = word.get("start"), word.get("end")
  return start is not None and end is not None and 0 <= start < end <= seconds


def without_word_times(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a record whose words have no times, as a user's transcript."""
  words = " ".join(word["word"] for word in record["words"])
  return {**record, "words": [], "transcript": record["transcript"] or words}


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
