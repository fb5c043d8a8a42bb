"""Reads records as batches, the same ones on any number of hosts and workers.

  each set: seed -> shuffle -> repeat; mix -> draw -> batch -> [process::processes]

is one pure Grain `MapDataset` (https://github.com/google/grain): its element k
is a function of the configuration and k alone, so its position is one integer,
the step. Crop, caption and gain are drawn from the position before the slice
between processes. With B examples a step on P processes, process p takes
examples p B/P to (p + 1) B/P of the step: the processes' arrays, concatenated,
are the same global batch for every P.

Frames are decoded into their rows of the batch, without a copy. A worker process
copies its batches once, into memory that it shares with this one; here they are
not copied again.
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools
import logging
import mmap

import grain
import numpy as np

from data_pipelines import example as example_lib
from data_pipelines import features as features_lib
from data_pipelines import stages, stored, targets
from data_pipelines.columns.view import open_view
from data_pipelines.decoding import MediaCache
from data_pipelines.example import Example
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.schema import DataError
from data_pipelines.source import Concatenated
from data_pipelines.tokenizer import TextTokenizer, Tokenizer
from v2a_jax.basics.parent import end_with_parent
from v2a_jax.basics.settings import SettingError

_BAD, _SPENT = "bad", "spent"
# Number of bad records that a small data set may have too.
_FEW_BAD = 8
# Number of times that killed workers are started again.
_RESTARTS = 3


def make_decoder(config: LoaderConfig) -> Callable[..., Example]:
  """Returns a function from a record to an example without randomness.

  It takes the window at the record's start and the preferred caption. The
  example's key `example` is the function's `index`, 0 by default.
  """
  return functools.partial(
    example_lib.decode_record,
    window=dataclasses.replace(config.window, sound=True),
    tokenizer=config.load_tokenizer(),
    prompt_tokenizer=config.load_prompt_tokenizer(),
  )


def make_loader(
  config: LoaderConfig,
  *,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
) -> "Loader":
  """Starts reading batches; see `Loader`.

  `start_step` is the step of the first batch: `Loader.step` of an earlier
  loader continues where that one ended.

  Raises:
    DataError: a data set or tokenizer is missing or unusable, or the batch
      cannot be divided between the processes.
  """
  if config.batch_size % process_count:
    raise DataError(
      f"batch_size={config.batch_size} is not divisible by the "
      f"{process_count} processes"
    )
  if config.features:
    facts = features_lib.FeatureFacts(
      encoder=config.encoder,
      dim=config.features,
      fps=config.fps,
      frame_size=config.frame_size,
      seconds=config.seconds,
    )
    for path in config.paths:
      features_lib.check(path, facts)
  window, target = config.window, None
  for path in config.paths:
    stored.check(path, window, sound=window.sound)
    if config.cached_target:
      found = targets.check(
        path,
        kind=getattr(config, "target", ""),
        codec=config.codec,
        seconds=config.seconds,
      )
      if target not in (None, found):
        raise DataError(f"{path} has {found}, {config.paths[0]} has {target}")
      target = found
  opened = [
    open_view(
      path,
      config.split,
      admit=config.admit,
      annotations=config.annotations,
      captions=config.caption_fields,
      least=config.min_confidence,
    )
    for path in config.paths
  ]
  records = Concatenated([source for source, _ in opened])
  admitted = [line for _, line in opened if line]
  decode = _Decode(
    config=config,
    records=records,
    tokenizer=config.load_tokenizer(),
    prompt_tokenizer=config.load_prompt_tokenizer(),
    target=target,
  )
  local = config.batch_size // process_count
  dataset = (
    _order(records, config)
    .random_map(_Draw())
    .batch(local, drop_remainder=True, batch_fn=decode)
    .slice(slice(process_index, None, process_count))
    .slice(slice(start_step, None))
  )
  return Loader(
    dataset, records, config, start_step=start_step, admitted=admitted
  )


def _order(records: Concatenated, config: LoaderConfig) -> grain.MapDataset:
  """Returns the indices of the records in the order in which they are read."""

  def endless(first: int, last: int) -> grain.MapDataset:
    indices = grain.MapDataset.range(first, last).seed(config.seed)
    return (indices.shuffle() if config.shuffle else indices).repeat()

  if not config.weights:
    return endless(0, len(records))
  ends = [0, *itertools.accumulate(map(len, records.sources))]
  for path, size in zip(config.paths, map(len, records.sources)):
    if not size:
      raise DataError(
        f"{path} has no record of {config.split!r} to be mixed in"
      )
  sets = [endless(first, last) for first, last in itertools.pairwise(ends)]
  return grain.MapDataset.mix(sets, config.weights).seed(config.seed)


class Loader:
  """An endless iterator of batches: flat dicts of numpy arrays.

  Attributes:
    step: step of the next batch; the loader's whole state.
    num_examples: number of records in an epoch.
    bad: names of the records that could not be decoded, each of them once.
    workers: number of processes that decode, and of threads in each.
    spent: float64 [stages, 2], wall-clock and computing seconds of
      `stages.STAGES` for the batches so far, of all threads and workers.
    admitted: a line for each data set: how many clips `admit` takes, and how
      many it does not, by reason.
  """

  def __init__(
    self, dataset, records: Concatenated, config, *, start_step, admitted=()
  ):
    self.step = start_step
    self.admitted = tuple(admitted)
    self.num_examples = len(records)
    self.bad: list[str] = []
    self.spent = np.zeros((len(stages.STAGES), 2))
    self.workers = config.workers
    self._records, self._config = records, config
    self._dataset, self._first = dataset, start_step
    self._restarts = 0
    self._iterator = _start(dataset, config)

  @property
  def stage_seconds(self) -> dict[str, float]:
    """Wall-clock seconds by stage; see `spent`."""
    return dict(zip(stages.STAGES, self.spent[:, 0].tolist()))

  def __iter__(self) -> "Loader":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = self._next()
    self.spent += batch.pop(_SPENT)
    batch = {key: _kept(value) for key, value in batch.items()}
    self._count_bad(batch["example"][batch.pop(_BAD)])
    self.step += 1
    return batch

  def _next(self) -> dict[str, np.ndarray]:
    """Reads a batch; starts workers again that were killed."""
    while True:
      try:
        return next(self._iterator)
      except Exception as error:
        killed = "terminated unexpectedly" in str(error)
        if not killed or self._restarts == _RESTARTS:
          raise _unwrapped(error) from None
      self._restarts += 1
      logging.warning(
        "a process that loads data was killed; all are started again at step"
        " %d (%d of at most %d times)",
        *(self.step, self._restarts, _RESTARTS),
      )
      self.close()
      rest = self._dataset.slice(slice(self.step - self._first, None))
      self._iterator = _start(rest, self._config)

  def __enter__(self) -> "Loader":
    return self

  def __exit__(self, *_):
    self.close()

  def close(self) -> None:
    """Ends threads and worker processes."""
    if self._iterator is not None and hasattr(self._iterator, "close"):
      self._iterator.close()
    self._iterator = None

  def _count_bad(self, examples: np.ndarray) -> None:
    names = map(self._records.name, map(int, examples))
    self.bad = list(dict.fromkeys([*self.bad, *names]))
    fraction = self._config.max_bad_fraction
    few = max(1, min(_FEW_BAD, self.num_examples // 8))
    if len(self.bad) > max(fraction * self.num_examples, few):
      raise DataError(
        f"{len(self.bad)} of {self.num_examples} records cannot be decoded,"
        f" over max_bad_fraction={fraction:g}; the last "
        f"is {self.bad[-1]}"
      )


class _Draw(grain.transforms.RandomMap):
  """Gives each position its random generator."""

  def random_map(
    self, index: int, rng: np.random.Generator
  ) -> tuple[int, np.random.Generator]:
    bits = rng.bit_generator  # Grain uses it again.
    own = type(bits)(0)
    own.state = bits.state
    return int(index), np.random.Generator(own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decode:
  """Decodes records into a batch; pickled to the worker processes."""

  config: LoaderConfig
  records: Concatenated
  tokenizer: Tokenizer
  prompt_tokenizer: TextTokenizer
  target: targets.TargetFacts | None = None
  cache: MediaCache | None = None

  def __post_init__(self):
    if self.config.cache_mb:
      share = self.config.cache_mb / max(self.config.workers[0], 1)
      object.__setattr__(self, "cache", MediaCache(share))

  def __setstate__(self, state):
    """Unpickles in a worker, which then ends with the process it works for."""
    end_with_parent()
    self.__dict__.update(state)

  def __call__(self, drawn) -> dict[str, np.ndarray]:
    """Makes a batch of (index, random generator) of each of its rows."""
    window, frames = self.config.window, None
    stages.take()
    if window.frames:
      shape = (len(drawn), window.num_frames, *window.frame_size, 3)
      frames = np.empty(shape, np.uint8)
    rows = []
    for i, (index, rng) in enumerate(drawn):
      rows.append(self._row(index, rng, None if frames is None else frames[i]))
    with stages.stage("copy"):
      batch = {} if frames is None else {"frames": frames}
      for key in rows[0]:
        if key not in batch:
          batch[key] = np.stack([row[key] for row in rows])
    return batch | {_SPENT: stages.take()}

  def _row(self, index: int, rng, out: np.ndarray | None) -> Example:
    config = self.config
    try:
      record = self.cache.record(index) if self.cache else None
      if record is None:
        with stages.stage("read"):
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
        out=out,
      )
      if self.target:
        example |= targets.read(record, self.target)
    except SettingError as error:  # No record is bad: it is so of all.
      line = f"{self.records.name(index)}: {error}"
      raise SettingError(line) from None
    except (ValueError, DataError) as error:  # MediaError is a ValueError
      return self._blank(index, error, out)
    return example | {_BAD: np.bool_(False)}

  def _blank(self, index: int, error: Exception, out) -> Example:
    """Logs a record that cannot be decoded; returns an empty example."""
    line = f"{self.records.name(index)}: {error}"
    if not self.config.max_bad_fraction:
      raise DataError(
        f"{line}; build the data set again, or let a few fail with "
        "max_bad_fraction=0.001"
      ) from None
    logging.warning("%s", line)
    blank = example_lib.blank_example(self.config.window, index=index, out=out)
    if self.target:
      blank |= targets.blank(self.target)
    return blank | {_BAD: np.bool_(True)}


def _start(dataset, config: LoaderConfig):
  """Starts the threads and worker processes; returns an iterator."""
  processes, threads = config.workers
  # Grain's defaults (16 threads, 500 buffered batches) are made for text.
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=2 * threads
  )
  dataset = dataset.to_iter_dataset(options)
  if processes:
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags.
      flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=processes)
    )
  return iter(dataset)


def _kept(array: np.ndarray) -> np.ndarray:
  """Returns an array on the same memory, which lasts as long as the array.

  Batches of a worker process come as Grain's arrays in shared memory. They last
  as long, but print an error if they still exist when the program ends.
  """
  shared = getattr(array, "shm", None)
  if shared is None:
    return array
  try:
    with open(f"/dev/shm/{shared.name}", "r+b") as file:
      memory = mmap.mmap(file.fileno(), array.nbytes)
  except FileNotFoundError:  # macOS has no such folder.
    return np.array(array)
  return np.frombuffer(memory, array.dtype).reshape(array.shape)


def _unwrapped(error: Exception) -> Exception:
  """Returns our error inside Grain's wrapping, or the error itself."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, DataError | SettingError):
      return type(cause)(str(cause))
    cause = cause.__cause__ or cause.__context__
  return error
