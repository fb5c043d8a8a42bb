from fractions import Fraction

import av
from media_synthetic import (
  click,
  numbered,
  numbers,
  with_damaged_packet,
  write_clip,
)
import numpy as np
import pytest
import soundfile

from v2a_jax import media


def test_variable_rate_frames_have_their_own_times(tmp_path):
  times = np.array([0.0, 0.04, 0.1, 0.11, 0.5, 0.9, 0.95, 2.0])
  path = media.encode_video(numbered(8), times, path=tmp_path / "vfr.mp4")
  video = media.read_video(path)
  assert numbers(video.frames) == list(range(8))
  np.testing.assert_allclose(video.times, times, atol=1e-5)


@pytest.mark.parametrize("max_fps", [3, 8, 12.5, 29.97, 60])
def test_max_fps_keeps_the_first_frame_at_or_after_each_grid_instant(max_fps):
  rng = np.random.default_rng(1)
  ticks = np.concatenate([[0], np.cumsum(rng.integers(900, 12_000, 59))])
  times = ticks / 90_000
  data = media.encode_video(numbered(60), times)
  video = media.read_video(data, max_fps=max_fps)
  expected = []
  for k in range(int(times[-1] * max_fps) + 1):
    index = int(np.argmax(times >= k / max_fps - 1e-9))
    if index not in expected:
      expected.append(index)
  assert numbers(video.frames) == expected
  np.testing.assert_allclose(video.times, times[expected], atol=1e-5)


def test_rounded_time_stamps_lose_no_frame_at_the_native_rate(tmp_path):
  # Matroska stores 0.033 for 1/30, which is before its instant of the grid.
  path = write_clip(
    tmp_path / "a.mkv", numbered(60), ticks=[i * 3000 for i in range(60)]
  )
  assert len(media.read_video(path, max_fps=30).frames) == 60


def test_consecutive_windows_hold_every_frame_once_with_and_without_seeks(
  tmp_path,
):
  count = 200
  path = media.encode_video(numbered(count), fps=10, path=tmp_path / "a.mp4")
  indices, start = [], 0.0
  while start < count / 10:
    video = media.read_video(path, start=start, duration=2.5)
    np.testing.assert_allclose(
      video.times + start, np.array(numbers(video.frames)) / 10, atol=1e-4
    )
    indices += numbers(video.frames)
    start += 2.5
  assert indices == list(range(count))


