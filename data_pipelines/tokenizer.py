"""Encodes text as token ids, with a sentencepiece model of the data set.

The model is a unigram model (https://arxiv.org/abs/1808.06226) over lower-cased
NFKC text with byte fallback, so any text of any script can be encoded. Id 0 is
padding, 1 is "unknown" (unused, because of the bytes), 2 to 257 are bytes.
Training uses one thread, so the same text gives the same model.

A published text encoder has ids of its own: those of a sentencepiece model that
ends every text with an end mark (T5's spiece.model), or of a tokenizer.json
(the byte-pair encoding of RoBERTa and CLAP; needs the package `tokenizers`).

Spoken words also have times in seconds: the pieces of a word share the time
from its start to its end.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import io
import itertools
import os
from typing import Any

import numpy as np
import sentencepiece

from data_pipelines.schema import DataError
from v2a_jax.basics.files import read_bytes
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.settings import SettingError

FILENAME = "tokenizer.model"
PROMPT_FILENAME = "prompt_tokenizer.model"
PAD = 0
# Bytes, special ids and as many pieces of text.
MIN_VOCAB_SIZE = 512
# Enough text for so small a vocabulary.
_MAX_LINES = 200_000
_BYTES = 256
# Seconds that a word lasts whose end is unknown, at most.
_LONGEST_WORD = 0.5
# Trained on where the corpus is empty; bytes then spell everything.
_PLACEHOLDER = "sound of a thing"


def train(texts: Iterable[str], *, vocab_size: int = 1024) -> bytes:
  """Trains a sentencepiece model on texts and returns its bytes.

  A small corpus gives fewer ids than `vocab_size`, 258 of which are bytes and
  special ids.

  Raises:
    SettingError: `vocab_size` is below 512, too few for bytes and letters.
  """
  if vocab_size < MIN_VOCAB_SIZE:
    interval = f"[{MIN_VOCAB_SIZE}, inf)"
    raise SettingError(f"vocab_size={vocab_size} is not in {interval}")
  lines = _corpus(texts, alphabet=(vocab_size - _BYTES) // 2)
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=model,
    model_type="unigram",
    vocab_size=vocab_size,
    hard_vocab_limit=False,
    character_coverage=1.0,
    byte_fallback=True,
    normalization_rule_name="nmt_nfkc_cf",
    pad_id=PAD,
    unk_id=1,
    bos_id=-1,
    eos_id=-1,
    num_threads=1,
    minloglevel=2,
  )
  return model.getvalue()


class TextTokenizer:
  """Base of the tokenizers: encodes text as a fixed number of ids.

  Attributes:
    vocab_size: number of ids; they lie in [0, vocab_size).
    model: bytes of the model's file, which a checkpoint stores beside it.
  """

  vocab_size: int
  _ends = True  # whether an end mark follows the text

  def __init__(self, model: bytes):
    self.model = model
    self._load()

  def encode(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids int32 [length] and their mask bool [length]; "" has no ids.

    Longer text is cut before its end mark.
    """
    ids = self._ids(text) if text.strip() else []
    if self._ends and len(ids) > length:
      ids[length - 1] = ids[-1]
    return _pad(ids, length, np.int32)

  # Worker processes get the tokenizer by pickling.
  def __getstate__(self):
    return self.model

  def __setstate__(self, model):
    self.__init__(model)


class BytePairs(TextTokenizer):
  """A published tokenizer.json, such as RoBERTa's and CLAP's."""

  def _load(self):
    try:  # An optional package that only these files need.
      import tokenizers
    except ModuleNotFoundError:
      raise DataError(
        "a tokenizer.json needs the package `tokenizers`: pip install"
        " 'v2a_jax[prompts]'"
      ) from None
    try:
      model = tokenizers.Tokenizer.from_str(self.model.decode())
    except Exception as error:  # `tokenizers` raises plain `Exception`.
      raise ValueError(error) from None
    model.no_padding()
    model.no_truncation()
    self._ids = lambda text: model.encode(text).ids
    self.vocab_size = model.get_vocab_size()


