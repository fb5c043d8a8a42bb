"""The settings of a loader: data sets, the shape of examples, how to read."""

import dataclasses
import functools
import math
import os

from data_pipelines import manifest
from data_pipelines.columns.admit import Expression
from data_pipelines.schema import SPLITS, TEXT_FIELDS
from data_pipelines.tokenizer import (
  TextTokenizer,
  Tokenizer,
  load_prompt_tokenizer,
)
from data_pipelines.window import CROPS, RANGES, Window
from v2a_jax.basics.settings import SettingError, check, choose, derived
from v2a_jax.basics.text import did_you_mean, one_of

# Threads of one process that Python's global lock lets decode at full speed.
_THREADS = 8
_NAME_ONE = "give a folder of `v2a data build` or `v2a data scenes`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
  """Data sets, the shape of examples and how they are read.

  Attributes:
    paths: folders of the data sets, which are read as one.
    weights: shares of the data sets in every stretch of training, each of which
      then has epochs of its own; empty to read each record equally often.
    split: split of the data sets: train, val, test or all.
    batch_size: examples a step, of all processes together.
    seconds: length of an example in seconds.
    fps: most frames a second; video of a lower rate keeps its own.
    frame_size: (height, width) of the frames in pixels, or one number for both.
    sample_rate: sample rate in Hz.
    channels: number of audio channels, 1 or 2.
    prompt_length: number of token ids of the caption.
    transcript_length: number of token ids of the spoken words.
    tokenizer: sentencepiece model file; empty for the first data set's own.
    prompt_tokenizer: spiece.model or tokenizer.json of a published text
      encoder, for captions; empty to use `tokenizer`.
    caption_fields: fields of the record that may serve as the prompt, in order
      of preference.
    random_caption: choose the prompt at random among those fields that are not
      empty; otherwise the first of them is taken.
    crop: position of the example in a longer record: random or start.
    gain_db: range in dB of the random gain, which lies in [-gain_db, gain_db].
    shuffle: read the records in a new random order every epoch.
    seed: random seed of order, crop, caption and gain.
    num_threads: threads that decode in each process; 0 decodes on demand, -1 is
      one for each core that this process may use, divided between the workers.
    num_workers: processes that decode; 0 is best on up to 8 cores, because
      decoding releases Python's global lock; -1 is one for each 8 cores beyond.
    cache_mb: memory in MiB for decoded records, divided between the workers.
    features: size of a frame's cached features, which `v2a data precompute`
      writes; 0 for none.
    encoder: digest of the encoder of the cached features; empty for any.
    cached_target: read the latents or codes that `v2a data precompute` has
      written, in place of the sound.
    codec: digest of the codec of cached latents or codes; empty for any.
    admit: expression over columns that chooses the clips, such as
      "silence < 0.5 and not duplicate" (docs/data_at_scale.md); empty for all.
    annotations: sources of annotations that are read, in order of preference:
      captions, transcripts, presence flags.
    min_confidence: least confidence, 0 to 1, of captions, transcripts and
      annotations; those without one are kept.
    frames: whether frames are decoded.
    max_bad_fraction: largest fraction of the records that may fail to decode, or
      8 records, or of a small data set one in eight, if that is more. Each is
      logged by name and becomes an empty example of duration 0. With 0 none may
      fail.
  """

  paths: tuple[str, ...] = ()
  weights: tuple[float, ...] = ()
  split: str = "train"
  batch_size: int = 32
  seconds: float = 4.0
  fps: float = 12.5
  frame_size: int | tuple[int, int] = 64
  sample_rate: int = derived("codec.sample_rate", default=16_000)
  channels: int = derived("codec.channels", default=1)
  prompt_length: int = 32
  transcript_length: int = 32
  tokenizer: str = ""
  prompt_tokenizer: str = ""
  caption_fields: tuple[str, ...] = ("audio_caption", "caption")
  random_caption: bool = True
  crop: str = "random"
  gain_db: float = 0.0
  shuffle: bool = True
  seed: int = derived("seed", default=0)
  num_threads: int = -1
  num_workers: int = -1
  cache_mb: float = 0.0
  features: int = 0
  encoder: str = derived("features.encoder", default="")
  cached_target: bool = False
  codec: str = derived("features.codec", default="")
  admit: str = ""
  annotations: tuple[str, ...] = ()
  min_confidence: float = 0.0
  frames: bool = derived("features.decode_frames", default=True)
  max_bad_fraction: float = 0.001

  def __post_init__(self):
    # Configs give lists and single values where tuples are meant.
    paths = (self.paths,) if isinstance(self.paths, str) else tuple(self.paths)
    object.__setattr__(self, "paths", paths)
    object.__setattr__(self, "weights", tuple(self.weights))
    object.__setattr__(self, "caption_fields", tuple(self.caption_fields))
    object.__setattr__(self, "annotations", tuple(self.annotations))
    size = self.frame_size
    size = tuple(size) if isinstance(size, list | tuple) else (size, size)
    object.__setattr__(self, "frame_size", size)
    if not paths or not all(paths):
      raise SettingError(f"paths={paths!r} names no data set: {_NAME_ONE}")
    if len(size) != 2:
      raise SettingError(f"frame_size={size!r} is not (height, width)")
    self._check_weights()
    check(self, **RANGES, batch_size="[1, inf)", gain_db="[0, 60]")
    check(self, num_threads="[-1, inf)", num_workers="[-1, inf)")
    check(self, cache_mb="[0, inf)", max_bad_fraction="[0, 1]")
    check(self, seed="[0, 4294967295]", min_confidence="[0, 1]")
    if self.cached_target and self.gain_db:
      raise SettingError(
        f"gain_db={self.gain_db!r} changes the sound, of which"
        " cached_target=True reads latents or codes: set one of them to 0"
      )
    if self.admit:
      Expression(self.admit)
    choose(self, split=(*SPLITS, "all"), crop=CROPS)
    for field in self.caption_fields:
      if field not in TEXT_FIELDS:
        raise SettingError(
          f"caption_fields={self.caption_fields!r}: {field}"
          f" {one_of(TEXT_FIELDS)}{did_you_mean(field, TEXT_FIELDS)}"
        )

  def _check_weights(self) -> None:
    if self.weights and len(self.weights) != len(self.paths):
      raise SettingError(
        f"weights={self.weights!r} are {len(self.weights)} numbers for"
        f" {len(self.paths)} paths: give one for each"
      )
    for path, weight in zip(self.paths, self.weights):
      if not 0 < weight < math.inf:
        raise SettingError(
          f"weights={self.weights!r}: {weight!r} of {path} is not a positive"
          " number; leave out of paths what is not to be read"
        )

  @property
  def workers(self) -> tuple[int, int]:
    """Number of processes that decode, and of threads in each.

    With none, the threads are those of this process.
    """
    cores = len(os.sched_getaffinity(0))
    processes = self.num_workers
    if processes < 0:
      processes = cores // _THREADS if cores > _THREADS else 0
    threads = self.num_threads
    if threads < 0:
      threads = max(cores // max(processes, 1), 1)
    return processes, threads

  @functools.cached_property
  def window(self) -> Window:
    """Shape of the examples."""
    names = {field.name for field in dataclasses.fields(Window)}
    values = {name: getattr(self, name) for name in names - {"sound"}}
    return Window(**values, sound=not self.cached_target)

  def load_tokenizer(self) -> Tokenizer:
    """Reads the tokenizer of transcripts; a `DataError` if it is missing."""
    if not self.tokenizer:
      manifest.read_manifest(self.paths[0])
    return Tokenizer.load(self.tokenizer or self.paths[0])

  def load_prompt_tokenizer(self) -> TextTokenizer:
    """Reads the tokenizer of captions; a `DataError` if it is missing."""
    if self.prompt_tokenizer:
      return load_prompt_tokenizer(self.prompt_tokenizer)
    return self.load_tokenizer()