def test_window_without_frames_is_empty_not_an_error():
  data = media.encode_video(numbered(3), np.array([0.0, 1.0, 9.0]))
  video = media.read_video(data, start=2.0, duration=1.0, size=(4, 6))
  assert video.frames.shape == (0, 4, 6, 3)
  assert video.times.shape == (0,)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_rotated_and_mirrored_by_the_display_matrix(
  tmp_path, degrees, mirrored
):
  picture = np.zeros((32, 64, 3), np.uint8)
  picture[:16, :32] = (255, 0, 0)
  picture[:16, 32:] = (0, 255, 0)
  picture[16:, :32] = (0, 0, 255)
  path = write_clip(
    tmp_path / "turned.mp4",
    np.stack([picture] * 3),
    ticks=[0, 3600, 7200],
    display=(degrees, mirrored),
  )
  expected = np.rot90(picture, degrees // 90)  # both counter-clockwise
  if mirrored:
    expected = expected[:, ::-1]
  frames = media.read_video(path).frames
  assert frames[0].shape == expected.shape
  assert np.abs(frames[0].astype(int) - expected).mean() < 12
  info = media.probe(path)
  assert (info.height, info.width) == expected.shape[:2]
  if not mirrored:
    assert info.rotation == -degrees % 360
  small = media.read_video(path, size=(16, 24)).frames
  assert small.shape == (3, 16, 24, 3)


def test_pixels_are_square_unless_a_size_is_given(tmp_path):
  path = write_clip(
    tmp_path / "wide.mp4",
    numbered(3),
    ticks=[0, 3600, 7200],
    aspect=Fraction(2, 1),
  )
  assert media.read_video(path).frames.shape == (3, 32, 128, 3)
  assert media.probe(path).width == 128
  video = media.read_video(path, size=(20, 40))
  assert video.frames.shape == (3, 20, 40, 3)
  assert numbers(video.frames) == [0, 1, 2]


def test_resizing_averages_areas():
  checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
  frames = np.repeat(checks[None, :, :, None], 3, axis=-1).astype(np.uint8)
  data = media.encode_video(frames, fps=5, crf=1)
  small = media.read_video(data, size=(16, 16)).frames
  assert abs(small.mean() - 127.5) < 4 and small.std() < 6


@pytest.mark.parametrize(
  ("codec", "pix_fmt", "height", "width"),
  [
    ("libx264", "yuv420p10le", 32, 64),
    ("libx265", "yuv420p10le", 64, 64),
    ("ffv1", "yuv444p", 31, 65),
    ("libvpx-vp9", "yuv420p", 33, 65),
    ("mjpeg", "yuvj420p", 32, 64),
  ],
)
def test_other_codecs_depths_and_odd_sizes(
  tmp_path, codec, pix_fmt, height, width
):
  frames = np.zeros((5, height, width, 3), np.uint8)
  frames[:, :, :64] = numbered(5, height, 64)
  path = write_clip(
    tmp_path / "odd.mkv",
    frames,
    ticks=[i * 9000 for i in range(5)],
    codec=codec,
    pix_fmt=pix_fmt,
  )
  video = media.read_video(path)
  assert video.frames.shape == (5, height, width, 3)
  assert numbers(video.frames) == [0, 1, 2, 3, 4]
  np.testing.assert_allclose(video.times, np.arange(5) / 10, atol=1e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
  ("video_start", "audio_start"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.4)]
)
def test_audio_is_on_the_clock_of_the_video(
  tmp_path, suffix, video_start, audio_start
):
  rate, at = 48_000, 40_000
  path = write_clip(
    tmp_path / f"offset.{suffix}",
    numbered(50),
    ticks=[round(video_start * 90_000) + i * 3600 for i in range(50)],
    audio=click(2 * rate, at),
    audio_start=audio_start,
    rate=rate,
  )
  expected = at / rate + audio_start - video_start  # s after the first frame
  for wanted in (48_000, 16_000, 44_100):
    audio = media.read_audio(path, sample_rate=wanted)
    peak = int(np.abs(audio.samples[:, 0]).argmax())
    tolerance = 1 if suffix == "mp4" else 1 + wanted / 1000  # ms time stamps
    assert abs(peak - expected * wanted) <= tolerance
  assert media.probe(path).video_start == pytest.approx(video_start, abs=2e-3)


def test_encoder_delay_is_removed():
  rate = 44_100
  audio = click(rate, 12_345)
  data = media.encode_video(numbered(25), fps=25, audio=audio, sample_rate=rate)
  samples = media.read_audio(data, sample_rate=rate).samples
  assert samples.shape == audio.shape
  assert abs(int(np.abs(samples).argmax()) - 12_345) <= 1


def test_padding_of_the_last_block_is_removed(tmp_path):
  # Other muxers pad AAC at the end and store its length in the packet.
  path = write_clip(
    tmp_path / "tail.mp4",
    numbered(25),
    ticks=[i * 3600 for i in range(25)],
    audio=click(30_000, 100),
    audio_codec="aac",
  )
  assert len(media.read_audio(path, sample_rate=48_000).samples) == 30_000


