import io
import subprocess
import sys

import av
from media_synthetic import click, numbered, numbers
import numpy as np
import pytest
import soundfile

from v2a_jax import media
from v2a_jax.media.codecs import codecs

_RNG = np.random.default_rng(0)


def _noise(length: int, channels: int = 1) -> np.ndarray:
  return _RNG.uniform(-0.4, 0.4, (length, channels)).astype(np.float32)


def test_video_and_audio_are_read_back():
  frames, audio = numbered(40), click(64_000, 30_000, channels=2)
  data = media.encode_video(frames, fps=20, audio=audio, sample_rate=32_000)
  video = media.read_video(data)
  assert numbers(video.frames) == list(range(40))
  assert np.abs(video.frames.astype(int) - frames).mean() < 4
  np.testing.assert_allclose(video.times, np.arange(40) / 20, atol=1e-9)
  samples = media.read_audio(data, sample_rate=32_000).samples
  assert samples.shape == audio.shape
  assert np.abs(samples).argmax() // 2 == 30_000


def test_key_frames_are_gop_seconds_apart():
  data = media.encode_video(
    np.zeros((100, 32, 32, 3), np.uint8), fps=25, gop_seconds=0.4
  )
  with av.open(io.BytesIO(data)) as container:
    keys = [p.pts for p in container.demux(video=0) if p.is_keyframe]
  assert len(keys) == 10


@pytest.mark.parametrize("bits", [16, 24])
def test_flac_is_lossless(bits):
  audio = np.round(_noise(5000, 2) * 2**15) / 2**15
  data = media.encode_flac(audio, 22_050, bits=bits)
  samples, rate = media.decode_flac(data)
  assert rate == 22_050 and samples.dtype == np.float32
  np.testing.assert_array_equal(samples, audio)
  part, _ = media.decode_flac(data, start=100, frames=50)
  np.testing.assert_array_equal(part, audio[100:150])
  assert len(media.decode_flac(data, start=4990, frames=50)[0]) == 10
  assert len(media.decode_flac(data, start=9999)[0]) == 0


def test_loud_samples_are_clipped_not_wrapped():
  samples, _ = media.decode_flac(media.encode_flac(np.array([2.0, -2.0]), 8000))
  assert samples[0, 0] > 0.999 and samples[1, 0] == -1.0


def test_damaged_flac_is_refused():
  with pytest.raises(media.MediaError, match="not readable FLAC"):
    media.decode_flac(b"fLaC" + bytes(50))


def test_wav_has_the_requested_bit_depth(tmp_path):
  audio = _noise(1000, 2)
  for bits, subtype in ((16, "PCM_16"), (24, "PCM_24"), (32, "FLOAT")):
    path = media.write_wav(tmp_path / f"{bits}.wav", audio, 48_000, bits=bits)
    assert soundfile.info(path).subtype == subtype
    samples, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(samples, audio, atol=2.0 ** -(bits - 1))


@pytest.mark.parametrize("suffix", [".m4a", ".opus", ".flac", ".wav", ".mp3"])
def test_encoded_audio_keeps_its_length_and_times(tmp_path, suffix):
  rate, length = 44_100, 44_100 + 137
  path = media.encode_audio(tmp_path / f"a{suffix}", click(length, 9000), rate)
  samples = media.read_audio(path, sample_rate=rate).samples
  if suffix != ".mp3":  # MP3 does not store its length
    assert abs(len(samples) - length) <= 1
    assert abs(int(np.abs(samples).argmax()) - 9000) <= 1


@pytest.mark.parametrize("suffix", [".m4a", ".opus", ".mp3"])
def test_bit_rate_sets_the_size_of_encoded_audio(tmp_path, suffix):
  seconds, rate = 4, 48_000
  path = tmp_path / f"a{suffix}"
  for bit_rate in (32_000, 96_000):
    media.encode_audio(path, _noise(seconds * rate), rate, bit_rate=bit_rate)
    measured = 8 * path.stat().st_size / seconds
    assert measured == pytest.approx(bit_rate, rel=0.3)


def test_codecs_that_the_writer_uses_are_reported_as_available():
  available = codecs()
  assert {"h264", "aac", "flac"} <= set(available["encode"])
  assert {"h264", "aac", "flac"} <= set(available["decode"])


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ({"frames": numbered(3)[:, :31]}, "even height and width"),
    ({"frames": numbered(3).astype(np.float32)}, "uint8"),
    ({"frames": numbered(0)}, "at least one frame"),
    ({"times": np.array([0.0, 0.2, 0.1])}, "increasing"),
    ({"times": np.array([0.0, 0.2])}, "one time per frame"),
    ({"fps": None}, "needs `times` or `fps`"),
    ({"audio": np.full(99, np.nan), "sample_rate": 8000}, "not finite"),
    ({"audio": np.zeros((9, 3)), "sample_rate": 8000}, r"shape \(9, 3\)"),
    ({"audio": np.zeros(99), "sample_rate": 10_000}, "no sample rate of 10000"),
  ],
)
def test_arrays_that_cannot_be_encoded_are_refused(arguments, reason):
  arguments = {"frames": numbered(3), "fps": 10} | arguments
  if "times" in arguments:
    arguments["fps"] = None
  with pytest.raises(media.MediaError, match=reason):
    media.encode_video(**arguments)


def test_a_missing_folder_and_an_unknown_suffix_are_errors(tmp_path):
  with pytest.raises(media.MediaError, match="folder does not exist"):
    media.write_wav(tmp_path / "no" / "a.wav", _noise(10), 8000)
  with pytest.raises(media.MediaError, match="unknown suffix '.xyz'"):
    media.encode_audio(tmp_path / "a.xyz", _noise(10), 8000)


@pytest.mark.parametrize(
  "call",
  [
    "media.write_wav('new.wav', noise, 16000)",
    "media.encode_audio('new.m4a', noise, 16000)",
    "media.encode_video(frames, fps=9, crf=0, path='new.mp4')",
    "media.mux('clip.mp4', noise, sample_rate=16000, out='new.mp4')",
  ],
)
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, call):
  media.encode_video(numbered(9), fps=9, path=tmp_path / "clip.mp4")
  code = (
    "import resource\n"
    "import numpy as np\n"
    "from v2a_jax import media\n"
    "rng = np.random.default_rng(0)\n"
    "noise = rng.uniform(-.9, .9, 99999).astype('f4')\n"
    "frames = rng.integers(0, 255, (9, 64, 64, 3)).astype(np.uint8)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
    "try:\n"
    f"  {call}\n"
    "except media.MediaError as e:\n"
    "  print(e)\n"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
  )
  assert "cannot be written" in out.stdout and "new." in out.stdout, out
  assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
