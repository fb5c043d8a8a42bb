import pickle

import numpy as np
import pytest

from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.schema import DataError
from data_pipelines.tokenizer import Tokenizer

TEXTS = ["A metal ball hits a wooden plate.", "bin blue at f two now"] * 20


@pytest.fixture(scope="module")
def tokenizer():
  return Tokenizer(tokenizer_lib.train(TEXTS))


def test_training_is_deterministic_and_shrinks_to_the_text(tokenizer):
  assert tokenizer_lib.train(TEXTS) == tokenizer.model
  assert 258 < tokenizer.vocab_size < 512


@pytest.mark.parametrize(
  "texts",
  [
    [],
    ["", " \n"],
    ["a"],
    [chr(0x4E00 + i) * 3 for i in range(3000)],  # more letters than pieces
  ],
)
def test_any_corpus_gives_a_model(texts):
  model = Tokenizer(tokenizer_lib.train(texts, vocab_size=512))
  assert 258 <= model.vocab_size <= 512
  ids, mask = model.encode("Größe 日本 🎻", 64)
  assert model.decode(ids) == "größe 日本 🎻"
  assert mask.sum() > 3


def test_encode_pads_cuts_and_ignores_case(tokenizer):
  ids, mask = tokenizer.encode("a BALL hits", 16)
  assert ids.dtype == np.int32 and mask.dtype == bool
  assert ids.shape == mask.shape == (16,)
  assert (ids[~mask] == 0).all() and (ids[mask] > 1).all()
  np.testing.assert_array_equal(ids, tokenizer.encode("A ball hits", 16)[0])
  np.testing.assert_array_equal(tokenizer.encode("a ball hits", 2)[0], ids[:2])
  assert not tokenizer.encode("", 4)[1].any()


def test_every_piece_has_its_words_onset(tokenizer):
  words = [{"word": "blue", "start": 0.25}, {"word": "zyx", "start": 3.0}]
  ids, times, mask = tokenizer.encode_words(words, 16, 4.0)
  assert times.dtype == np.float32
  assert set(times[mask].tolist()) == {0.25, 3.0}
  assert (times[mask] == 3.0).sum() > 1  # a word of several pieces
  np.testing.assert_array_equal(ids, tokenizer.encode("blue zyx", 16)[0])


def test_unknown_times_are_spread(tokenizer):
  _, times, mask = tokenizer.encode_words("two now", 8, 4.0)
  assert sorted(set(times[mask].tolist())) == [1.0, 3.0]
  assert tokenizer_lib.spread([None] * 4, 4.0) == [0.5, 1.5, 2.5, 3.5]
  between = tokenizer_lib.spread([None, 1.0, None, 2.0], 4.0)
  assert between[1] == 1.0 and between[3] == 2.0
  assert 0 < between[0] < 1 < between[2] < 2
  assert tokenizer_lib.spread([], 4.0) == []


def test_load(tokenizer, tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
  for path in (tmp_path, tmp_path / "tokenizer.model"):
    assert Tokenizer.load(path).model == tokenizer.model
  assert pickle.loads(pickle.dumps(tokenizer)).vocab_size > 258
  with pytest.raises(DataError, match="no tokenizer at"):
    Tokenizer.load(tmp_path / "absent")
  (tmp_path / "broken.model").write_bytes(b"nothing")
  with pytest.raises(DataError, match="cannot read the tokenizer"):
    Tokenizer.load(tmp_path / "broken.model")


def test_vocabulary_too_small():
  with pytest.raises(ValueError, match="at least 512"):
    tokenizer_lib.train(TEXTS, vocab_size=300)