def test_audio_windows_are_slices_of_the_whole(tmp_path):
  rng = np.random.default_rng(0)
  rate = 16_000
  noise = rng.uniform(-0.5, 0.5, (60 * rate, 1)).astype(np.float32)
  path = media.encode_video(
    numbered(60),
    fps=1,
    audio=noise,
    sample_rate=rate,
    audio_codec="flac",
    path=tmp_path / "long.mp4",
  )
  whole = media.read_audio(path, sample_rate=rate).samples
  np.testing.assert_allclose(whole, noise, atol=1e-3)
  resampled = media.read_audio(path, sample_rate=11_025).samples
  for start in (0.0, 0.5, 7.25, 33.3):
    part = media.read_audio(path, sample_rate=rate, start=start, duration=2)
    first = round(start * rate)
    np.testing.assert_array_equal(part.samples, whole[first : first + 2 * rate])
    part = media.read_audio(path, sample_rate=11_025, start=start, duration=2)
    first = start * 11_025
    if first.is_integer():
      expected = resampled[int(first) : int(first) + 22_050]
      np.testing.assert_allclose(part.samples, expected, atol=2e-3)
  end = media.read_audio(path, sample_rate=rate, start=59, duration=5)
  assert len(end.samples) == rate


def test_channels_are_averaged_or_repeated(tmp_path):
  left, right = click(8000, 100), click(8000, 200) / 2
  stereo = media.write_wav(tmp_path / "s.wav", np.hstack([left, right]), 8000)
  mono = media.read_audio(stereo, sample_rate=8000, channels=1).samples
  np.testing.assert_allclose(mono, (left + right) / 2, atol=1e-4)
  assert media.read_audio(stereo, sample_rate=8000).samples.shape[1] == 2
  single = media.write_wav(tmp_path / "m.wav", left, 8000)
  double = media.read_audio(single, sample_rate=8000, channels=2).samples
  np.testing.assert_array_equal(double[:, 0], double[:, 1])


