"""Records become batches, the same ones on any number of hosts and workers.

  source -> seed -> shuffle -> repeat -> decode -> batch -> [process::processes]

is one pure Grain `MapDataset` (https://github.com/google/grain): element k of
it is a function of the configuration and k alone, so the position is a single
integer, the step. Randomness (crop, caption, gain) is drawn from the position
before the slice between processes. With B examples a step on P processes,
process p takes examples p B/P to (p + 1) B/P of the step's B: laid side by side
the processes' arrays are the same global batch for every P.
"""

from collections.abc import Callable, Mapping
import dataclasses
import logging
from typing import Any

import grain
import numpy as np

from data_pipelines import example as example_lib
from data_pipelines import features as features_lib
from data_pipelines import manifest
from data_pipelines.example import Example
from data_pipelines.schema import DataError
from data_pipelines.source import Concatenated, open_source
from data_pipelines.tokenizer import (
  TextTokenizer,
  Tokenizer,
  load_prompt_tokenizer,
)

_BAD = "bad"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderConfig:
  """What to read and in which shape.

  Attributes:
    paths: data sets' folders, read as if they were one.
    split: `train`, `val`, `test` or `all`.
    batch_size: global examples a step.
    seconds: length of the window.
    fps: at most this many frames a second.
    frame_size: (height, width), or one number for both, in pixels.
    sample_rate: Hz.
    channels: 1 or 2.
    prompt_length: caption tokens.
    transcript_length: tokens of spoken words.
    tokenizer: path of a model; if empty, the first data set's own.
    prompt_tokenizer: path of a text encoder's own spiece.model or
      tokenizer.json, for captions; if empty, they are read by `tokenizer`.
    caption_fields: fields that may serve as the prompt, the best first.
    random_caption: take any of those fields that is not empty, or the first.
    crop: `random` or `start`: where the window lies in a longer record.
    gain_db: the audio is made up to this much louder or quieter.
    shuffle: in a new order each epoch.
    seed: of order, crop, caption and gain.
    num_threads: that decode in each process; 0 decodes when asked.
    num_workers: processes that decode; 0 is best up to some 8 cores, because
      decoding does not hold Python's lock.
    cache_mb: memory for decoded records, shared out between the workers.
    features: numbers of a frame's features, which `v2a data features` left in
      the records; 0 for none. They are given as `features`.
    encoder: digest of the encoder that they must be of; "" takes any.
    frames: whether frames are decoded; not needed beside features.
    max_bad_fraction: of the records read, that may fail to decode. Each is
      named and becomes an example with duration 0 and empty masks; one more
      stops the run.
  """

  paths: tuple[str, ...]
  split: str = "train"
  batch_size: int = 32
  seconds: float = 4.0
  fps: float = 12.5
  frame_size: int | tuple[int, int] = 64
  sample_rate: int = 16_000
  channels: int = 1
  prompt_length: int = 32
  transcript_length: int = 32
  tokenizer: str | None = None
  prompt_tokenizer: str | None = None
  caption_fields: tuple[str, ...] = ("audio_caption", "caption")
  random_caption: bool = True
  crop: str = "random"
  gain_db: float = 0.0
  shuffle: bool = True
  seed: int = 0
  num_threads: int = 2
  num_workers: int = 0
  cache_mb: float = 0.0
  features: int = 0
  encoder: str = ""
  frames: bool = True
  max_bad_fraction: float = 0.0

  def __post_init__(self):
    # Configs give lists and single values where tuples are meant.
    paths = (self.paths,) if isinstance(self.paths, str) else tuple(self.paths)
    object.__setattr__(self, "paths", paths)
    object.__setattr__(self, "caption_fields", tuple(self.caption_fields))
    size = self.frame_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    object.__setattr__(self, "frame_size", size)
    if not paths:
      raise DataError("no data set is named: give paths=(FOLDER, …)")
    if self.crop not in ("random", "start"):
      raise DataError(f"crop is {self.crop!r}, should be 'random' or 'start'")
    if self.channels not in (1, 2):
      raise DataError(f"channels is {self.channels}, should be 1 or 2")

  @property
  def window(self) -> example_lib.Window:
    names = [field.name for field in dataclasses.fields(example_lib.Window)]
    return example_lib.Window(**{name: getattr(self, name) for name in names})

  def load_tokenizer(self) -> Tokenizer:
    """Raises DataError where there is none, or no data set to have one."""
    if not self.tokenizer:
      manifest.read_manifest(self.paths[0])
    return Tokenizer.load(self.tokenizer or self.paths[0])

  def load_prompt_tokenizer(self) -> TextTokenizer:
    """That of captions; raises DataError as `load_tokenizer` does."""
    if self.prompt_tokenizer:
      return load_prompt_tokenizer(self.prompt_tokenizer)
    return self.load_tokenizer()


def feature_facts(config: LoaderConfig) -> features_lib.FeatureFacts:
  """What the cached features of a data set must be, for this loader."""
  return features_lib.FeatureFacts(
    encoder=config.encoder,
    dim=config.features,
    fps=config.fps,
    frame_size=config.frame_size,
    seconds=config.seconds,
  )


def make_decoder(
  config: LoaderConfig,
) -> Callable[[Mapping[str, Any]], Example]:
  """Returns a function from a record to an example, without randomness.

  It takes the window at the record's start and the best caption; evaluation
  uses it. `example` is 0 unless given as the function's `index`.
  """
  settings = dict(
    window=config.window,
    tokenizer=config.load_tokenizer(),
    prompt_tokenizer=config.load_prompt_tokenizer(),
  )

  def decode(record: Mapping[str, Any], *, index: int = 0) -> Example:
    return example_lib.decode_record(record, index=index, **settings)

  return decode


