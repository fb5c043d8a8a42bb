"""Encoding of arrays: small videos, FLAC records, WAV and audio previews.

A file is written under a temporary name and renamed when it is complete, so an
interrupted run leaves no partial file.
"""

from collections.abc import Iterator
import contextlib
from fractions import Fraction
import io
import os
import pathlib

import av
import numpy as np
import soundfile

from v2a_jax.basics import files
from v2a_jax.basics.paths import local_path
from v2a_jax.media import broadcast as broadcast_lib
from v2a_jax.media import sound
from v2a_jax.media.base import MediaError, source_name
from v2a_jax.media.track import AudioTrack, check_samples

_TICKS = 90_000  # per second; a multiple of the usual frame rates
_SUBTYPES = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}
_CODECS = {
  ".m4a": "aac",
  ".mp4": "aac",
  ".opus": "libopus",
  ".ogg": "libopus",
  ".webm": "libopus",
  ".mp3": "libmp3lame",
}


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path, as `files.written` does, for PyAV and soundfile.

  Raises:
    MediaError: the folder is missing, the disk is full, or the encoder fails.
  """
  path = local_path(path, "media").absolute()
  if not path.parent.is_dir():
    raise MediaError(str(path), "its folder does not exist", "create it")
  with write_errors(path), files.written(path) as part:
    yield part


@contextlib.contextmanager
def write_errors(path: str | os.PathLike) -> Iterator[None]:
  """Turns errors of the disk and of encoders into a MediaError about `path`."""
  try:
    yield
  except (OSError, av.FFmpegError, soundfile.LibsndfileError) as e:
    reason = getattr(e, "strerror", None) or str(e)
    raise MediaError(
      str(path), f"cannot be written: {reason}", "check disk and permissions"
    ) from e


def encode_video(
  frames: np.ndarray,
  times: np.ndarray | None = None,
  *,
  fps: float | None = None,
  path: str | os.PathLike | None = None,
  audio: np.ndarray | None = None,
  sample_rate: int | None = None,
  codec: str = "libx264",
  audio_codec: str = "aac",
  crf: int = 20,
  gop_seconds: float = 1.0,
) -> bytes | pathlib.Path:
  """Encodes frames, and optionally audio, as MP4; uncompressed ones as NUT.

  Args:
    frames: uint8 [n, h, w, 3], h and w even.
    times: [n] presentation times in seconds, from 0 on and increasing; exactly
      one of `times` and `fps` is required.
    fps: frame rate in Hz of evenly spaced frames.
    path: path of the output; None returns the bytes.
    audio: float32 [t, channels] in [-1, 1], from time 0 on; None for no audio.
    sample_rate: sample rate of `audio` in Hz.
    codec: FFmpeg's name of the video encoder; "rawvideo" keeps every pixel.
    audio_codec: "aac" or "flac".
    crf: constant rate factor; 0 is lossless, 23 is x264's default.
    gop_seconds: seconds between key frames, which bounds the cost of a seek.

  Returns:
    The bytes, or the path.

  Raises:
    MediaError: the arrays are not valid video or audio, or the file cannot be
      written.
  """
  name = "<video>" if path is None else str(path)
  ticks = _frame_ticks(frames, times, fps, name)
  samples = None if audio is None else check_samples(audio, name)
  rate = (len(frames) * _TICKS) / max(int(ticks[-1] - ticks[0]), 1)
  buffer, options, format_name = io.BytesIO(), mp4_options(sample_rate), "mp4"
  if codec == "rawvideo":
    options, format_name = {}, "nut"
  with contextlib.ExitStack() as stack:
    file = str(stack.enter_context(written(path))) if path else buffer
    container = stack.enter_context(
      av.open(file, "w", format=format_name, container_options=options)
    )
    # The encoder's rate control takes a rounded rate; the times are exact.
    stream = container.add_stream(codec, rate=max(round(rate), 1))
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "rgb24" if codec == "rawvideo" else "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS)
    stream.codec_context.gop_size = max(round(rate * gop_seconds), 1)
    stream.codec_context.thread_count = 1
    settings = {"crf": str(crf), "preset": "veryfast"}
    if codec == "libx264":  # With its macroblock tree, bytes vary by chance.
      settings["x264-params"] = "mbtree=0"
    if codec == "rawvideo":
      settings = {}
    stream.codec_context.options = settings
    packets = iter(())
    if samples is not None:
      packets = AudioTrack(
        container,
        samples,
        sample_rate=sample_rate,
        codec=audio_codec,
        name=name,
      ).packets()
    for pixels, begin, end in zip(frames, ticks[:-1], ticks[1:], strict=True):
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
      frame.pts, frame.time_base = int(begin), Fraction(1, _TICKS)
      frame.duration = int(end - begin)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    for packet in packets:
      container.mux(packet)
  return pathlib.Path(path) if path else buffer.getvalue()


def _frame_ticks(frames, times, fps, name) -> np.ndarray:
  """Returns [n + 1] ticks: when each frame begins and when the last ends."""
  if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
    raise MediaError(
      name,
      f"cannot hold frames of type {frames.dtype} and shape {frames.shape}",
      "give uint8 [n, h, w, 3]",
    )
  n, height, width, _ = frames.shape
  if not n or height % 2 or width % 2:
    raise MediaError(
      name,
      f"cannot hold {n} frames of {width} x {height}",
      "give at least one frame, of even height and width",
    )
  if (times is None) == (fps is None):
    raise MediaError(name, "needs `times` or `fps`", "give one of the two")
  if times is None:
    return np.round(np.arange(n + 1) * (_TICKS / fps)).astype(np.int64)
  ticks = np.round(np.asarray(times, np.float64) * _TICKS).astype(np.int64)
  gaps = np.diff(ticks)
  if len(ticks) != n or (gaps <= 0).any() or ticks[0] < 0:
    raise MediaError(
      name,
      f"has {n} frames but times {ticks[:3] / _TICKS}…",
      "give one time per frame, increasing from 0 s on",
    )
  last = int(np.median(gaps)) if n > 1 else _TICKS // 25
  return np.append(ticks, ticks[-1] + last)


def mp4_options(sample_rate: int | None) -> dict[str, str]:
  """Returns options of an MP4 whose edit list is in samples, not in ms."""
  return {"movie_timescale": str(sample_rate)} if sample_rate else {}


def encode_flac(
  samples: np.ndarray, sample_rate: int, *, bits: int = 16
) -> bytes:
  """Encodes float32 [t, channels] in [-1, 1] as FLAC of 16 or 24 bits.

  Raises:
    MediaError: the samples have another shape or are not finite.
  """
  samples = check_samples(samples, "<FLAC>")
  buffer = io.BytesIO()
  soundfile.write(
    buffer, samples, sample_rate, format="FLAC", subtype=_SUBTYPES[bits]
  )
  return buffer.getvalue()


def decode_flac(
  data: bytes, *, start: int = 0, frames: int = -1
) -> tuple[np.ndarray, int]:
  """Decodes FLAC, or another format that libsndfile reads (WAV, Ogg, …).

  Args:
    data: bytes of the file.
    start: index of the first sample.
    frames: number of samples, fewer at the end of the file; -1 for all.

  Returns:
    float32 [t, channels], and the sample rate in Hz.

  Raises:
    MediaError: the bytes are not an audio file, or not of sound.
  """
  try:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
      sound.check(source_name(data), file.samplerate, file.channels)
      file.seek(min(start, file.frames))
      samples = file.read(frames, dtype="float32", always_2d=True)
      return samples, file.samplerate
  except soundfile.LibsndfileError as e:
    raise MediaError(
      source_name(data), f"is not readable FLAC: {e}", "rebuild the record"
    ) from e


def write_wav(
  path: str | os.PathLike,
  samples: np.ndarray,
  sample_rate: int,
  *,
  bits: int = 24,
  broadcast: broadcast_lib.Broadcast | None = None,
) -> pathlib.Path:
  """Writes samples, float32 [t, channels] in [-1, 1], as WAV.

  `bits` per sample are 16, 24, or 32 for float. With `broadcast` it is a
  Broadcast Wave file.

  Raises:
    MediaError: the samples are refused, or the file cannot be written.
  """
  samples = check_samples(samples, str(path))
  with written(path) as part:
    soundfile.write(
      part, samples, sample_rate, format="WAV", subtype=_SUBTYPES[bits]
    )
    if broadcast:
      broadcast_lib.insert(part, broadcast.chunks(sample_rate, bits))
  return pathlib.Path(path)


def encode_audio(
  path: str | os.PathLike,
  samples: np.ndarray,
  sample_rate: int,
  *,
  bit_rate: int | None = None,
  bits: int = 16,
) -> pathlib.Path:
  """Writes samples as an audio file in the format of the suffix.

  Args:
    path: output with suffix .m4a, .mp4 (AAC), .opus, .ogg, .webm (Opus), .mp3,
      .flac or .wav.
    samples: float32 [t, channels] in [-1, 1].
    sample_rate: sample rate in Hz.
    bit_rate: bits per second of lossy codecs; None for `default_bit_rate`.
    bits: bits per sample of FLAC, 16 or 24.

  Raises:
    MediaError: the suffix is unknown, the samples are refused, or the file
      cannot be written.
  """
  path = local_path(path, "media")
  suffix = path.suffix.lower()
  if suffix == ".wav":
    return write_wav(path, samples, sample_rate)
  if suffix == ".flac":
    samples = check_samples(samples, str(path))
    with written(path) as part:
      soundfile.write(
        part, samples, sample_rate, format="FLAC", subtype=_SUBTYPES[bits]
      )
    return path
  if suffix not in _CODECS:
    raise MediaError(
      str(path),
      f"has the unknown suffix {suffix!r}",
      f"use one of {sorted([*_CODECS, '.wav', '.flac'])}",
    )
  with written(path) as part:
    options = {}
    if _CODECS[suffix] == "aac":
      options = mp4_options(sample_rate) | {"movflags": "+faststart"}
    with av.open(str(part), "w", container_options=options) as container:
      track = AudioTrack(
        container,
        samples,
        sample_rate=sample_rate,
        codec=_CODECS[suffix],
        bit_rate=bit_rate,
        name=str(path),
      )
      for packet in track.packets():
        container.mux(packet)
  return path
