"""Text to ids and back, with words at their times."""

import io
import pickle
import unicodedata

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


def spoken(tokenizer, words, length, seconds):
  arrays = tokenizer.encode_words(words, length, seconds)
  names = ("transcript", "transcript_times", "transcript_durations")
  return *(arrays[name] for name in names), arrays["transcript_mask"]


def test_pieces_share_the_time_of_their_word_in_order(tokenizer):
  words = [
    {"word": "blue", "start": 0.25, "end": 0.5},
    {"word": "zyx", "start": 3.0, "end": 3.6},
  ]
  ids, times, lengths, mask = spoken(tokenizer, words, 16, 4.0)
  assert times.dtype == lengths.dtype == np.float32
  np.testing.assert_array_equal(ids, tokenizer.encode("blue zyx", 16)[0])
  second = mask & (times >= 3.0)
  assert second.sum() > 1  # a word of several pieces
  ends = times + lengths
  np.testing.assert_allclose(times[second][1:], ends[second][:-1], atol=1e-6)
  assert ends[second][-1] == pytest.approx(3.6)
  assert (lengths[second] == lengths[second][0]).all()
  first = mask & ~second
  assert ends[first][-1] == pytest.approx(0.5)


def test_a_word_without_an_end_lasts_until_the_next_or_half_a_second(tokenizer):
  words = [{"word": "blue", "start": t} for t in (0.0, 0.3, 2.0)]
  timed = tokenizer_lib.with_times(words, 2.2)
  assert [word["end"] for word in timed] == [0.3, 0.8, 2.2]


def test_unknown_times_are_spread(tokenizer):
  timed = tokenizer_lib.with_times([{"word": "two"}, {"word": "now"}], 4.0)
  assert [word["start"] for word in timed] == [1.0, 3.0]
  _, times, _, mask = spoken(tokenizer, "two now", 8, 4.0)
  assert times[0] == 1.0 and 3.0 in times[mask]
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


@pytest.mark.parametrize("seed", range(4))
def test_any_text_comes_back_as_normalised(tokenizer, seed):
  """Reference: Python's NFKC and lower case, with single spaces."""
  rng = np.random.default_rng(seed)
  # From 0x131: sentencepiece leaves the capital dotted I before it as it is.
  ranges = [(0x61, 0x7B), (0xC0, 0x130), (0x131, 0x180), (0x4E00, 0x4F00)]
  for _ in range(20):
    picks = rng.integers(0, len(ranges), int(rng.integers(1, 20)))
    text = "".join(chr(rng.integers(*ranges[i])) for i in picks)
    text = f" {text[: len(text) // 2]}   {text[len(text) // 2 :]} 🎻 "
    ids, mask = tokenizer.encode(text, 200)
    assert ids[mask].min() > 1 and ids.max() < tokenizer.vocab_size
    decoded = tokenizer.decode(ids)
    lower = unicodedata.normalize("NFKC", text).lower()
    assert decoded == " ".join(lower.split())
    np.testing.assert_array_equal(tokenizer.encode(decoded, 200)[0], ids)


def test_a_mask_counts_the_ids_and_a_cut_keeps_the_first(tokenizer):
  text = "a metal ball hits a wooden plate"
  whole, mask = tokenizer.encode(text, 64)
  count = int(mask.sum())
  for length in (1, 2, count - 1, count, count + 1, 50):
    ids, mask = tokenizer.encode(text, length)
    assert ids.shape == mask.shape == (length,)
    assert mask.sum() == min(length, count)
    np.testing.assert_array_equal(ids[mask], whole[: min(length, count)])
    assert not ids[~mask].any()


def test_the_vocabulary_is_bounded_and_grows_with_the_text():
  rng = np.random.default_rng(0)
  letters = list("abcdefghijklmnop")
  words = ["".join(rng.choice(letters, 6)) for _ in range(3000)]
  texts = [" ".join(words[i : i + 6]) for i in range(0, 3000, 6)]
  sizes = [
    Tokenizer(tokenizer_lib.train(texts, vocab_size=n)).vocab_size
    for n in (512, 1024, 2048)
  ]
  assert sizes[0] <= 512 < sizes[1] <= 1024 < sizes[2] <= 2048


def test_words_that_do_not_fit_are_cut_with_their_times(tokenizer):
  words = [{"word": "blue", "start": 0.5 * i} for i in range(10)]
  *cut, mask = spoken(tokenizer, words, 4, 5.0)
  *whole, _ = spoken(tokenizer, words, 99, 5.0)
  for some, every in zip(cut, whole):
    np.testing.assert_array_equal(some, every[:4])
  assert mask.all()
  for empty in ("", []):
    assert not any(x.any() for x in spoken(tokenizer, empty, 4, 5.0))


@pytest.mark.parametrize("seed", range(5))
def test_onsets_that_are_known_stay_and_the_others_lie_between(seed):
  rng = np.random.default_rng(seed)
  for _ in range(20):
    count = int(rng.integers(1, 12))
    onsets = np.sort(rng.uniform(0, 4, count))
    known = rng.random(count) < rng.random()
    partly = [float(t) if k else None for t, k in zip(onsets, known)]
    filled = tokenizer_lib.spread(partly, 4.0)
    assert len(filled) == count
    for before, after in zip(partly, filled):
      assert before is None or after == pytest.approx(before, abs=1e-12)
    assert (np.diff(filled) >= -1e-9).all()
    assert 0 <= min(filled) and max(filled) <= 4.0


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_words_without_times_are_in_the_middle_of_equal_parts(count):
  edges = np.linspace(0, 3.0, count + 1)
  middles = (edges[1:] + edges[:-1]) / 2
  spread = tokenizer_lib.spread([None] * count, 3.0)
  np.testing.assert_allclose(spread, middles)