@pytest.mark.parametrize(("layout", "count"), [("5.1", 6), ("7.1", 8)])
@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_surround_audio_is_mixed_down(tmp_path, layout, count, codec):
  path = tmp_path / "surround.mkv"
  clicks = np.stack([click(8000, 500 + 900 * i)[:, 0] for i in range(count)], 1)
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=48_000, layout=layout)
    packed = clicks.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = 48_000
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  for channels, width in ((None, count), (1, 1), (2, 2)):
    audio = media.read_audio(path, sample_rate=48_000, channels=channels)
    assert audio.samples.shape[1] == width and not audio.damaged
  mono = media.read_audio(path, sample_rate=48_000, channels=1).samples[:, 0]
  loudest = np.argsort(-np.abs(mono))[:count]
  # The LFE channel is low-passed, so its click may be lost.
  assert len(set(loudest // 900)) >= count - 1


def test_audio_with_nan_is_refused(tmp_path):
  samples = np.zeros(8000, np.float32)
  samples[5] = np.nan
  path = tmp_path / "nan.wav"
  soundfile.write(path, samples, 8000, subtype="FLOAT")
  with pytest.raises(media.MediaError, match="nan.wav.*not finite"):
    media.read_audio(path, sample_rate=8000)


def test_probe_returns_the_metadata_of_a_file(tmp_path):
  path = media.encode_video(
    numbered(50),
    fps=20,
    audio=click(8000, 0, channels=2),
    sample_rate=16_000,
    path=tmp_path / "a.mp4",
  )
  info = media.probe(path)
  assert info == media.probe(path.read_bytes())
  assert (info.video_codec, info.audio_codec) == ("h264", "aac")
  assert (info.height, info.width, info.rotation) == (32, 64, 0)
  assert (info.sample_rate, info.channels) == (16_000, 2)
  assert info.fps == pytest.approx(20) and info.duration == pytest.approx(2.5)
  assert media.video_duration(path) == Fraction(5, 2)
  flac = media.probe(media.encode_flac(click(8000, 0), 16_000))
  assert not flac.has_video and flac.duration == pytest.approx(0.5)


def test_a_missing_stream_is_an_error():
  silent = media.encode_video(numbered(5), fps=10)
  with pytest.raises(media.MediaError, match="has no audio"):
    media.read_audio(silent, sample_rate=8000)
  with pytest.raises(media.MediaError, match="has no video"):
    media.read_video(media.encode_flac(click(800, 0), 8000))


@pytest.mark.parametrize(
  ("rate", "channels", "refused"),
  [
    (1, 1, "cannot be sound by its sample rate: 1 Hz is not in"),
    (3_999, 1, "3,999 Hz is not in"),
    (1_000_000, 1, "1,000,000 Hz is not in"),
    (8_000, 65, "by its channels: 65 are over 64"),
    (4_000, 1, ""),
    (768_000, 2, ""),
    (8_000, 64, ""),
  ],
)
def test_sound_of_an_impossible_rate_or_form_is_refused(
  rate, channels, refused, tmp_path
):
  path = tmp_path / "odd.wav"
  soundfile.write(path, np.zeros((rate // 4 + 1, channels)), rate)
  read = lambda: media.read_audio(path, sample_rate=8_000, channels=1)
  info = media.probe(path)
  assert bool(media.sound_refusal(info.sample_rate, info.channels)) == bool(
    refused
  )
  if refused:
    for decode in (read, lambda: media.decode_flac(path.read_bytes())):
      with pytest.raises(media.MediaError, match=refused):
        decode()
  else:
    assert len(read().samples) == pytest.approx(2_000, abs=8)


@pytest.mark.parametrize(
  ("option", "message"),
  [
    ({"start": -1}, "start=-1 s must be at least 0"),
    ({"start": float("nan")}, "start=nan"),
    ({"duration": 0}, "duration=0 must be above 0"),
    ({"max_fps": 0}, "max_fps=0 must be above 0"),
    ({"size": (32, 0)}, r"size=\(32, 0\) must be at least 1 x 1"),
    ({"sample_rate": 0}, "sample_rate=0 must be above 0"),
    ({"channels": 3}, "channels=3 must be 1, 2 or None"),
  ],
)
def test_options_out_of_range_are_refused_before_the_file_is_opened(
  option, message
):
  with pytest.raises(ValueError, match=message):
    media.read_clip("no such file.mp4", **({"sample_rate": 8000} | option))


@pytest.mark.parametrize(
  "name",
  ["missing.mp4", "http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "pipe:0"],
)
def test_only_files_are_opened(name):
  with pytest.raises(
    media.MediaError, match="there is no such file|is not on this machine"
  ) as e:
    media.probe(name)
  assert str(e.value).startswith(name)


@pytest.mark.parametrize(
  ("name", "content", "reason"),
  [
    ("empty.mp4", b"", "is empty"),
    ("text.mp4", b"to be or not to be\n" * 99, "cannot be opened"),
    ("noise.mp4", np.random.default_rng(0).bytes(9999), "cannot be opened"),
    ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n", "cannot be opened"),
    ("list.txt", b"ffconcat version 1.0\nfile clip.mp4\n", "cannot be opened"),
    ("lfs.mp4", b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
  ],
)
def test_files_that_are_not_media_are_refused_in_one_line(
  tmp_path, name, content, reason
):
  media.encode_video(numbered(5), fps=10, path=tmp_path / "clip.mp4")
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(media.MediaError, match=reason) as e:
    media.probe(path)
  message = str(e.value)
  assert message.startswith(str(path)) and "\n" not in message


def test_folders_are_refused(tmp_path):
  with pytest.raises(media.MediaError, match="not a regular file"):
    media.probe(tmp_path)


def test_a_truncated_file_is_read_up_to_its_end(tmp_path):
  ticks = [i * 3600 for i in range(100)]
  path = write_clip(tmp_path / "a.mkv", numbered(100), ticks=ticks)
  data = open(path, "rb").read()
  video = media.read_video(data[: len(data) * 6 // 10])
  assert 10 < len(video.frames) < 90
  assert numbers(video.frames) == list(range(len(video.frames)))


@pytest.mark.parametrize(
  ("suffix", "time_base"),
  [("mkv", Fraction(1, 1000)), ("avi", Fraction(1, 10))],
)
def test_a_damaged_frame_is_counted_and_the_others_keep_their_times(
  tmp_path, suffix, time_base
):
  path = write_clip(
    tmp_path / f"a.{suffix}",
    numbered(10),
    ticks=[i * Fraction(1, 10) / time_base for i in range(10)],
    time_base=time_base,
    codec="ffv1",
    gop=1,
  )
  video = media.read_video(with_damaged_packet(path, "video", 4))
  assert video.damaged == 1
  assert numbers(video.frames) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
  expected = np.array([0, 1, 2, 3, 5, 6, 7, 8, 9]) / 10
  np.testing.assert_allclose(video.times, expected, atol=1e-9)


def test_a_damaged_audio_block_is_counted_and_silent(tmp_path):
  rate = 48_000
  audio = np.random.default_rng(0).uniform(0.2, 0.5, (rate, 1))
  path = write_clip(
    tmp_path / "a.mkv",
    numbered(10),
    ticks=[i * 9000 for i in range(10)],
    audio=audio,
    rate=rate,
  )
  read = media.read_audio(
    with_damaged_packet(path, "audio", 5), sample_rate=rate
  )
  assert read.damaged == 1 and read.samples.shape == audio.shape
  silent = np.flatnonzero(read.samples == 0)
  assert len(silent) == np.ptp(silent) + 1  # one block without a break
  assert 0.05 < len(silent) / rate < 0.2
  intact = read.samples != 0
  np.testing.assert_allclose(read.samples[intact], audio[intact], atol=1e-4)


def test_a_gap_between_audio_blocks_is_silent(tmp_path):
  rate, path = 8000, tmp_path / "gap.mkv"
  block = np.full((1, 4000), 0.5, np.float32)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
    for pts in (0, 12_000):
      frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
      frame.sample_rate, frame.pts = rate, pts
      frame.time_base = Fraction(1, rate)
      container.mux(stream.encode(frame))
  expected = np.full((16_000, 1), 0.5, np.float32)
  expected[4000:12_000] = 0
  samples = media.read_audio(path, sample_rate=rate).samples
  np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize(
  ("limits", "reason"),
  [
    (media.Limits(pixels=1000), "64 x 32"),
    (media.Limits(duration=2), "claims to last 5 s"),
    (media.Limits(file_bytes=500), "bytes, over the limit"),
    (media.Limits(frames=10), "over 10 frames"),
    (media.Limits(memory_bytes=60_000), "over 4 frames"),
  ],
)
def test_limits_are_checked(limits, reason):
  data = media.encode_video(numbered(50), fps=10)
  with pytest.raises(media.MediaError, match=reason):
    media.read_video(data, limits=limits)


@pytest.mark.parametrize("window", [(0.0, None), (0.7, 1.1), (0.25, 0.5)])
@pytest.mark.parametrize("max_fps", [3.0, 7.0, 12.0, 24.0])
def test_frames_of_a_grid_are_those_that_reading_all_would_give(
  window, max_fps
):
  """Of H.264, frames that nobody needs are not decoded."""
  rng = np.random.default_rng(0)
  shifts = np.cumsum(rng.integers(0, 3, 60))
  frames = np.stack([np.roll(rng_picture(), s, axis=1) for s in shifts])
  data = media.encode_video(frames, fps=24)
  start, duration = window
  every = media.read_video(data)
  whole = media.read_video(data, max_fps=max_fps)
  found = media.read_video(
    data, start=start, duration=duration, max_fps=max_fps, grid=0.0
  )
  end = start + (duration or 9)
  inside = (whole.times >= start - 1e-9) & (whole.times < end - 1e-9)
  np.testing.assert_allclose(found.times + start, whole.times[inside])
  np.testing.assert_array_equal(found.frames, whole.frames[inside])
  picks = np.searchsorted(every.times, whole.times - 1e-6)
  np.testing.assert_array_equal(whole.frames, every.frames[picks])


def rng_picture():
  picture = np.random.default_rng(1).integers(0, 256, (8, 16, 3))
  return picture.repeat(8, 0).repeat(8, 1).astype(np.uint8)