def make_loader(
  config: LoaderConfig,
  *,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
) -> "Loader":
  """Starts reading at a step; see `Loader`.

  Raises:
    DataError: a data set or tokenizer is missing or unusable, or the batch
      cannot be divided between the processes.
  """
  if config.batch_size % process_count:
    raise DataError(
      f"batch_size {config.batch_size} is not divisible by the "
      f"{process_count} processes"
    )
  if config.features:
    for path in config.paths:
      features_lib.check(path, feature_facts(config))
  sources = [open_source(path, config.split) for path in config.paths]
  records = Concatenated(sources)
  decode = _Decode(
    config=config,
    records=records,
    tokenizer=config.load_tokenizer(),
    prompt_tokenizer=config.load_prompt_tokenizer(),
  )
  dataset = grain.MapDataset.range(len(records)).seed(config.seed)
  if config.shuffle:
    dataset = dataset.shuffle()
  local = config.batch_size // process_count
  dataset = (
    dataset.repeat()
    .random_map(decode)
    .batch(local, drop_remainder=True)
    .slice(slice(process_index, None, process_count))
    .slice(slice(start_step, None))
  )
  return Loader(dataset, records, config, start_step=start_step)


class Loader:
  """An endless iterator of batches: flat dicts of numpy arrays.

  Attributes:
    step: how many batches were handed out since step 0; the loader's state.
    num_examples: records in an epoch.
    bad: names of the records that could not be decoded.
  """

  def __init__(self, dataset, records: Concatenated, config, *, start_step):
    self.step = start_step
    self.num_examples = len(records)
    self.bad: list[str] = []
    self._records, self._config = records, config
    self._seen = 0
    self._iterator = _start(dataset, config)

  def __iter__(self) -> "Loader":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    try:
      batch = next(self._iterator)
    except Exception as error:
      raise _plain(error) from None
    if self._config.num_workers:
      # Workers hand over shared memory that lives as long as they do.
      batch = {key: np.array(value) for key, value in batch.items()}
    self._count_bad(batch["example"], batch.pop(_BAD))
    self.step += 1
    return batch

  def __enter__(self) -> "Loader":
    return self

  def __exit__(self, *_):
    self.close()

  def get_state(self) -> dict[str, int]:
    """Give `step` to `make_loader(start_step=…)` to go on from here."""
    return {"step": self.step}

  def close(self) -> None:
    """Ends threads and worker processes."""
    if self._iterator is not None and hasattr(self._iterator, "close"):
      self._iterator.close()
    self._iterator = None

  def _count_bad(self, examples: np.ndarray, bad: np.ndarray) -> None:
    self._seen += len(examples)
    for index in examples[bad]:
      source, number = self._records.locate(int(index))
      self.bad.append(f"{source.path}: record {number} of {source.split!r}")
    # A single bad record in the first batch is not a bad data set.
    among = max(self._seen, self.num_examples)
    if len(self.bad) > self._config.max_bad_fraction * among:
      raise DataError(
        f"{len(self.bad)} of the {self._seen} records read cannot be decoded,"
        f" over max_bad_fraction={self._config.max_bad_fraction:g}; the last "
        f"is {self.bad[-1]}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decode(grain.transforms.RandomMap):
  """Index of a record -> example; goes to the worker processes."""

  config: LoaderConfig
  records: Concatenated
  tokenizer: Tokenizer
  prompt_tokenizer: TextTokenizer
  cache: example_lib.MediaCache = None

  def __post_init__(self):
    share = self.config.cache_mb / max(self.config.num_workers, 1)
    object.__setattr__(self, "cache", example_lib.MediaCache(share))

  def random_map(self, index: int, rng: np.random.Generator) -> Example:
    config, index = self.config, int(index)
    try:
      record = self.records[index]
      example = example_lib.decode_record(
        record,
        window=config.window,
        tokenizer=self.tokenizer,
        prompt_tokenizer=self.prompt_tokenizer,
        index=index,
        rng=rng,
        crop=config.crop,
        random_caption=config.random_caption,
        gain_db=config.gain_db,
        cache=self.cache,
      )
    except (ValueError, DataError) as error:  # MediaError is a ValueError
      return self._bad(index, error)
    return example | {_BAD: np.bool_(False)}

  def _bad(self, index: int, error: Exception) -> Example:
    source, number = self.records.locate(index)
    line = f"{source.path}: record {number} of {source.split!r}: {error}"
    if not self.config.max_bad_fraction:
      raise DataError(
        f"{line}; build the data set again, or let a few fail with "
        "max_bad_fraction=0.001"
      ) from None
    logging.warning("%s", line)
    blank = example_lib.blank_example(self.config.window, index=index)
    return blank | {_BAD: np.bool_(True)}


def _start(dataset, config: LoaderConfig):
  threads = config.num_threads
  # Grain's defaults (16 threads, 500 buffered batches) are made for text.
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=2 * threads
  )
  dataset = dataset.to_iter_dataset(options)
  if config.num_workers:
    from absl import flags  # pylint: disable=g-import-not-at-top

    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
      flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=config.num_workers)
    )
  return iter(dataset)


def _plain(error: Exception) -> Exception:
  """Our own error from inside Grain's wrapping, or what it was."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, DataError):
      return DataError(str(cause))
    cause = cause.__cause__ or cause.__context__
  return error
