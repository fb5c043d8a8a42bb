"""Words of the transcript that can be understood.

  words heard = recognised words in the transcript's order / its words
  word error rate = (substituted + missing + inserted words) / its words

summed over clips. The first is by the longest common subsequence, the second by
the least number of edits, of the transcript and of what PocketSphinx hears
(https://github.com/cmusphinx/pocketsphinx, with its English acoustic and language
model). It hears 0.6 to 0.8 of clean read speech and little under noise, so a
value says something only beside that of the ground truth. Scenes, whose talker it
does not understand, are left out: their words are recognised by their own
recogniser, one by one, where the record says that they are spoken.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq, Levenshtein
import soxr

from v2a_jax.evaluation import scene_words
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import base

DIGITS = (
  *("one", "two", "three", "four", "five"),
  *("six", "seven", "eight", "nine", "ten"),
)
_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class Words:
  """Counts of one clip.

  Attributes:
    heard: number of words that are recognised.
    said: number of words of the transcript.
  """

  heard: int
  said: int


@dataclasses.dataclass(frozen=True)
class Errors:
  """Counts of one clip.

  Attributes:
    edits: number of words that are substituted, missing or inserted.
    said: number of words of the transcript.
  """

  edits: int
  said: int


class WordsHeard(base.RatioMetric):
  """Share of the transcript's words that a recogniser hears, in order."""

  id = "words_heard"
  label = "Words heard"
  direction = "higher"
  variant = "pocketsphinx_en_us_lcs"
  numerator, denominator = {"heard": 1}, {"said": 1}
  unmet = "no clip of real speech has a transcript"
  about = (
    "Share of the words of English transcripts that PocketSphinx hears, in"
    " their order. Read it against the ground truth row: of clean read speech"
    " it hears 0.6 to 0.8."
  )

  def judges(self, clip: Clip) -> bool:
    return bool(spoken(clip.transcript)) and not clip.of_scenes

  def get_state(self, sample: base.Sample) -> Words:
    said, heard = spoken(sample.clip.transcript), sample.cached(_heard)
    return Words(LCSseq.similarity(said, heard), len(said))


class WordErrorRate(WordsHeard):
  """Words that a recogniser gets wrong, over those of the transcript."""

  id = "word_error_rate"
  label = "Word error rate"
  direction = "lower"
  variant = "pocketsphinx_en_us_levenshtein"
  numerator, denominator = {"edits": 1}, {"said": 1}
  bounds = (0.0, np.inf)
  about = (
    "Words of English transcripts that PocketSphinx hears as others or not at"
    " all, and words that it hears beside them, over the number of words. More"
    " than 1 where it hears many. Read it against the ground truth row."
  )

  def get_state(self, sample: base.Sample) -> Errors:
    return errors(spoken(sample.clip.transcript), sample.cached(_heard))


def errors(said: Sequence[str], heard: Sequence[str]) -> Errors:
  """Counts the least number of edits from the words that are said."""
  return Errors(Levenshtein.distance(said, heard), len(said))


class SceneWords(base.RatioMetric):
  """Share of the words of scenes that are recognised at their time."""

  id = "scene_words"
  label = "Scene words"
  direction = "higher"
  variant = scene_words.VARIANT
  numerator, denominator = {"heard": 1}, {"said": 1}
  unmet = "no clip is a scene with words"
  about = (
    "Share of the words of scenes that a recogniser of their talker finds where"
    " the record says that they are spoken. A word at another time counts as"
    " wrong, also for a model that is not told the times."
  )

  def wanted(self, clip: Clip) -> list[Mapping[str, Any]]:
    """Returns the words that are judged."""
    return list(clip.words)

  def judges(self, clip: Clip) -> bool:
    return clip.of_scenes and bool(self.wanted(clip))

  def get_state(self, sample: base.Sample) -> Words:
    words = self.wanted(sample.clip)
    found = scene_words.recognise(sample.waveform, sample.sample_rate, words)
    heard = sum(name == word["word"] for name, word in zip(found, words))
    return Words(heard, len(words))


class SceneDigits(SceneWords):
  """Share of the numbers that scenes say that are recognised at their time."""

  id = "scene_digits"
  label = "Scene digits"
  unmet = "no clip is a scene with a number from one to ten"
  about = (
    "As scene words, of the words one to ten alone; the recogniser still tells"
    " all words of the vocabulary apart."
  )

  def wanted(self, clip: Clip) -> list[Mapping[str, Any]]:
    return [word for word in clip.words if word["word"] in DIGITS]


def spoken(transcript: str) -> list[str]:
  """Returns the words of a transcript, lower-case, without punctuation."""
  return re.findall(r"[^\W_]+(?:'[^\W_]+)*", transcript.lower())


def _heard(sample: base.Sample) -> list[str]:
  return recognise(sample.waveform, sample.sample_rate).split()


def recognise(waveform: np.ndarray, sample_rate: int) -> str:
  """Returns what PocketSphinx hears in [samples, channels], "" in silence."""
  mono = soxr.resample(waveform.mean(axis=1), sample_rate, _RATE)
  samples = np.round(np.clip(mono, -1, 1) * 32767).astype("<i2")
  if not samples.any():
    return ""
  decoder = _decoder()
  # Else what it hears depends on the sounds that it heard before.
  decoder.reinit_feat(decoder.config)
  decoder.start_utt()
  decoder.process_raw(samples.tobytes(), full_utt=True)
  decoder.end_utt()
  best = decoder.hyp()
  return best.hypstr if best else ""


@functools.cache
def _decoder() -> Any:
  import pocketsphinx  # It brings a large model, which takes time to load.

  return pocketsphinx.Decoder(samprate=_RATE, cmn="batch", loglevel="FATAL")
