"""What is measured of clips, and which are copies of which."""

import io

import numpy as np
import pytest
from scipy import signal
import soundfile
import soxr

from data_pipelines.columns import admit, copies, picture, prints, sound, store
from data_pipelines.columns.measure import (
  MeasureOptions,
  measure,
  measure_record,
)
from launch import cli
from tests.data_pipelines.samples import clip_record, sound_record, write
from v2a_jax import media

RATE = 16_000
RNG = np.random.default_rng(0)


def noise(seconds=2.0, level=0.1, seed=0):
  """Noise whose level changes, as that of most sounds does."""
  rng = np.random.default_rng(seed)
  t = np.arange(round(seconds * RATE)) / RATE
  swell = 0.3 + 0.7 * np.sin(2 * np.pi * (0.7 + seed % 3) * t) ** 2
  coloured = signal.lfilter([1.0], [1.0, -0.7], rng.normal(size=len(t)))
  return (level * swell * coloured)[:, None].astype(np.float32)


def test_silence_is_the_share_of_silent_time():
  wave = noise()
  wave[RATE:] = 1e-5
  assert sound.silence(wave, RATE) == pytest.approx(0.5, abs=0.03)
  assert sound.silence(0 * wave, RATE) == 1.0
  assert sound.silence(np.zeros((0, 1)), RATE) == 1.0
  assert sound.measure(0 * wave, RATE)["peak"] == -120


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_clipping_is_found_after_coding_and_at_any_level(gain):
  wave = noise(4.0)
  top = np.quantile(np.abs(wave), 0.98)
  cut = gain * np.clip(wave / top, -1, 1)
  coded = media.read_audio(
    media.encode_video(
      np.zeros((40, 16, 16, 3), np.uint8), fps=10, audio=cut, sample_rate=RATE
    ),
    sample_rate=RATE,
  ).samples
  assert sound.clipping(cut) > 0.01 and sound.clipping(coded) > 0.001
  assert sound.clipping(gain * wave) < 0.0005
  tone = np.sin(np.arange(RATE) * 0.3)[:, None]
  assert sound.clipping(gain * tone) == 0
  assert sound.clipping(gain * np.sign(tone)) > 0.5


def test_a_low_sample_rate_leaves_a_cutoff_and_a_slope_does_not():
  wave = noise(4.0)
  low = soxr.resample(soxr.resample(wave, RATE, 6000), 6000, RATE)
  assert 2500 < sound.cutoff(low, RATE) < 3100
  assert sound.cutoff(wave, RATE) is None
  slope = signal.lfilter([1.0], [1.0, -1.6, 0.64], wave[:, 0])[:, None]
  assert sound.cutoff(slope, RATE) is None
  assert sound.cutoff(wave[:100], RATE) is None


def moving(count=24, seed=0):
  """Grey frames in which a textured square moves over a textured ground."""
  rng = np.random.default_rng(seed)
  ground = np.repeat(np.repeat(rng.uniform(40, 200, (8, 8)), 8, 0), 8, 1)
  frames = np.repeat(ground[None], count, 0)
  for i in range(count):
    frames[i, 20:32, 2 * i % 50 : 2 * i % 50 + 12] = 250
  return frames.astype(np.float32)


def test_stillness_motion_and_cuts():
  frames = moving()
  found = picture.measure(frames)
  assert found["still"] == 0 and found["shots"] == 1 and found["motion"] > 1
  grain = RNG.normal(0, 1.5, frames.shape)  # What a codec does.
  still = picture.measure(np.repeat(frames[:1], 24, 0) + grain)
  assert still["still"] == 1 and still["shots"] == 1
  two = np.concatenate([frames[:12], moving(12, seed=1)])
  assert picture.measure(two)["shots"] == 2
  assert picture.measure(frames[:1])["still"] == 1


