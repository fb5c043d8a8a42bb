from fractions import Fraction
import json
import shutil
import subprocess

import av
from av.video.frame import PictureType
from media_synthetic import click, numbered, numbers, write_clip
import numpy as np
import pytest

from v2a_jax import media

_B_FRAMES = {"bf": "2", "b_strategy": "0"}


def decoded_length(path) -> tuple[int, int]:
  """Returns (number of samples, Hz) from PyAV alone, without `media`."""
  with av.open(str(path)) as container:
    frames = list(container.decode(audio=0))
    return sum(f.samples for f in frames), frames[0].sample_rate


def check_mux(source, out):
  """Checks that the video is the source's and the audio has its duration."""
  assert media.video_packets(out) == media.video_packets(source)
  assert media.video_packets_digest(out) == media.video_packets_digest(source)
  seconds = media.video_duration(source)
  length, rate = decoded_length(out)
  assert abs(length - seconds * rate) <= 1
  with av.open(str(out)) as container:
    video, audio = container.streams.video[0], container.streams.audio[0]
    assert len(container.streams) == 2
    if video.duration:  # Matroska stores no durations of streams
      expected = video.duration * video.time_base
      assert abs(audio.duration * audio.time_base - expected) * rate <= 1


@pytest.mark.parametrize("codec", ["aac", "flac"])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("frames", [7, 29, 64])
def test_audio_is_as_long_as_the_video(tmp_path, codec, rate, frames):
  source = media.encode_video(
    numbered(frames),
    fps=29.97,
    audio=np.zeros(500),
    sample_rate=8000,
    path=tmp_path / "in.mp4",
  )
  audio = click(rate // 2, 1234, channels=2)
  out = media.mux(
    source,
    audio,
    sample_rate=rate,
    out=tmp_path / "out.mp4",
    audio_codec=codec,
  )
  assert out == tmp_path / "out.mp4"
  check_mux(source, out)
  samples = media.read_audio(out, sample_rate=rate).samples
  assert abs(int(np.abs(samples[:, 0]).argmax()) - 1234) <= 1
  assert media.probe(out).audio_codec == codec


def test_variable_rate_and_b_frames_keep_their_times(tmp_path):
  rng = np.random.default_rng(0)
  ticks = np.cumsum(rng.integers(1000, 9000, 60)) + 12_345
  source = write_clip(
    tmp_path / "in.mp4", numbered(60), ticks=ticks, options=_B_FRAMES
  )
  out = media.mux(
    source, np.zeros(9), sample_rate=16_000, out=tmp_path / "out.mp4"
  )
  check_mux(source, out)
  video = media.read_video(out)
  assert numbers(video.frames) == list(range(60))
  np.testing.assert_allclose(
    video.times, (ticks - ticks[0]) / 90_000, atol=1e-9
  )


@pytest.mark.parametrize("degrees", [90, 180])
def test_rotation_and_aspect_are_kept(tmp_path, degrees):
  source = write_clip(
    tmp_path / "in.mp4",
    numbered(5),
    ticks=[i * 3600 for i in range(5)],
    display=(degrees, True),
    aspect=Fraction(4, 3),
  )
  out = media.mux(
    source, np.zeros(9), sample_rate=16_000, out=tmp_path / "out.mp4"
  )
  check_mux(source, out)
  before, after = media.read_video(source), media.read_video(out)
  np.testing.assert_array_equal(before.frames, after.frames)


@pytest.mark.parametrize(
  ("codec", "wanted", "suffix", "audio_codec"),
  [
    ("libvpx", ".mp4", ".webm", "opus"),
    ("libvpx-vp9", ".webm", ".webm", "opus"),
    ("libx264", ".mkv", ".mkv", "flac"),
    ("libx264", ".mov", ".mov", "aac"),
    ("libx264", ".avi", ".mp4", "aac"),
    ("ffv1", ".mp4", ".mkv", "flac"),
    ("mjpeg", ".mp4", ".mov", "aac"),
  ],
)
def test_a_container_that_supports_the_codec_is_chosen(
  tmp_path, codec, wanted, suffix, audio_codec
):
  source = write_clip(
    tmp_path / "in.mkv",
    numbered(25),
    ticks=[i * 40 for i in range(25)],
    time_base=Fraction(1, 1000),
    codec=codec,
    pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
  )
  if wanted == ".mkv":
    wanted = ".MKV"
  out = media.mux(
    source, click(16_000, 800), sample_rate=16_000, out=tmp_path / f"o{wanted}"
  )
  assert out.suffix.lower() == suffix
  assert media.probe(out).audio_codec == audio_codec
  video = media.read_video(out)
  assert numbers(video.frames) == list(range(25))
  np.testing.assert_allclose(video.times, np.arange(25) / 25, atol=1e-3)
  length, rate = decoded_length(out)
  assert abs(length - rate) <= 1
  samples = media.read_audio(out, sample_rate=16_000).samples
  assert abs(int(np.abs(samples).argmax()) - 800) <= 16  # ms time stamps


def test_avi_without_presentation_times_is_put_in_presentation_order(tmp_path):
  source = write_clip(
    tmp_path / "in.avi",
    numbered(30),
    ticks=range(30),
    time_base=Fraction(1, 25),
    options=_B_FRAMES,
  )
  with av.open(source) as container:  # B-frames: the two orders differ
    kinds = {PictureType(f.pict_type) for f in container.decode(video=0)}
  assert PictureType.B in kinds
  assert numbers(media.read_video(source).frames) == list(range(30))
  out = media.mux(
    source, np.zeros(9), sample_rate=16_000, out=tmp_path / "out.mp4"
  )
  video = media.read_video(out)
  assert numbers(video.frames) == list(range(30))
  np.testing.assert_allclose(video.times, np.arange(30) / 25, atol=1e-9)


def test_bytes_are_accepted_and_the_source_is_never_overwritten(tmp_path):
  source = media.encode_video(numbered(9), fps=9, path=tmp_path / "in.mp4")
  before = source.read_bytes()
  settings = {"sample_rate": 16_000, "out": source}
  with pytest.raises(media.MediaError, match="is the source itself"):
    media.mux(source, np.zeros(9), **settings)
  assert source.read_bytes() == before
  out = media.mux(
    before, np.zeros(9), **(settings | {"out": tmp_path / "o.mp4"})
  )
  check_mux(source, out)


def test_inputs_that_cannot_be_muxed_are_refused_and_leave_no_file(tmp_path):
  audio_only = media.encode_flac(np.zeros(99), 8000)
  out = tmp_path / "out.mp4"
  with pytest.raises(media.MediaError, match="has no video"):
    media.mux(audio_only, np.zeros(9), sample_rate=8000, out=out)
  silent = media.encode_video(numbered(5), fps=10)
  with pytest.raises(media.MediaError, match="out.mp4.*not finite"):
    media.mux(silent, np.full(9, np.inf), sample_rate=8000, out=out)
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="needs ffprobe")
def test_ffprobe_reads_equal_durations_of_video_and_audio(tmp_path):
  source = media.encode_video(numbered(50), fps=23.976)
  out = media.mux(
    source, np.zeros(9), sample_rate=44_100, out=tmp_path / "out.mp4"
  )
  command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", out]
  report = subprocess.run(command, capture_output=True, check=True)
  assert not report.stderr
  video, audio = json.loads(report.stdout)["streams"]
  difference = Fraction(audio["duration"]) - Fraction(video["duration"])
  assert abs(difference) * 44_100 <= 1.1  # ffprobe rounds to microseconds
