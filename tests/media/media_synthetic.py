"""Small synthetic clips: every frame shows its own index.

A frame is eight vertical black or white bars, its index in binary, which
survives any codec, colour space and resizing.
"""

from fractions import Fraction

import av
import numpy as np

BITS = 8


def numbered(count: int, height: int = 32, width: int = 64) -> np.ndarray:
  """Returns uint8 [count, height, width, 3]; frame i shows i."""
  bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
  row = np.repeat(bits, width // BITS, axis=1).astype(np.uint8) * 255
  shape = (count, height, row.shape[1], 3)
  return np.broadcast_to(row[:, None, :, None], shape).copy()


def numbers(frames: np.ndarray) -> list[int]:
  """Reads the indices that frames of `numbered` show, at any size."""
  count, _, width, _ = frames.shape
  bar = width // BITS
  bars = frames[:, :, : bar * BITS].reshape(count, -1, BITS, bar, 3)
  bits = bars.mean(axis=(1, 3, 4)) > 127
  return (bits * (1 << np.arange(BITS))).sum(axis=1).tolist()


def write_clip(
  path,
  frames: np.ndarray,
  *,
  ticks,
  time_base: Fraction = Fraction(1, 90_000),
  codec: str = "libx264",
  pix_fmt: str = "yuv420p",
  aspect: Fraction | None = None,
  display: tuple[int, bool] | None = None,
  audio: np.ndarray | None = None,
  audio_codec: str = "flac",
  audio_start: float = 0.0,
  rate: int = 48_000,
  gop: int = 12,
  options: dict[str, str] | None = None,
) -> str:
  """Writes a clip with PyAV, independently of `media.writer`.

  Args:
    path: path whose suffix chooses the container.
    frames: uint8 [n, h, w, 3].
    ticks: pts of each frame.
    time_base: unit of the ticks in seconds.
    codec: video encoder.
    pix_fmt: pixel format of the encoded video.
    aspect: width of a pixel relative to its height.
    display: (degrees counter-clockwise, mirrored) of the display matrix.
    audio: float32 [t, channels], encoded as one block.
    audio_codec: audio encoder.
    audio_start: presentation time of the first sample in seconds.
    rate: sample rate in Hz.
    gop: frames between key frames.
    options: further options of the video encoder.

  Returns:
    The path.
  """
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pix_fmt
    stream.codec_context.time_base = time_base
    stream.codec_context.gop_size = gop
    stream.codec_context.options = options or {}
    if aspect:
      stream.codec_context.sample_aspect_ratio = aspect
    if display:
      stream.set_display_rotation(display[0], hflip=display[1])
    audio_stream = None
    if audio is not None:
      layout = "mono" if audio.shape[1] == 1 else "stereo"
      audio_stream = container.add_stream(audio_codec, rate=rate, layout=layout)
      audio_stream.time_base = Fraction(1, rate)
    for pixels, tick in zip(frames, ticks, strict=True):
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      frame.pts, frame.time_base = int(tick), time_base
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if audio_stream is not None:
      planes = np.ascontiguousarray(audio.T.astype(np.float32))
      frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
      frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
      frame.pts = round(audio_start * rate)
      container.mux(audio_stream.encode(frame))
      container.mux(audio_stream.encode(None))
  return str(path)


def write_tracks(
  path,
  *,
  tones,
  languages=None,
  count: int = 13,
  codec: str = "libx264",
  audio_codec: str = "pcm_s16le",
  size: tuple[int, int] = (32, 64),
) -> str:
  """Writes 25 frames a second, and a stereo track of 48 kHz for each tone.

  Args:
    path: path whose suffix chooses the container.
    tones: frequency in Hz of each track; 0 for silence.
    languages: language of each track; "" for none.
    count: number of frames.
    codec: video encoder.
    audio_codec: audio encoder.
    size: height and width in pixels.
  """
  rate, length = 48_000, 48_000 // 25
  with av.open(str(path), "w") as container:
    video = container.add_stream(codec, rate=25)
    (video.height, video.width), video.pix_fmt = size, "yuv420p"
    tracks = []
    for tone, language in zip(tones, languages or [""] * len(tones)):
      track = container.add_stream(audio_codec, rate=rate, layout="stereo")
      track.metadata.update({"language": language} if language else {})
      block = track.codec_context.frame_size or 0
      resampler = av.AudioResampler(track.format, "stereo", rate, block)
      tracks.append((tone, track, resampler))
    pixels = np.zeros((*size, 3), np.uint8)
    for i in range(count):
      frame = av.VideoFrame.from_ndarray(pixels + 9 * i, format="rgb24")
      frame.pts, frame.time_base = i, Fraction(1, 25)
      container.mux(video.encode(frame))
      for tone, track, resampler in tracks:
        times = (i * length + np.arange(length)) / rate
        wave = 9e3 * np.sin(2 * np.pi * tone * times)
        wave = np.repeat(wave, 2).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = rate, i * length
        for part in resampler.resample(frame):
          container.mux(track.encode(part))
    for stream in (video, *(track for _, track, _ in tracks)):
      container.mux(stream.encode(None))
  return str(path)


def with_damaged_packet(path, kind: str, index: int) -> bytes:
  """Returns the bytes of a file in which one packet is overwritten by zeros.

  Args:
    path: path of a file whose container stores packets contiguously.
    kind: "video" or "audio".
    index: index of the packet among those of its stream.
  """
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(**{kind: 0}) if p.size]
    begin, size = packets[index].pos, packets[index].size
  header = 16  # the container's own bytes at the start of the packet
  with open(path, "rb") as file:
    data = bytearray(file.read())
  data[begin + header : begin + size] = bytes(size - header)
  return bytes(data)


def click(length: int, at: int, channels: int = 1) -> np.ndarray:
  """Returns float32 [length, channels], zero except for sample `at`."""
  audio = np.zeros((length, channels), np.float32)
  audio[at] = 0.9
  return audio