def test_fingerprints_survive_coding_and_tell_sounds_apart():
  wave = noise(4.0)
  mine = prints.of_sound(wave, RATE)
  late = prints.of_sound(0.4 * wave[RATE // 2 :], RATE)
  assert copies.alike(mine, late, copies.SOUND)
  assert not copies.alike(
    mine, prints.of_sound(noise(4.0, seed=5), RATE), copies.SOUND
  )
  assert not prints.of_sound(0 * wave, RATE).any()
  assert len(prints.of_sound(wave[:99], RATE)) == 0
  assert (prints.from_text(prints.to_text(mine)) == mine).all()
  times = np.arange(24) / picture.FPS
  seen = prints.of_picture(moving(), times).ravel()
  coarse = prints.of_picture(moving() + RNG.normal(0, 4, (24, 64, 64)), times)
  assert copies.alike(seen, coarse.ravel(), copies.PICTURE)
  other = prints.of_picture(moving(seed=3), times).ravel()
  assert not copies.alike(seen, other, copies.PICTURE)
  assert not prints.of_picture(np.full((24, 64, 64), 9.0), times).any()


def test_copies_are_of_the_first_also_in_several_passes(monkeypatch):
  sounds = [prints.of_sound(noise(3.0, seed=i), RATE) for i in range(6)]
  sounds += [
    sounds[4],
    sounds[1],
    prints.of_sound(0.5 * noise(3.0, seed=1), RATE),
  ]
  expected = {6: 4, 7: 1, 8: 1}
  assert copies.find(sounds.__getitem__, 9, copies.SOUND) == expected
  monkeypatch.setattr(copies, "_TOKENS", 100)
  assert copies.find(sounds.__getitem__, 9, copies.SOUND) == expected
  assert copies.find(lambda _: np.zeros(0, np.uint32), 3, copies.SOUND) == {}


def film(seed, **fields):
  """A record of 3 s with a picture and a sound of its own."""
  frames = moving(30, seed=seed).astype(np.uint8)
  frames = np.repeat(frames[..., None], 3, -1)
  values = dict(
    id=f"film{seed}",
    sha256=str(seed),
    video=media.encode_video(frames, fps=10),
    audio=media.encode_flac(noise(3.0, seed=seed), RATE),
    duration=3.0,
  )
  return clip_record(0, **(values | fields))


@pytest.mark.parametrize("channels,rate", [(8, RATE), (1, 100)])
def test_sound_that_cannot_be_measured_is_named(channels, rate):
  file = io.BytesIO()
  waveform = RNG.normal(0, 0.1, (rate, channels))
  soundfile.write(file, waveform, rate, format="FLAC")
  record = sound_record(0, audio=file.getvalue(), duration=1.0)
  assert measure_record(record).values["error"]


def test_a_data_set_is_measured_and_its_copies_are_found(tmp_path, capsys):
  rows = [film(i) for i in range(3)]
  quiet = media.encode_flac(0.5 * noise(3.0, seed=0), RATE)
  rows += [
    film(0, id="copy", sha256="c", audio=quiet),
    film(1, id="voiced", sha256="v", video=rows[2]["video"]),
    film(2, id="held", sha256="h", split="test"),
    sound_record(
      0,
      id="mute",
      sha256="m",
      audio=media.encode_flac(np.zeros((RATE, 1), np.float32), RATE),
      duration=1.0,
    ),
    film(5, id="silent", sha256="s", audio=b""),
    sound_record(1, id="broken", sha256="b", audio=b"garbage"),
  ]
  dataset = write(tmp_path / "ds", rows)
  others = write(tmp_path / "eval", [film(1, id="exam"), film(7)])
  assert cli.main(["data", "measure", dataset, "--against", others]) == 0
  said = capsys.readouterr().out
  assert "9 of 9 clips measured, 1 cannot be decoded" in said
  found = {
    r["id"]: r for r in store.open_columns(dataset, "copies").table.to_pylist()
  }
  assert found["copy"]["duplicate_of"] == "film0" and not found["copy"]["leak"]
  # Held out clips come first: the training clip is the copy.
  assert found["film2"]["duplicate_of"] == "held" and found["film2"]["leak"]
  assert not found["held"]["duplicate"]
  # Of another data set, and a sound with another picture.
  assert found["film1"]["leak_of"] == "eval: exam"
  assert found["voiced"]["sound_of"] == "eval: exam"
  assert found["voiced"]["frames_of"] == "held"
  clean = [
    id for id, row in found.items() if not (row["duplicate"] or row["leak"])
  ]
  assert sorted(clean) == ["broken", "film0", "held", "mute", "silent"]
  rows = {
    r["id"]: r
    for r in store.open_columns(dataset, "measures").table.to_pylist()
  }
  assert rows["mute"]["silence"] == 1.0 and rows["mute"]["still"] is None
  assert rows["silent"]["loudness"] is None and rows["silent"]["still"] == 0.0
  assert "error" in rows["broken"]
  for text, count in (
    ("silence < 0.98 and not duplicate", 2),
    ("(missing(silence) or silence < 0.98) and not duplicate", 4),
    ("not leak and missing(sound_of)", 5),
  ):
    assert int(admit.admitted(dataset, text).mask.sum()) == count, text
  # Only what is new, or failed, is measured again.
  lines = []
  measure(dataset, options=MeasureOptions(workers=1), log=lines.append)
  assert lines[0] == "1 of 9 clips measured, 1 cannot be decoded"
