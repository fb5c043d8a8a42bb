"""Speech against published formants, its own timing and a word recogniser."""

import librosa
import numpy as np
import pytest

from data_pipelines.scenes import speech

RATE = 16000
MAN = speech.Voice(110.0, 1.0, 1.0)
CHILD = speech.Voice(220.0, 1.18, 0.8)

# Mean formants of 33 men, Hz: Peterson and Barney 1952, table II.
PETERSON_BARNEY = {
  "iy": (270, 2290, 3010),
  "ih": (390, 1990, 2550),
  "eh": (530, 1840, 2480),
  "ae": (660, 1720, 2410),
  "aa": (730, 1090, 2440),
  "ao": (570, 840, 2410),
  "uh": (440, 1020, 2240),
  "uw": (300, 870, 2240),
  "ah": (640, 1190, 2390),
  "er": (490, 1350, 1690),
}


def _rng(seed=0):
  return np.random.default_rng(seed)


def _schedule(words, voice=MAN, seed=0, seconds=4.0):
  return speech.schedule(_rng(seed), words, voice, seconds=seconds)


def _speak(utterance, voice=MAN, seed=0, seconds=4.0, rate=RATE):
  return speech.speak(
    _rng(seed), utterance, voice, samples=round(seconds * rate), rate=rate
  )


def _say(*phones, voice=MAN, seconds=0.4):
  """Returns the sound of the middle of the last of some long phones."""
  timed = tuple(
    (name, 0.1 + k * seconds, 0.1 + (k + 1) * seconds)
    for k, name in enumerate(phones)
  )
  utterance = speech.Utterance((("word", 0.1, timed[-1][2]),), timed)
  sound = _speak(utterance, voice, seconds=timed[-1][2] + 0.1)
  _, start, end = timed[-1]
  quarter = 0.25 * (end - start)
  return sound[round((start + quarter) * RATE) : round((end - quarter) * RATE)]


def _resonances(sound, number=4):
  """Returns frequencies and bandwidths in Hz of one pulse, by Prony's method.

  A sum of K damped sines obeys a linear recurrence of order 2 K, whose roots
  are exp((-pi B + 2 pi i F) / rate).
  """
  silent = np.convolve(np.abs(sound) < 1e-9, np.ones(20), "valid") == 20
  start = np.flatnonzero(np.diff(silent.astype(int)) == -1)[0] + 20
  pulse = sound[start : start + 150]
  order = 2 * number
  past = np.stack([pulse[k : len(pulse) - order + k] for k in range(order)], 1)
  recurrence = np.linalg.lstsq(past, pulse[order:], rcond=None)[0]
  roots = np.roots(np.append(1.0, -recurrence[::-1]))
  roots = roots[roots.imag > 0]
  roots = roots[np.argsort(np.angle(roots))]
  return (
    np.angle(roots) * RATE / (2 * np.pi),
    -np.log(np.abs(roots)) * RATE / np.pi,
  )


def _harmonicity(sound, voice=MAN):
  """Returns the highest autocorrelation near a pitch period, in -1..1."""
  lags = np.correlate(sound, sound, "full")[len(sound) - 1 :]
  period = RATE / voice.pitch
  near = lags[int(period / 1.3) : int(period * 1.3)]
  return near.max() / lags[0]


def _centroid(sound):
  power = np.abs(np.fft.rfft(sound)) ** 2
  return np.average(np.fft.rfftfreq(len(sound), 1 / RATE), weights=power)


# ---- the tables


def test_the_vowels_have_the_published_formants():
  for vowel, formants in PETERSON_BARNEY.items():
    assert speech.PHONES[vowel].formants == formants


def test_phones_are_within_their_ranges():
  for phone in speech.PHONES.values():
    assert phone.formants == tuple(sorted(phone.formants))
    assert 0.04 <= phone.seconds <= 0.2
    for value in (phone.voice, phone.jaw, phone.lips):
      assert 0 <= value <= 1
    assert phone.voice > 0 or phone.noise is not None  # something is heard
    assert not phone.burst or phone.noise is not None


def test_the_mouth_is_closed_for_bilabials_and_opens_for_open_vowels():
  for name in ("m", "p", "b"):
    assert speech.PHONES[name].jaw == 0
  assert max(speech.PHONES, key=lambda p: speech.PHONES[p].jaw) == "aa"
  assert speech.PHONES["uw"].lips == speech.PHONES["w"].lips == 1
  assert speech.PHONES["iy"].lips == 0


def test_every_word_has_known_phones_and_a_vowel():
  vowels = set(PETERSON_BARNEY)
  for phones in speech.VOCABULARY.values():
    assert set(phones) <= set(speech.PHONES)
    assert vowels & set(phones)


def test_sentences_have_two_to_six_words_of_the_vocabulary():
  rng = _rng(3)
  sentences = [speech.sentence(rng) for _ in range(600)]
  assert {len(words) for words in sentences} == {2, 3, 4, 5, 6}
  drawn = {word for words in sentences for word in words}
  assert drawn == set(speech.VOCABULARY)


