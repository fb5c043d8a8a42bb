"""What is kept of a sound is delivered as it was, and only the rest is new."""

from fractions import Fraction

import numpy as np
import pytest

from v2a_jax import media, watermark
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks
from v2a_jax.soundtrack.tracker import Soundtracker

SECONDS, RATE = 3, 48_000
LOSSLESS = dict(container="mov", audio_codec="pcm")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  """A picture that flashes once a second."""
  frames = np.zeros((12 * SECONDS, 32, 32, 3), np.uint8)
  frames[6::12] = 255
  path = tmp_path_factory.mktemp("videos") / "clip.mp4"
  media.encode_video(frames, fps=12.0, path=path)
  return path


def draft(path, *, seconds=SECONDS, rate=RATE, channels=2, peak=0.3):
  """Writes a hiss of all frequencies, other on the left than on the right."""
  rng = np.random.default_rng(0)
  sound = rng.uniform(-peak, peak, (round(seconds * rate), channels))
  media.write_wav(path, sound.astype(np.float32), rate, bits=24)
  return path


def read(path, **how):
  info = media.probe(path)
  sound = media.read_audio(path, sample_rate=info.sample_rate, **how)
  return sound.samples, info.sample_rate


def made(video, audio, *, seconds=SECONDS, **request):
  """Soundtracks of a model of 16 kHz mono: a steady tone of 440 Hz."""
  time = np.arange(seconds * 16_000) / 16_000
  tone = 0.2 * np.sin(2 * np.pi * 440 * time)
  take = Soundtrack(
    samples=tone[:, None].astype(np.float32),
    sample_rate=16_000,
    seed=0,
    score=0.0,
  )
  return Soundtracks(
    video=video,
    request=Request(audio=str(audio), num_candidates=1, **request),
    candidates=(take,),
    model={},
    seconds=Fraction(seconds),
  )


def test_outside_a_selection_are_the_samples_of_the_file(video, tmp_path):
  """48 kHz stereo through the bundled model, which makes 16 kHz mono."""
  given, _ = read(draft(tmp_path / "draft.wav"))
  takes = Soundtracker.load()(
    video,
    audio=str(tmp_path / "draft.wav"),
    regenerate=((0.5, 2.5),),
    num_candidates=1,
    sampler={"num_steps": 1},
  )
  done = takes.save(tmp_path / "out", payload=7, **LOSSLESS)
  for path in (*done.waves, *done.videos):
    heard, rate = read(path)
    assert rate == RATE and heard.shape == given.shape
    new = np.zeros(len(given), bool)
    new[RATE // 2 : 5 * RATE // 2] = True
    np.testing.assert_array_equal(heard[~new], given[~new])
    assert (heard[new] != given[new]).mean() > 0.98
    mark = watermark.detect(heard, RATE)
    assert mark.found and mark.payload == 7
  (row,) = done.rows
  assert row["watermark"]["found"]
  assert (row["new"], row["sample_rate"]) == ([[0.5, 2.5]], RATE)


def test_the_rate_is_that_of_the_file_unless_another_is_asked_for(
  video, tmp_path
):
  file = draft(tmp_path / "draft.wav", rate=44_100, channels=1)
  given, _ = read(file)
  takes = made(video, file, regenerate=((0.5, 1.0),))
  heard, rate = read(takes.save(tmp_path / "0", mark=False).waves[0])
  assert rate == 44_100 and heard.shape == given.shape
  np.testing.assert_array_equal(heard[44_100:], given[44_100:])
  other = takes.save(tmp_path / "1", mark=False, sample_rate=32_000).waves[0]
  assert media.probe(other).sample_rate == 32_000


def test_loud_sound_is_not_turned_down_where_it_is_kept(video, tmp_path):
  """The true peak is asked of what is new."""
  file = draft(tmp_path / "draft.wav", peak=0.999)
  given, _ = read(file)
  takes = made(video, file, regenerate=((1.0, 2.0),))
  done = takes.save(tmp_path / "out", true_peak=-20.0, mark=False, **LOSSLESS)
  for path in (*done.waves, *done.videos):
    heard, _ = read(path)
    np.testing.assert_array_equal(heard[:RATE], given[:RATE])
    np.testing.assert_array_equal(heard[2 * RATE :], given[2 * RATE :])
    inside = heard[round(1.05 * RATE) : round(1.95 * RATE)]
    assert 0.08 < np.abs(inside).max() <= 0.1


def test_a_marked_draft_is_not_marked_again(video, tmp_path):
  sound, _ = read(draft(tmp_path / "plain.wav"))
  marked = watermark.embed(sound, RATE, payload=5)
  file = tmp_path / "draft.wav"
  media.write_wav(file, marked, RATE, bits=24)
  given, _ = read(file)
  takes = made(video, file, regenerate=((1.0, 1.5),))
  done = takes.save(tmp_path / "out", payload=9)
  heard, _ = read(done.waves[0])
  new = slice(RATE, round(1.5 * RATE))
  np.testing.assert_array_equal(
    np.delete(heard, new, 0), np.delete(given, new, 0)
  )
  # As one mark, because both begin at the first sample.
  both = watermark.detect(heard, RATE)
  before = watermark.detect(given, RATE)
  assert both.found and both.score > 0.8 * before.score


@pytest.mark.parametrize("channels", [1, 2])
def test_a_sound_goes_on_without_a_click(video, tmp_path, channels):
  """A tone of 440 Hz that the model goes on with."""
  end = 3 * RATE // 2 + 50  # in the middle of a wave
  time = np.arange(end) / RATE
  tone = 0.2 * np.sin(2 * np.pi * 440 * time)[:, None]
  file = tmp_path / "draft.wav"
  media.write_wav(file, np.repeat(tone, channels, 1), RATE, bits=24)
  done = made(video, file).save(tmp_path / "out", mark=False)
  heard, _ = read(done.waves[0])
  assert heard.shape == (SECONDS * RATE, channels)
  np.testing.assert_array_equal(heard[:end], read(file)[0])
  steps = np.abs(np.diff(heard[:, 0]))
  assert steps[end - RATE // 50 : end + RATE // 50].max() < 0.03
  assert np.abs(heard[end + RATE // 10 :]).max() > 0.19


def test_a_level_that_is_asked_for_is_that_of_all(video, tmp_path):
  file = draft(tmp_path / "draft.wav", peak=0.05)
  takes = made(video, file, regenerate=((0.5, 2.5),))
  (row,) = takes.save(tmp_path / "out", loudness=-23.0).rows
  assert row["loudness_lufs"] == pytest.approx(-23.0, abs=0.1)
  assert row["watermark"]["found"]