class Tokenizer(TextTokenizer):
  """A sentencepiece model, which also encodes timed words."""

  @classmethod
  def load(cls, path: str | os.PathLike) -> "Tokenizer":
    """Reads a model file, or that of a data set's or bundle's folder.

    Raises:
      DataError: the file is missing or no sentencepiece model.
    """
    path = as_path(path)
    path = path / FILENAME if path.is_dir() else path
    try:
      return cls(read_bytes(path))
    except FileNotFoundError:
      raise DataError(
        f"no tokenizer at {path}; every data set built by `v2a data` has one"
      ) from None
    except (OSError, RuntimeError) as error:
      raise DataError(f"cannot read the tokenizer {path}: {error}") from None

  def encode_words(
    self,
    words: str | Sequence[Mapping[str, Any]],
    length: int,
    window_seconds: float,
  ) -> dict[str, np.ndarray]:
    """Encodes spoken words; the pieces of a word share its time evenly.

    Args:
      words: a transcript, or entries {"word", "start"?, "end"?} in spoken
        order, in seconds; see `with_times` for those without.
      length: number of ids; more are cut.
      window_seconds: length of the window.

    Returns:
      `transcript` int32 [length], ids; `transcript_times` and
      `transcript_durations` float32 [length], onset and duration of each in
      seconds; `transcript_mask` bool [length].
    """
    if isinstance(words, str):
      words = [{"word": word} for word in words.split()]
    ids, times, durations = [], [], []
    for word in with_times(words, window_seconds):
      pieces = self._processor.encode(word["word"])
      share = (word["end"] - word["start"]) / max(len(pieces), 1)
      ids += pieces
      times += [word["start"] + share * i for i in range(len(pieces))]
      durations += [share] * len(pieces)
    ids, mask = _pad(ids, length, np.int32)
    return {
      "transcript": ids,
      "transcript_times": _pad(times, length, np.float32)[0],
      "transcript_durations": _pad(durations, length, np.float32)[0],
      "transcript_mask": mask,
    }

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of ids; padding is left out."""
    return self._processor.decode([int(i) for i in ids if i != PAD])

  def _ids(self, text: str) -> list[int]:
    return self._processor.encode(text, add_eos=self._ends)

  def _load(self):
    self._processor = sentencepiece.SentencePieceProcessor()
    self._processor.LoadFromSerializedProto(self.model)
    self.vocab_size = self._processor.vocab_size()
    self._ends = self._processor.eos_id() >= 0


def load_prompt_tokenizer(path: str | os.PathLike) -> TextTokenizer:
  """Reads the spiece.model or tokenizer.json of a published text encoder.

  Raises:
    DataError: the file is missing or neither of them, or it is a tokenizer.json
      and `tokenizers` is not installed.
  """
  path = as_path(path)
  try:
    model = read_bytes(path)
    is_json = model.lstrip().startswith(b"{")
    return BytePairs(model) if is_json else Tokenizer(model)
  except (OSError, RuntimeError, ValueError) as error:
    raise DataError(
      f"cannot read {path}: {error}; name the spiece.model or tokenizer.json"
      " that belongs to the text encoder"
    ) from None


def with_times(
  words: Sequence[Mapping[str, Any]], seconds: float
) -> list[dict[str, Any]]:
  """Fills in what is unknown of the times of spoken words.

  Unknown starts are `spread`. A word without an end lasts until the next one
  starts, the last one until `seconds`, or half a second if that is shorter.

  Args:
    words: entries {"word", "start"?, "end"?} in spoken order, in seconds.
    seconds: length of the clip or window that they are spoken in.

  Returns:
    Entries {"word", "start", "end"}.
  """
  starts = spread([word.get("start") for word in words], seconds)
  timed = []
  for word, start, following in zip(words, starts, [*starts[1:], seconds]):
    end = word.get("end")
    if end is None or end <= start:
      end = start + min(max(following - start, 0.0), _LONGEST_WORD)
    timed.append({"word": word["word"], "start": start, "end": end})
  return timed


def spread(
  onsets: Sequence[float | None], window_seconds: float
) -> list[float]:
  """Fills in the onsets (seconds) that are None, evenly between the others.

  Without any onset, word i of n is at (i + 0.5) / n of the window:

  >>> spread([None, None], 4.0)
  [1.0, 3.0]
  """
  count = len(onsets)
  times = {i: float(t) for i, t in enumerate(onsets) if t is not None}
  if not times:
    return [(i + 0.5) / count * window_seconds for i in range(count)]
  # The window's ends are half a word before the first and after the last.
  places = {-0.5: min(0.0, *times.values(), 0.0), **times}
  places[count - 0.5] = max(window_seconds, *times.values(), 0.0)
  return np.interp(range(count), list(places), list(places.values())).tolist()


def _corpus(texts: Iterable[str], *, alphabet: int) -> list[str]:
  """Returns the lines to train on, in their `alphabet` commonest characters.

  Sentencepiece refuses a vocabulary that is smaller than the alphabet; bytes
  spell the characters left out.
  """
  texts = filter(None, (" ".join(t.lower().split()) for t in texts))
  lines = list(itertools.islice(texts, _MAX_LINES))
  counts = Counter(itertools.chain.from_iterable(lines))
  common = {char for char, _ in counts.most_common(alphabet)}
  if len(common) < len(counts):
    rare = {ord(char): " " for char in counts if char not in common}
    lines = [line.translate(rare) for line in lines]
  return [line for line in lines if line.strip()] or [_PLACEHOLDER]


def _pad(values: Sequence, length: int, dtype) -> tuple[np.ndarray, np.ndarray]:
  """Returns the first `length` values, padded with zeros, and their mask."""
  values = values[:length]
  padded = np.zeros(length, dtype)
  padded[: len(values)] = values
  return padded, np.arange(length) < len(values)
