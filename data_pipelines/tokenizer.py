"""Text to token ids: a small sentencepiece model trained with the data set.

A unigram model (https://arxiv.org/abs/1808.06226) over lower-cased NFKC text
with byte fallback, so no text is unknown, whatever its script. Ids: 0 pads, 1
is never needed, 2..257 are bytes. It is trained on one thread, which makes the
same text give the same model.

A published text encoder reads ids of its own: those of a sentencepiece model
that ends texts with a mark (T5's spiece.model), or of a tokenizer.json (the
byte-pair encoding of RoBERTa and CLAP), which needs the package `tokenizers`.

Spoken words also need a place in time: every piece of a word carries the
word's onset in seconds, so that a model hears when the word is said.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import io
import itertools
import os
import pathlib
from typing import Any

import numpy as np
import sentencepiece

from data_pipelines.schema import DataError

FILENAME = "tokenizer.model"
PROMPT_FILENAME = "prompt_tokenizer.model"
PAD = 0
# Enough text for any vocabulary this small; more only costs time.
_MAX_LINES = 200_000
_BYTES = 256
_SPECIALS = 2
# A corpus without one word still needs a model: bytes spell everything.
_PLACEHOLDER = "sound of a thing"


def train(texts: Iterable[str], *, vocab_size: int = 1024) -> bytes:
  """Trains a model; a small corpus gives a smaller vocabulary.

  Args:
    texts: captions and transcripts; empty ones are left out.
    vocab_size: upper bound, at least 512 (258 of them bytes and specials).

  Returns:
    The serialised sentencepiece model.

  Raises:
    ValueError: `vocab_size` is too small for bytes and letters.
  """
  if vocab_size < 512:
    raise ValueError(f"vocab_size is {vocab_size}, should be at least 512")
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
  """Text to ids of a fixed number; what all tokenizers have.

  Attributes:
    vocab_size: ids lie in [0, vocab_size).
    model: the file's bytes, to store beside a checkpoint.
  """

  vocab_size: int
  _ends = True  # whether the last id of a text is a mark

  def __init__(self, model: bytes):
    self.model = model
    self._load()

  def encode(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [length] and mask bool [length]; "" has no ids.

    Longer text is cut; a mark at its end stays.
    """
    ids = self._ids(text) if text.strip() else []
    if self._ends and len(ids) > length:
      ids[length - 1] = ids[-1]
    return _pad(ids, length, np.int32)

  # Worker processes get the tokenizer by pickling: the model's bytes suffice.
  def __getstate__(self):
    return self.model

  def __setstate__(self, model):
    self.__init__(model)


class BytePairs(TextTokenizer):
  """A published tokenizer.json, as RoBERTa and CLAP have it."""

  def _load(self):
    try:  # An optional package: only these files need it.
      import tokenizers  # pylint: disable=g-import-not-at-top
    except ModuleNotFoundError:
      raise DataError(
        "a tokenizer.json is read with the package `tokenizers`: pip install"
        " 'v2a_jax[prompts]'"
      ) from None
    try:
      model = tokenizers.Tokenizer.from_str(self.model.decode())
    except Exception as error:  # It raises nothing more special.
      raise ValueError(error) from None
    model.no_padding()
    model.no_truncation()
    self._ids = lambda text: model.encode(text).ids
    self.vocab_size = model.get_vocab_size()


class Tokenizer(TextTokenizer):
  """A sentencepiece model, which also encodes timed words."""

  @classmethod
  def load(cls, path: str | os.PathLike) -> "Tokenizer":
    """Reads a model file, or the one of a data set's or bundle's folder.

    Raises:
      DataError: there is none, or it is not a sentencepiece model.
    """
    path = pathlib.Path(path)
    path = path / FILENAME if path.is_dir() else path
    try:
      return cls(path.read_bytes())
    except FileNotFoundError:
      raise DataError(
        f"no tokenizer at {path}; a data set built by `v2a data` has one"
      ) from None
    except (OSError, RuntimeError) as error:
      raise DataError(f"cannot read the tokenizer {path}: {error}") from None

  def encode_words(
    self,
    words: str | Sequence[Mapping[str, Any]],
    length: int,
    window_seconds: float,
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encodes spoken words, each piece at its word's onset.

    Args:
      words: a transcript, or entries {"word", "start"?} in spoken order.
      length: number of tokens; more are cut.
      window_seconds: where no time is known, word i of n is at
        (i + 0.5) / n of it; between known times, evenly between them.

    Returns:
      Ids int32 [length], times float32 [length] in seconds, mask bool [length].
    """
    if isinstance(words, str):
      words = [{"word": word} for word in words.split()]
    onsets = spread([word.get("start") for word in words], window_seconds)
    ids, times = [], []
    for word, onset in zip(words, onsets):
      pieces = self._processor.encode(word["word"])
      ids += pieces
      times += [onset] * len(pieces)
    ids, mask = _pad(ids, length, np.int32)
    times, _ = _pad(times, length, np.float32)
    return ids, times, mask

  def decode(self, ids: Sequence[int]) -> str:
    return self._processor.decode([int(i) for i in ids if i != PAD])

  def _ids(self, text: str) -> list[int]:
    return self._processor.encode(text, add_eos=self._ends)

  def _load(self):
    self._processor = sentencepiece.SentencePieceProcessor()
    self._processor.LoadFromSerializedProto(self.model)
    self.vocab_size = self._processor.vocab_size()
    self._ends = self._processor.eos_id() >= 0


def load_prompt_tokenizer(path: str | os.PathLike) -> TextTokenizer:
  """The tokenizer of a text encoder: spiece.model or tokenizer.json.

  Raises:
    DataError: it is absent or neither of them, or a tokenizer.json cannot be
      read because `tokenizers` is not installed.
  """
  path = pathlib.Path(path)
  try:
    model = path.read_bytes()
    is_json = model.lstrip().startswith(b"{")
    return BytePairs(model) if is_json else Tokenizer(model)
  except (OSError, RuntimeError, ValueError) as error:
    raise DataError(
      f"cannot read {path}: {error}; name the spiece.model or tokenizer.json"
      " that belongs to the text encoder"
    ) from None


def spread(
  onsets: Sequence[float | None], window_seconds: float
) -> list[float]:
  """Fills in unknown onsets (None), evenly over the window.

  >>> spread([None, None], 4.0)
  [1.0, 3.0]
  """
  count = len(onsets)
  known = {i: float(t) for i, t in enumerate(onsets) if t is not None}
  if not known:
    return [(i + 0.5) / count * window_seconds for i in range(count)]
  # The window's ends are half a word before the first and after the last.
  places = {-0.5: min(0.0, *known.values(), 0.0), **known}
  places[count - 0.5] = max(window_seconds, *known.values(), 0.0)
  return np.interp(range(count), list(places), list(places.values())).tolist()


def _corpus(texts: Iterable[str], *, alphabet: int) -> list[str]:
  """Lines to train on, written in their `alphabet` most common characters.

  Sentencepiece refuses a vocabulary smaller than its alphabet. Bytes spell the
  characters left out.
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
  kept = values[:length]
  padded = np.zeros(length, dtype)
  padded[: len(kept)] = kept
  return padded, np.arange(length) < len(kept)