def test_a_sentence_keeps_the_order_of_english():
  """No pair of words comes in both orders, but for words of both ends."""
  rng, pairs = _rng(4), set()
  for _ in range(600):
    words = speech.sentence(rng)
    pairs |= {(a, b) for k, a in enumerate(words) for b in words[k + 1 :]}
  both_ends = {"now", "please"}
  for pair in pairs & {(b, a) for a, b in pairs}:
    assert both_ends & set(pair)


@pytest.mark.parametrize("field", ["pitch", "scale", "pace"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_voice_is_refused(field, value):
  with pytest.raises(ValueError, match=f"{field}="):
    speech.Voice(**{"pitch": 100.0, "scale": 1.0, "pace": 1.0, field: value})


# ---- time


def test_words_are_ordered_and_lie_inside_the_clip():
  rng = _rng(5)
  for seed in range(100):
    words = speech.sentence(rng)
    utterance = _schedule(words, seed=seed)
    assert [word for word, _, _ in utterance.words] == (
      words[: len(utterance.words)]
    )
    times = np.array([[start, end] for _, start, end in utterance.words])
    assert times.min() >= 0.15 and times.max() <= 4.0 - 0.08
    assert (np.diff(times.ravel()) > 0).all()


def test_a_word_is_its_phones_one_after_the_other():
  utterance = _schedule(["seven", "green", "houses"])
  phones = list(utterance.phones)
  for word, start, end in utterance.words:
    names = speech.VOCABULARY[word]
    spoken, phones = phones[: len(names)], phones[len(names) :]
    assert tuple(name for name, _, _ in spoken) == names
    assert spoken[0][1] == start and spoken[-1][2] == end
    for (_, _, stop), (_, begin, _) in zip(spoken, spoken[1:]):
      assert stop == begin
  assert not phones


@pytest.mark.parametrize("pace", [0.6, 1.0, 1.5])
def test_phones_last_as_long_as_usual_times_the_pace(pace):
  voice = speech.Voice(120.0, 1.0, pace)
  ratios = [
    (end - start) / speech.PHONES[name].seconds / pace
    for seed in range(10)
    for name, start, end in _schedule(
      ["look", "small", "boats"], voice, seed, seconds=9.0
    ).phones
  ]
  assert 0.85 <= min(ratios) < max(ratios) <= 1.2
  assert abs(np.mean(ratios) - 1.025) < 0.04


def test_words_without_room_are_left_out():
  words = ["hello", "take", "seven", "small", "flowers", "morning"]
  whole = _schedule(words, seconds=9.0)
  assert len(whole.words) == 6
  short = _schedule(words, seconds=2.0)
  assert 1 <= len(short.words) < 6
  assert short.words[-1][2] <= 2.0 - 0.08


# ---- sound


@pytest.mark.parametrize("vowel", sorted(PETERSON_BARNEY))
@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_a_spoken_vowel_has_its_formants(vowel, scale):
  # So low a voice that one pulse dies away before the next.
  voice = speech.Voice(50.0, scale, 1.0)
  frequencies, bandwidths = _resonances(_say(vowel, voice=voice))
  expected = scale * np.array([*PETERSON_BARNEY[vowel], 3500])
  np.testing.assert_allclose(frequencies, expected, rtol=2e-3)
  np.testing.assert_allclose(bandwidths, [70, 100, 150, 250], rtol=0.05)


@pytest.mark.parametrize("pitch", [100.0, 160.0, 230.0])
def test_a_voice_has_its_pitch(pitch):
  sound = _say("aa", voice=speech.Voice(pitch, 1.0, 1.0))
  measured = librosa.yin(sound, fmin=70, fmax=400, sr=RATE)
  # Up to 14 % higher in the middle of a word.
  assert 0.97 < np.median(measured) / pitch < 1.16


def test_vowels_are_voiced_and_fricatives_are_not():
  for name in ("aa", "iy", "m", "r", "v"):
    assert _harmonicity(_say("aa", name)) > 0.4
  for name in ("s", "sh", "f", "th"):
    assert _harmonicity(_say("aa", name)) < 0.2


def test_fricatives_have_the_frequencies_of_their_noise():
  centres = {name: _centroid(_say("aa", name)) for name in ("s", "sh", "hh")}
  assert centres["s"] > 4500 > 2600 < centres["sh"] < centres["s"]
  assert centres["hh"] < centres["sh"]


def test_a_stop_bursts_after_a_closure():
  """The p of a word's middle: quiet, then a burst at its end."""
  phones = (("aa", 0.2, 0.6), ("t", 0.6, 0.75), ("aa", 0.75, 1.1))
  utterance = speech.Utterance((("ata", 0.2, 1.1),), phones)
  sound = _speak(utterance)
  span = lambda a, b: np.abs(sound[round(a * RATE) : round(b * RATE)]).max()
  closure, burst = span(0.67, 0.71), span(0.72, 0.735)
  assert burst > 5 * closure
  assert span(0.3, 0.5) > 3 * closure


def test_a_stop_that_opens_a_word_bursts_at_once():
  phones = (("t", 0.6, 0.75), ("aa", 0.75, 1.1))
  sound = np.abs(_speak(speech.Utterance((("ta", 0.6, 1.1),), phones)))
  assert sound[: round(0.595 * RATE)].max() < 0.01
  assert sound[round(0.6 * RATE) : round(0.62 * RATE)].max() > 0.1


def test_the_sound_lies_within_its_words():
  for seed in range(6):
    utterance = _schedule(speech.sentence(_rng(seed)), seed=seed)
    sound = np.abs(_speak(utterance, seed=seed))
    np.testing.assert_allclose(sound.max(), 1.0)
    times = np.arange(len(sound)) / RATE
    inside = np.zeros(len(sound), bool)
    for _, start, end in utterance.words:
      word = (times > start) & (times < end)
      assert sound[word].max() > 0.15
      inside |= (times > start - 0.03) & (times < end + 0.05)
    assert sound[~inside].max() < 0.05


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_speech_is_the_same_at_other_sample_rates(rate):
  """The voiced part, below 2 kHz; noise differs."""
  utterance = _schedule(["moon", "morning"])
  spectra = []
  for r in (16000, rate):
    sound = _speak(utterance, rate=r)
    level = np.abs(np.fft.rfft(sound, 4 * r))[:8000] / r
    spectra.append(level.reshape(80, 100).max(axis=1))
  ratio = 20 * np.log10(spectra[1] / spectra[0])
  loud = spectra[0] > 0.03 * spectra[0].max()
  assert np.abs(ratio[loud] - np.median(ratio[loud])).max() < 4


def test_every_word_can_be_told_from_the_others_across_speakers():
  """A nearest-neighbour recogniser learns one speaker and hears another."""
  words = list(speech.VOCABULARY)[::3]

  def features(word, voice, seed):
    rng = _rng(seed)
    utterance = speech.schedule(rng, [word], voice, seconds=3.0)
    sound = speech.speak(rng, utterance, voice, samples=3 * RATE, rate=RATE)
    _, start, end = utterance.words[0]
    sound = sound[int(start * RATE) : int(end * RATE)]
    sound = sound + 1e-4 * rng.standard_normal(len(sound))
    return librosa.feature.mfcc(
      y=sound, sr=RATE, n_mfcc=13, n_mels=40, n_fft=400, hop_length=160
    )[1:]

  low, high = speech.Voice(110, 1.0, 0.9), speech.Voice(190, 1.1, 0.8)
  examples = [features(word, low, 1) for word in words]
  right = 0
  for word in words:
    new = features(word, high, 2)
    cost = [
      librosa.sequence.dtw(new, old)[0][-1, -1] / (new.shape[1] + old.shape[1])
      for old in examples
    ]
    right += words[int(np.argmin(cost))] == word
  assert right >= 0.8 * len(words)


# ---- the mouth


def test_the_mouth_takes_the_shape_of_each_phone_at_its_middle():
  utterance = _schedule(["my", "move", "boats"])
  middles = np.array([(s + e) / 2 for _, s, e in utterance.phones])
  jaw, lips = speech.mouth(utterance, middles)
  phones = [speech.PHONES[name] for name, _, _ in utterance.phones]
  np.testing.assert_allclose(jaw, [phone.jaw for phone in phones])
  np.testing.assert_allclose(lips, [phone.lips for phone in phones])


def test_the_mouth_is_closed_before_and_after_speech():
  utterance = _schedule(["go", "see"])
  first, last = utterance.words[0][1], utterance.words[-1][2]
  times = np.array([0.0, first - 0.02, last + 0.05, 4.0])
  jaw, _ = speech.mouth(utterance, times)
  np.testing.assert_allclose(jaw, 0, atol=1e-9)


def test_the_mouth_moves_smoothly():
  times = np.arange(0, 4, 0.001)
  for seed in range(5):
    utterance = _schedule(speech.sentence(_rng(seed)), seed=seed)
    for track in speech.mouth(utterance, times):
      assert 0 <= track.min() and track.max() <= 1
      assert np.abs(np.diff(track)).max() < 0.08


def test_the_mouth_is_open_where_the_voice_is_loud():
  values = []
  for seed in range(12):
    utterance = _schedule(speech.sentence(_rng(seed)), seed=seed)
    sound = _speak(utterance, seed=seed)
    level = np.sqrt(np.mean(sound.reshape(-1, 640) ** 2, axis=1))
    jaw, _ = speech.mouth(utterance, (np.arange(100) + 0.5) * 0.04)
    values.append(np.corrcoef(level, jaw)[0, 1])
  assert np.mean(values) > 0.5
