import io
import pickle

import numpy as np
import pytest
import sentencepiece

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


def test_a_model_with_an_end_mark_is_that_of_a_text_encoder(tmp_path):
  """As T5's spiece.model: 0 pads, 1 ends, 2 is unknown."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["a dog barks", "rain on a roof", "a door shuts"]),
    model_writer=model, vocab_size=60, hard_vocab_limit=False,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
  )  # fmt: skip
  (tmp_path / "spiece.model").write_bytes(model.getvalue())
  t5 = tokenizer_lib.load_prompt_tokenizer(tmp_path / "spiece.model")
  texts = ["a dog", "", "rain on a roof " * 9]
  ids, mask = map(np.stack, zip(*(t5.encode(text, 12) for text in texts)))
  assert (ids[~mask] == 0).all()
  lengths = mask.sum(axis=1)
  assert 2 < lengths[0] < 12 and lengths[1:].tolist() == [0, 12]
  assert ids[0, lengths[0] - 1] == ids[2, 11] == 1
  processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
  assert processor.decode(ids[0, : lengths[0] - 1].tolist()) == "a dog"


def test_byte_pairs_are_those_of_the_published_tokenizer(tmp_path):
  tokenizers = pytest.importorskip("tokenizers")
  transformers = pytest.importorskip("transformers")
  trained = tokenizers.ByteLevelBPETokenizer()
  marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
  trained.train_from_iterator(TEXTS, vocab_size=300, special_tokens=marks)
  trained.save_model(str(tmp_path))
  files = [str(tmp_path / name) for name in ("vocab.json", "merges.txt")]
  published = transformers.RobertaTokenizerFast(*files)
  published.save_pretrained(tmp_path)
  clap = tokenizer_lib.load_prompt_tokenizer(tmp_path / "tokenizer.json")
  clap = pickle.loads(pickle.dumps(clap))
  text = "A metal ball; ünd 日本."
  wanted = published(text)["input_ids"]
  ids, mask = clap.encode(text, 80)
  assert ids[mask].tolist() == wanted and wanted[0] == 0 and wanted[-1] == 2
  cut, mask = clap.encode(text, 6)
  assert mask.all() and cut.tolist() == [*wanted[:5], 2]
  assert clap.vocab_size == len(published)
  assert not clap.encode(" ", 6)[1].any()


def test_what_is_no_prompt_tokenizer_is_one_line(tmp_path):
  for name, content in [("a.json", b"{}"), ("b.model", b"nothing")]:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read .*{name}") as caught:
      tokenizer_lib.load_prompt_tokenizer(tmp_path / name)
    assert "\n" not in str(caught.value)
  with pytest.raises(DataError, match="absent.*spiece.model"):
    tokenizer_lib.load_prompt_tokenizer(tmp_path / "absent")


def test_vocabulary_too_small():
  with pytest.raises(ValueError, match=r"vocab_size=300 is not in \[512,"):
    tokenizer_lib.train(TEXTS, vocab_size=300)
