"""One record as an example: crops and clocks against closed forms."""

import dataclasses
from fractions import Fraction
import pickle

import numpy as np
import pytest

from data_pipelines import features as features_lib
from data_pipelines import schema
from data_pipelines import tokenizer as tokenizer_lib
from data_pipelines.decoding import Media, MediaCache, decode_media
from data_pipelines.example import blank_example, cut_frames, decode_record
from data_pipelines.features import Features
from data_pipelines.schema import DataError
from data_pipelines.tokenizer import Tokenizer
from data_pipelines.window import Window
from tests.data_pipelines.samples import RATE, clip_record
from v2a_jax import media
from v2a_jax.basics.settings import SettingError

WINDOW = Window(
  seconds=1.0,
  fps=20,
  frame_size=(8, 8),
  sample_rate=RATE,
  channels=1,
  prompt_length=6,
  transcript_length=24,
  caption_fields=("audio_caption", "caption"),
)


@pytest.fixture(scope="module")
def tokenizer():
  texts = ["a dog barks", "one two three four five six"] * 10
  return Tokenizer(tokenizer_lib.train(texts))


def counting_record(*, seconds=3.0, fps=20, rate=RATE):
  """Frame i has grey value 3 i + 3; sample i has the 16-bit value i - 2^15."""
  count = round(seconds * fps)
  grey = (3 * np.arange(count) + 3)[:, None, None, None]
  frames = np.broadcast_to(grey, (count, 16, 16, 3)).astype(np.uint8)
  samples = (np.arange(round(seconds * rate)) - 2**15) / 2**15
  return schema.make_record(
    id="counting",
    video=media.encode_video(frames, fps=fps, crf=0),
    audio=media.encode_flac(samples[:, None].astype(np.float32), rate),
    duration=seconds,
  )


def frames_of(record):
  """All frames of a `counting_record` at the window's size; none is equal."""
  frames = media.read_video(record["video"], size=WINDOW.frame_size).frames
  assert len(np.unique(frames[:, 0, 0, 0])) == len(frames)
  return frames


def decode(record, tokenizer, window=WINDOW, **options):
  return decode_record(record, window=window, tokenizer=tokenizer, **options)


