"""The watermark is found with its key after processing, and only then."""

import json
import pathlib

import numpy as np
import pytest
from scipy import signal
import soundfile as sf

from v2a_jax import media, watermark
from v2a_jax.watermark import pattern

RATE = 16_000
KEY = "the key of these tests"
REAL = pathlib.Path(__file__).parents[2] / "../shared/clips"


def noise(seconds=4.0, *, rate=RATE, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((int(seconds * rate), channels)) * 0.1
  return np.clip(x, -1, 1).astype(np.float32)


def strikes(seconds=4.0, *, rate=RATE):
  """Returns three strikes [t, 1] in digital silence, and their times."""
  times = np.array([0.7, 1.9, 3.1])
  t = np.arange(int(seconds * rate)) / rate
  x = np.zeros_like(t)
  for start in times:
    after = np.clip(t - start, 0, None)
    for hz, level in ((523, 0.3), (1387, 0.2), (2891, 0.1)):
      x += level * np.sin(2 * np.pi * hz * after) * np.exp(-18 * after)
  return x[:, None].astype(np.float32), times


SOUNDS = {
  "noise": noise,
  "strikes": lambda: strikes()[0],
  "silence": lambda: np.zeros((4 * RATE, 1), np.float32),
  "tone": lambda: (
    0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
  ).astype(np.float32)[:, None],
}


@pytest.fixture(scope="module")
def marked():
  return {
    name: watermark.embed(sound(), RATE, key=KEY, payload=0xBEEF)
    for name, sound in SOUNDS.items()
  }


@pytest.mark.parametrize("name", SOUNDS)
def test_the_watermark_is_found_and_its_payload_read(marked, name):
  detection = watermark.detect(marked[name], RATE, key=KEY)
  assert detection.found and detection.payload == 0xBEEF
  assert detection.false_positive_probability < 1e-12
  assert detection.seconds_examined == 4.0


@pytest.mark.parametrize("name", ["strikes", "silence"])
def test_another_key_finds_nothing(marked, name):
  detection = watermark.detect(marked[name][: 2 * RATE], RATE, key="another")
  assert not detection.found and detection.payload is None


def test_nothing_is_found_in_audio_without_a_watermark():
  assert not watermark.detect(strikes()[0][: 2 * RATE], RATE, key=KEY).found


@pytest.mark.parametrize("suffix", [".m4a", ".mp3"])
@pytest.mark.parametrize("name", SOUNDS)
def test_the_payload_survives_lossy_coding_and_a_crop(
  marked, name, suffix, tmp_path
):
  path = tmp_path / f"x{suffix}"
  media.encode_audio(path, marked[name], RATE, bit_rate=64_000)
  audio = media.read_audio(path, sample_rate=RATE)
  detection = watermark.detect(audio.samples[16_777:48_777], RATE, key=KEY)
  assert detection.found and detection.payload == 0xBEEF


def test_the_payload_is_read_from_the_soundtrack_of_a_video(marked, tmp_path):
  frames = np.zeros((8, 32, 32, 3), np.uint8)
  path = tmp_path / "x.mp4"
  media.encode_video(
    frames, fps=2.0, path=path, audio=marked["strikes"], sample_rate=RATE
  )
  audio = media.read_audio(path, sample_rate=48_000)
  assert watermark.detect(audio.samples, 48_000, key=KEY).payload == 0xBEEF


CHANGES = {
  "48 kHz and back": lambda x: signal.resample_poly(
    signal.resample_poly(x, 3, 1), 1, 3
  ),
  "level": lambda x: 0.05 * x,
  "8 bits": lambda x: np.round(x * 128) / 128,
  "noise at 20 dB": lambda x: (
    x + np.random.default_rng(1).normal(0, 0.1 * x.std(), x.shape)
  ),
  "treble": lambda x: signal.lfilter([1, -0.6], [1], x, axis=0),
  "4 kHz low pass": lambda x: signal.sosfilt(
    signal.butter(6, 4000, fs=RATE, output="sos"), x, axis=0
  ),
  "3 % faster": lambda x: signal.resample(x, int(len(x) / 1.03)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_payload_survives_processing(marked, change):
  changed = CHANGES[change](marked["noise"].astype(np.float64))
  detection = watermark.detect(changed.astype(np.float32), RATE, key=KEY)
  assert detection.found and detection.payload == 0xBEEF
  assert detection.speed == pytest.approx(
    1.03 if "faster" in change else 1.0, abs=2e-3
  )


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_stereo_at_other_sample_rates_is_marked_and_found(rate):
  x = noise(2.5, rate=rate, channels=2)
  y = watermark.embed(x, rate, key=KEY)
  assert y.shape == x.shape and y.dtype == np.float32
  assert watermark.detect(y, rate, key=KEY).found


def test_frequencies_above_8_khz_are_unchanged():
  x = noise(2.0, rate=48_000)
  change = watermark.embed(x, 48_000, key=KEY) - x
  power = np.abs(np.fft.rfft(change[:, 0] * np.hanning(len(x)))) ** 2
  hz = np.fft.rfftfreq(len(x), 1 / 48_000)
  assert power[hz > 8000].sum() < 1e-5 * power.sum()


def test_the_change_is_25_db_below_the_audio_and_60_dbfs_in_silence():
  x = noise()
  change = watermark.embed(x, RATE, key=KEY) - x
  assert 10 * np.log10((x**2).sum() / (change**2).sum()) > 25
  silence = watermark.embed(np.zeros_like(x), RATE, key=KEY)
  assert -70 < 10 * np.log10((silence**2).mean()) < -60


def test_onsets_are_not_shifted_and_no_echo_precedes_them():
  x, times = strikes()
  y = watermark.embed(x, RATE, key=KEY)
  for time in times:
    i = int(time * RATE)
    part = slice(i - 800, i + 1600)
    lag = signal.correlate(y[part, 0], x[part, 0]).argmax() - (2400 - 1)
    assert lag == 0
    # From 50 to 10 ms before the strike there is only the noise floor.
    before = y[i - 800 : i - 160, 0]
    assert 20 * np.log10(before.std()) < -58


def test_embedding_is_repeatable_and_depends_on_key_and_payload():
  x = noise(2.0)
  first = watermark.embed(x, RATE, key=KEY)
  np.testing.assert_array_equal(first, watermark.embed(x, RATE, key=KEY))
  assert np.any(first != watermark.embed(x, RATE, key="other"))
  assert np.any(first != watermark.embed(x, RATE, key=KEY, payload=1))


def test_samples_stay_in_range():
  x = np.sign(noise(2.0))
  assert np.abs(watermark.embed(x, RATE, key=KEY)).max() <= 1.0


@pytest.mark.parametrize("n", [0, 1, 100, 1920, 5000])
def test_short_audio_is_accepted(n):
  y = watermark.embed(noise(1.0)[:n], RATE, key=KEY)
  assert y.shape == (n, 1)
  detection = watermark.detect(y, RATE, key=KEY)
  assert not detection.found or n > 1920
  assert 0 < detection.false_positive_probability <= 1


def test_a_marked_part_of_a_long_file_is_found(marked):
  whole = np.concatenate([noise(13.3, seed=5), marked["noise"], noise(9.0)])
  detection = watermark.detect(whole, RATE, key=KEY)
  assert detection.payload == 0xBEEF and detection.seconds_examined > 26


def spans(detection):
  """Returns the starts and ends of its places, in seconds, [places, 2]."""
  return np.array([(place.start, place.end) for place in detection.places])


def coded(samples, folder):
  path = media.encode_audio(folder / "x.m4a", samples, RATE, bit_rate=128_000)
  return media.read_audio(path, sample_rate=RATE).samples


def test_where_the_mark_is_in_a_file_is_said(marked, tmp_path):
  x = np.concatenate([noise(5.0, seed=5), marked["strikes"], noise(3.0)])
  detection = watermark.detect(coded(x, tmp_path), RATE, key=KEY)
  np.testing.assert_allclose(spans(detection), [(5, 9)], atol=0.25)
  (place,) = detection.places
  assert place.payload == 0xBEEF and place.score > 10
  whole = watermark.detect(marked["tone"], RATE, key=KEY)
  np.testing.assert_allclose(spans(whole), [(0, 4)], atol=0.13)
  assert watermark.detect(noise(2.0), RATE, key=KEY).places == ()


@pytest.mark.parametrize("between", ["silence", "noise", "nothing"])
def test_each_of_two_marked_files_is_found_in_a_cut(marked, between, tmp_path):
  gap = {"silence": 0 * noise(1.5), "noise": noise(1.5), "nothing": noise(0)}
  other = watermark.embed(noise(4.0, seed=6), RATE, key=KEY, payload=77)
  first, second = marked["noise"][: 3 * RATE], other[RATE // 2 :]
  cut = np.concatenate([first, gap[between], second])
  detection = watermark.detect(coded(cut, tmp_path), RATE, key=KEY)
  begin = 3 + len(gap[between]) / RATE
  expected = [(0, 3), (begin, begin + 3.5)]
  np.testing.assert_allclose(spans(detection), expected, atol=0.25)
  assert [place.payload for place in detection.places] == [0xBEEF, 77]


def test_where_the_mark_is_is_said_in_seconds_of_faster_sound(marked):
  x = np.concatenate([noise(3.0, seed=5), marked["noise"]])
  faster = signal.resample(x, int(len(x) / 1.04)).astype(np.float32)
  detection = watermark.detect(faster, RATE, key=KEY)
  assert detection.speed == pytest.approx(1.04, abs=2e-3)
  np.testing.assert_allclose(
    spans(detection), [(3 / 1.04, 7 / 1.04)], atol=0.25
  )


def test_no_place_is_named_in_sound_without_the_mark(monkeypatch):
  """At a false positive rate of a half, in at most half of the cases."""
  from v2a_jax.watermark import detector, search

  monkeypatch.setattr(search, "FALSE_POSITIVE_RATE", 0.5)
  x = strikes()[0] + watermark.embed(noise(), RATE, key="unrelated")
  named = [
    any(detector._marked_windows([x[:, 0]], f"{i}".encode(), search.Best()))
    for i in range(40)
  ]
  assert np.count_nonzero(named) <= 20


def test_a_marked_channel_is_found_beside_a_louder_one(marked):
  loud = np.clip(20 * noise(seed=3), -1, 1)
  stereo = np.concatenate([marked["noise"], loud], axis=1)
  mean = stereo.mean(axis=1, keepdims=True)
  assert not watermark.detect(mean, RATE, key=KEY).found
  assert watermark.detect(stereo, RATE, key=KEY).payload == 0xBEEF


def test_the_key_comes_from_argument_environment_or_the_project(monkeypatch):
  x = noise(2.0)
  monkeypatch.delenv("V2A_WATERMARK_KEY", raising=False)
  assert pattern.resolve_key() == watermark.PUBLIC_KEY
  public = watermark.embed(x, RATE)
  monkeypatch.setenv("V2A_WATERMARK_KEY", "private")
  assert not watermark.detect(public, RATE).found
  assert watermark.detect(watermark.embed(x, RATE), RATE, key="private").found
  assert watermark.detect(public, RATE, key=watermark.PUBLIC_KEY).found


def test_invalid_arguments_are_refused():
  with pytest.raises(ValueError, match="shape"):
    watermark.embed(np.zeros(100, np.float32), RATE)
  with pytest.raises(ValueError, match="type int16"):
    watermark.detect(np.zeros((100, 1), np.int16), RATE)
  with pytest.raises(ValueError, match="sample_rate=0 "):
    watermark.embed(noise(0.1), 0)
  with pytest.raises(ValueError, match="NaN"):
    watermark.detect(np.full((RATE, 1), np.nan, np.float32), RATE)
  with pytest.raises(ValueError, match="65535"):
    watermark.embed(noise(0.1), RATE, payload=1 << 16)
  with pytest.raises(ValueError, match="empty"):
    watermark.embed(noise(0.1), RATE, key=b"")


def test_scores_of_other_keys_stay_under_the_bound():
  """P(z >= t) <= exp(-t^2 / 2) over random keys, for structured audio."""
  from v2a_jax.watermark import search

  x = strikes()[0] + watermark.embed(noise(), RATE, key="unrelated")
  power = search.power_of(x[:, 0])
  scores = [
    search.align(power, f"key {i}".encode(), 1.0, 1).score for i in range(20)
  ]
  tried = 960 * 3
  assert max(scores) < np.sqrt(2 * np.log(20 * tried * 100))


def test_sound_that_is_stretched_at_the_same_pitch_is_found(marked):
  """Grains of 100 ms, laid a twentieth further apart, move no frequency."""
  x, grain = marked["noise"][:, 0], RATE // 10
  near, far = round(grain / 2.1), grain // 2
  out = np.zeros(2 * len(x), np.float32)
  count = (len(x) - grain) // near
  for i in range(count):
    piece = x[i * near :][:grain]
    out[i * far :][:grain] += np.hanning(grain) * piece
  out = out[: count * far, None]
  found = watermark.detect(out, RATE, key=KEY)
  assert found.found and found.stretched
  assert found.speed == pytest.approx(1 / 1.05, abs=0.01)


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/clips")
def test_the_payload_survives_aac_on_real_clips(tmp_path):
  onsets = json.loads((REAL / "onsets.json").read_text())
  for name in sorted(onsets)[:2]:
    audio = media.read_audio(REAL / name, sample_rate=RATE, channels=1)
    y = watermark.embed(audio.samples, RATE, key=KEY, payload=7)
    path = media.encode_audio(tmp_path / "x.m4a", y, RATE, bit_rate=64_000)
    decoded = media.read_audio(path, sample_rate=RATE).samples
    assert watermark.detect(decoded, RATE, key=KEY).payload == 7, name


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/clips")
def test_marked_speech_sounds_as_before():
  """PESQ, wide band: 4.64 if nothing is heard, 4 if hardly anything is."""
  pesq = pytest.importorskip("pesq")
  for file in sorted((REAL / "audio" / "ljspeech").glob("*.ogg"))[:2]:
    x = media.read_audio(file, sample_rate=RATE, channels=1).samples[: 4 * RATE]
    marked = watermark.embed(x, RATE, key=KEY, payload=0xBEEF)
    assert pesq.pesq(RATE, x[:, 0], marked[:, 0], "wb") > 4.0


def test_the_payload_survives_ogg_vorbis_at_another_sample_rate(tmp_path):
  y = watermark.embed(noise(3.0), RATE, key=KEY, payload=300)
  sf.write(tmp_path / "x.ogg", signal.resample_poly(y, 441, 160), 44_100)
  decoded, rate = sf.read(tmp_path / "x.ogg", always_2d=True, dtype="float32")
  assert watermark.detect(decoded, rate, key=KEY).payload == 300