@pytest.mark.parametrize(
  "fps,seconds,frames",
  [
    (25, 4.0, 100),
    (12.5, 4.0, 50),
    (12.5, 1.0, 13),
    (30_000 / 1001, 1.001, 30),
    (10, 0.3, 3),
    (0.1, 2.0, 1),
  ],
)
def test_a_window_has_room_for_every_frame_that_begins_in_it(
  fps, seconds, frames
):
  window = dataclasses.replace(WINDOW, fps=fps, seconds=seconds)
  assert window.num_frames == frames
  exact = Fraction(fps).limit_denominator(2000) * Fraction(
    seconds
  ).limit_denominator(2000)
  assert frames == -(-exact.numerator // exact.denominator)
  times = np.arange(1000) / fps
  assert np.count_nonzero(times < seconds - 1e-6) == frames


@pytest.mark.parametrize(
  "rate,seconds,samples",
  [(16_000, 4.0, 64_000), (44_100, 0.1, 4410), (22_050, 1 / 3, 7350)],
)
def test_a_window_has_a_whole_number_of_samples(rate, seconds, samples):
  window = dataclasses.replace(WINDOW, sample_rate=rate, seconds=seconds)
  assert window.num_samples == samples


def test_the_window_at_the_start_is_the_start(tokenizer):
  record = counting_record()
  example = decode(record, tokenizer)
  samples, _ = media.decode_flac(record["audio"])
  np.testing.assert_array_equal(example["audio"], samples[:RATE])
  np.testing.assert_allclose(example["frame_times"], np.arange(20) / 20)
  np.testing.assert_array_equal(example["frames"], frames_of(record)[:20])


@pytest.mark.parametrize("rate,duration", [(RATE, 3.0), (7350, 4.0)])
def test_a_crop_cuts_frames_and_samples_at_one_instant(
  tokenizer, rate, duration
):
  """The first sample tells where the crop begins, to the sample."""
  record = counting_record(seconds=duration, rate=rate)
  samples, _ = media.decode_flac(record["audio"])
  frames = frames_of(record)
  window = dataclasses.replace(WINDOW, sample_rate=rate)
  times = np.arange(round(20 * duration)) / 20
  for seed in range(30):
    rng = np.random.default_rng(seed)
    example = decode(record, tokenizer, window, rng=rng, crop="random")
    first = round(float(example["audio"][0, 0]) * 2**15 + 2**15)
    assert 0 <= first <= (duration - 1) * rate
    cut = samples[first : first + rate]
    np.testing.assert_array_equal(example["audio"], cut)
    start = first / rate
    inside = np.flatnonzero((times >= start) & (times < start + 1))
    mask = example["frame_mask"]
    assert mask.sum() == len(inside) and mask[: len(inside)].all()
    np.testing.assert_allclose(
      example["frame_times"][mask], times[inside] - start, atol=2e-6
    )
    np.testing.assert_array_equal(example["frames"][mask], frames[inside])


def test_crops_cover_a_record_evenly(tokenizer):
  """Starts are uniform on [0, duration - seconds]: a Kolmogorov bound."""
  record = counting_record() | {"video": b""}
  cache = MediaCache(10)
  starts = []
  for seed in range(300):
    rng = np.random.default_rng(seed)
    example = decode(record, tokenizer, rng=rng, crop="random", cache=cache)
    starts.append(float(example["audio"][0, 0] + 1) * 2**15 / RATE)
  places = np.sort(starts) / 2.0
  distance = np.abs(places - (np.arange(300) + 0.5) / 300).max()
  assert distance < 1.95 / np.sqrt(300)  # fails once in 1000 seeds, not here


def test_without_a_generator_nothing_is_random(tokenizer):
  record = counting_record() | {"caption": "a dog", "audio_caption": "one"}
  options = dict(crop="random", random_caption=True, gain_db=6.0)
  plain, random = (
    decode(record, tokenizer),
    decode(record, tokenizer, **options),
  )
  for key in plain:
    np.testing.assert_array_equal(plain[key], random[key])
  same = [
    decode(record, tokenizer, rng=np.random.default_rng(5), **options)
    for _ in range(2)
  ]
  for key in plain:
    np.testing.assert_array_equal(same[0][key], same[1][key])


def test_a_short_record_is_followed_by_silence_and_masked_frames(tokenizer):
  record = counting_record(seconds=0.35)
  for rng in (None, np.random.default_rng(0)):
    example = decode(record, tokenizer, rng=rng, crop="random")
    assert example["duration"] == np.float32(0.35)
    assert example["frame_mask"].tolist() == [True] * 7 + [False] * 13
    length = round(0.35 * RATE)
    assert (
      example["audio"][:length].all() and not example["audio"][length:].any()
    )
    assert not example["frames"][7:].any()
    assert not example["frame_times"][7:].any()


def test_a_gain_scales_the_sound_and_stays_in_range(tokenizer):
  """A ramp from 0.1 to 1: its quiet end tells the gain, its loud end clips."""
  ramp = np.linspace(0.1, 1.0, RATE)[:, None].astype(np.float32)
  audio = media.encode_flac(ramp, RATE)
  record = schema.make_record(id="ramp", audio=audio, duration=1.0)
  plain = decode(record, tokenizer)["audio"]
  gains = []
  for seed in range(40):
    rng = np.random.default_rng(seed)
    audio = decode(record, tokenizer, rng=rng, gain_db=6.0)["audio"]
    gain = float(audio[0, 0] / plain[0, 0])
    np.testing.assert_allclose(audio, np.clip(plain * gain, -1, 1), atol=1e-5)
    gains.append(20 * np.log10(gain))
  assert -6.001 <= min(gains) < -4 and 4 < max(gains) <= 6.001


def test_sound_is_resampled_and_mixed_to_the_window(tokenizer):
  """A tone keeps its frequency and level at another rate."""
  rate, tone = 16_000, 440.0
  angle = 2 * np.pi * tone * np.arange(rate) / rate
  stereo = np.stack([0.5 * np.sin(angle), 0.5 * np.sin(angle)], 1)
  record = schema.make_record(
    id="tone",
    audio=media.encode_flac(stereo.astype(np.float32), rate),
    duration=1.0,
  )
  audio = decode(record, tokenizer)["audio"]
  assert audio.shape == (RATE, 1)
  middle = slice(RATE // 4, 3 * RATE // 4)
  expected = 0.5 * np.sin(2 * np.pi * tone * np.arange(RATE) / RATE)
  np.testing.assert_allclose(audio[middle, 0], expected[middle], atol=0.01)
  two = dataclasses.replace(WINDOW, channels=2)
  assert decode(record, tokenizer, two)["audio"].shape == (RATE, 2)


@pytest.mark.parametrize("seed", range(5))
def test_frames_of_a_window_are_those_that_begin_in_it(seed):
  """Against a loop over the frames, at any frame rate and start."""
  rng = np.random.default_rng(seed)
  times = np.sort([*rng.uniform(0, 3, 39), 1.0])
  frames = rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
  content = Media(0.0, frames, times, np.zeros((0, 1), np.float32))
  for start in (0.0, 1.0, float(rng.uniform(0, 3)), 2.9, 5.0):
    placed = cut_frames(content, WINDOW, start)
    expected = [i for i, t in enumerate(times) if start <= t < start + 1]
    expected = expected[: WINDOW.num_frames]
    mask = placed["frame_mask"]
    assert mask.tolist() == [i < len(expected) for i in range(20)]
    np.testing.assert_array_equal(placed["frames"][mask], frames[expected])
    np.testing.assert_allclose(
      placed["frame_times"][mask], times[expected] - start, atol=1e-6
    )
    assert placed["frames"].shape == (20, 8, 8, 3)
    assert placed["frame_times"].dtype == np.float32


def test_words_are_those_that_begin_in_the_window(tokenizer):
  names = ["one", "two", "three", "four", "five"]
  onsets = [0.3, 0.9, 1.1, 2.0, 2.6]
  words = [{"word": w, "start": t} for w, t in zip(names, onsets)]
  record = counting_record() | {"words": words, "transcript": " ".join(names)}
  seen = set()
  for seed in range(30):
    rng = np.random.default_rng(seed)
    example = decode(record, tokenizer, rng=rng, crop="random")
    start = (float(example["audio"][0, 0]) + 1) * 2**15 / RATE
    mask = example["transcript_mask"]
    expected = [w for w, t in zip(names, onsets) if start <= t < start + 1]
    assert tokenizer.decode(example["transcript"][mask]).replace(
      " ", ""
    ) == "".join(expected)
    times = [t - start for t in onsets if start <= t < start + 1]
    # The pieces of a word follow its onset, before the next word's.
    found = example["transcript_times"][mask]
    assert (np.diff(found) > 0).all()
    for time in times:
      assert np.abs(found - time).min() < 1e-5
    assert bool(example["transcript_timed"])
    seen.update(expected)
  assert seen == set(names)


def test_the_preferred_caption_is_the_prompt(tokenizer):
  record = counting_record() | {"caption": "a dog", "audio_caption": "barks"}
  prompt = lambda text: tokenizer.encode(text, 6)[0].tolist()
  assert decode(record, tokenizer)["prompt"].tolist() == prompt("barks")
  empty = record | {"audio_caption": ""}
  assert decode(empty, tokenizer)["prompt"].tolist() == prompt("a dog")
  draws = [
    decode(
      record | {"video": b""},
      tokenizer,
      rng=np.random.default_rng(seed),
      random_caption=True,
    )["prompt"].tolist()
    for seed in range(40)
  ]
  share = draws.count(prompt("barks")) / 40
  assert 0.2 < share < 0.8 and draws.count(prompt("a dog")) == 40 * (1 - share)


def test_all_captions_come_up_in_training_and_the_first_elsewhere(tokenizer):
  texts = ["a dog", "it barks", "far away"]
  record = counting_record() | {"video": b"", "caption": texts[0]}
  record["other_captions"] = texts[1:]
  ids = {
    text: tuple(decode(record | {"caption": text}, tokenizer)["prompt"])
    for text in texts
  }
  draws = [
    tuple(
      decode(
        record,
        tokenizer,
        rng=np.random.default_rng(seed),
        random_caption=True,
      )["prompt"]
    )
    for seed in range(60)
  ]
  assert all(draws.count(ids[text]) > 6 for text in texts)
  assert tuple(decode(record, tokenizer)["prompt"]) == ids["a dog"]


def test_an_empty_example_has_the_shapes_of_a_full_one(tokenizer):
  window = dataclasses.replace(WINDOW, features=3)
  times = np.arange(60) / 20
  features = features_lib.pack(Features(times, np.ones((60, 3), np.float32)))
  record = counting_record() | {"features": features}
  full = decode(record, tokenizer, window, index=4)
  blank = blank_example(window, index=4)
  assert full.keys() == blank.keys()
  for key in full:
    assert np.shape(full[key]) == np.shape(blank[key]), key
    assert np.asarray(full[key]).dtype == np.asarray(blank[key]).dtype, key
    if key not in ("example", "presence"):
      assert not np.any(blank[key]), key
  assert blank["presence"].tolist() == [2, 2, 2]  # unknown
  assert full["example"] == blank["example"] == 4


def test_cached_features_stand_for_frames(tokenizer):
  """They are cut like frames, and frames then need not be decoded."""
  window = dataclasses.replace(WINDOW, features=1, frames=False)
  values = np.arange(60, dtype=np.float32)[:, None]
  cached = Features(np.arange(60) / 20, values)
  record = counting_record() | {"features": features_lib.pack(cached)}
  frames = frames_of(record)
  for seed in range(4):
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    both = [
      decode(record, tokenizer, w, rng=rng, crop="random")
      for w, rng in zip((WINDOW, window), rngs)
    ]
    assert "frames" not in both[1]
    np.testing.assert_array_equal(both[0]["audio"], both[1]["audio"])
    mask = both[0]["frame_mask"]
    np.testing.assert_array_equal(mask, both[1]["frame_mask"])
    seen = both[1]["features"][mask, 0].astype(int)
    np.testing.assert_array_equal(both[0]["frames"][mask], frames[seen])


def test_features_of_other_frames_are_refused(tokenizer):
  window = dataclasses.replace(WINDOW, features=1)
  slower = Features(np.arange(30) / 10, np.zeros((30, 1), np.float32))
  record = counting_record() | {"features": features_lib.pack(slower)}
  with pytest.raises(DataError, match="of other frames.*data precompute"):
    decode(record, tokenizer, window)
  first = Features(np.arange(20) / 20, np.zeros((20, 1), np.float32), False)
  record |= {"features": features_lib.pack(first)}
  assert decode(record, tokenizer, window)["features"].shape == (20, 1)
  with pytest.raises(SettingError, match="set data.crop='start'"):
    decode(
      record, tokenizer, window, rng=np.random.default_rng(0), crop="random"
    )


def test_only_the_window_of_a_long_record_is_decoded():
  long, short = clip_record(0, seconds=6.0), clip_record(0, seconds=2.0)
  window = dataclasses.replace(WINDOW, fps=10)
  part = decode_media(long, window, 3.0)
  assert part.start == 3.0 and len(part.audio) == pytest.approx(RATE, abs=2)
  assert part.times.min() >= 3.0 and part.times.max() < 4.0
  whole = decode_media(short, window, 1.0)
  assert whole.start == 0.0 and len(whole.audio) == 2 * RATE


def test_a_cache_gives_back_what_was_decoded_and_travels_empty():
  record = clip_record(0)
  cache = MediaCache(1)
  first = decode_media(record, WINDOW, cache=cache, index=3)
  assert decode_media(record, WINDOW, cache=cache, index=3) is first
  assert cache.get(4) is None
  copy = pickle.loads(pickle.dumps(cache))
  assert copy.get(3) is None
  copy.put(3, first, {})
  assert copy.get(3) is first
  # A worker's cache has the size of the one it was copied from.
  sizes = first.nbytes / 2**20
  exact = pickle.loads(pickle.dumps(MediaCache(2.5 * sizes)))
  for index in range(4):
    exact.put(index, first, {})
  assert [exact.get(i) is first for i in range(4)] == [True, True, False, False]
