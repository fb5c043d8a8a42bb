"""Attacks on the watermark: what may happen to sound on its way.

Each is a function from samples [t, 1] at `RATE`, a generator of random numbers
and a folder for files to the samples after it.
"""

from collections.abc import Callable
import functools
import pathlib

import av
import jax
import numpy as np
from scipy import signal

from v2a_jax import media, watermark
from v2a_jax.codec import frozen
from v2a_jax.watermark import spectrum

RATE = 16_000
CODEC = "codec_tiny"  # the neural codec that sound is encoded by again
Attack = Callable[[np.ndarray, np.random.Generator, pathlib.Path], np.ndarray]


def lossy(suffix: str, bit_rate: int) -> Attack:
  """Returns an attack that encodes to a file and decodes again."""

  def attack(x, rng, folder):
    path = folder / f"x{suffix}"
    media.encode_audio(path, x, RATE, bit_rate=bit_rate)
    return media.read_audio(path, sample_rate=RATE, channels=1).samples

  return attack


def video(x, rng, folder):
  """Encodes as delivered, as AAC at the default bit rate in an MP4 video."""
  path = folder / "x.mp4"
  frames = np.zeros((8, 32, 32, 3), np.uint8)
  media.encode_video(frames, fps=2.0, path=path, audio=x, sample_rate=RATE)
  return media.read_audio(path, sample_rate=RATE, channels=1).samples


def resample(rate: int) -> Attack:
  """Returns an attack that resamples to `rate` Hz and back."""

  def attack(x, rng, folder):
    resampled = spectrum.resample(x, RATE, rate)
    return spectrum.resample(resampled, rate, RATE)

  return attack


def noise(decibels: float) -> Attack:
  """Returns an attack that adds white noise `decibels` below the audio."""

  def attack(x, rng, folder):
    level = np.sqrt(np.mean(x**2)) * 10 ** (-decibels / 20)
    return x + level * rng.standard_normal(x.shape)

  return attack


def equalise(x, rng, folder):
  """Amplifies by 6 dB below 300 Hz, attenuates by 6 dB above 3 kHz."""
  low = signal.butter(1, 300, "low", fs=RATE, output="sos")
  high = signal.butter(1, 3000, "high", fs=RATE, output="sos")
  return (
    x
    + 1.0 * signal.sosfilt(low, x, axis=0)
    - 0.5 * signal.sosfilt(high, x, axis=0)
  )


def filtered(kind: str, hz: float) -> Attack:
  """Returns an attack by an eighth-order Butterworth low or high pass."""
  sos = signal.butter(8, hz, kind, fs=RATE, output="sos")
  return lambda x, rng, folder: signal.sosfilt(sos, x, axis=0)


def crop(x, rng, folder):
  """Keeps a random excerpt of 2 s."""
  start = int(rng.integers(0, len(x) - 2 * RATE))
  return x[start : start + 2 * RATE]


def speed(factor: float) -> Attack:
  """Returns an attack that plays `factor` times as fast, at higher pitch."""
  return lambda x, rng, folder: signal.resample(x, int(len(x) / factor))


def stretch(factor: float) -> Attack:
  """Returns an attack that plays `factor` times as fast, at the same pitch.

  By FFmpeg's filter atempo, which overlaps pieces where they are alike (WSOLA).
  """

  def attack(x, rng, folder):
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono")
    tempo, sink = graph.add("atempo", str(factor)), graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(x.T, np.float32), format="flt", layout="mono"
    )
    frame.sample_rate, frame.pts = RATE, 0
    graph.push(frame)
    graph.push(None)
    pieces = []
    while True:
      try:
        pieces.append(sink.pull().to_ndarray().reshape(-1, 1))
      except (av.error.BlockingIOError, av.error.EOFError):
        return np.concatenate(pieces)

  return attack


def mix(x, rng, folder):
  """Adds the clip that was measured before, unmarked, 6 dB below this one."""
  other = OTHER[0]
  level = np.sqrt(np.mean(x**2) / (np.mean(other**2) + 1e-12))
  return x + level * 10 ** (-6 / 20) * np.resize(other, x.shape)


@functools.cache
def _codec():
  codec = frozen.load(CODEC)

  @jax.jit
  def run(state, x):
    merged = codec.merge(state)
    return merged.decode(merged.encode(x))[:, : x.shape[1]]

  return functools.partial(run, codec.state)


def neural_codec(x, rng, folder):
  """Encodes to the latents of the bundled codec and decodes."""
  return np.asarray(_codec()(x[None].astype(np.float32)))[0]


def compress(x, rng, folder):
  """Compresses 4:1 above -20 dBFS, with 5 ms attack and release."""
  pole = np.exp(-1 / (0.005 * RATE))
  level = np.sqrt(signal.lfilter([1 - pole], [1, -pole], x**2, axis=0) + 1e-9)
  return x * np.minimum(1, (level / 0.1) ** (1 / 4 - 1))


def reverberate(x, rng, folder):
  """Adds reverberation of 0.3 s with as much energy as the direct sound."""
  t = np.arange(int(0.3 * RATE)) / RATE
  room = rng.standard_normal(len(t)) * np.exp(-6.9 * t / 0.3)
  room *= 1 / np.sqrt((room**2).sum())
  room[0] += 1.0
  return signal.fftconvolve(x, room[:, None], axes=0)[: len(x)]


def then(first: Attack, second: Attack) -> Attack:
  """Returns the composition of two attacks."""
  return lambda x, rng, folder: second(first(x, rng, folder), rng, folder)


# The unmarked clip that was measured last; before the first one, white noise.
OTHER = [np.random.default_rng(0).standard_normal((RATE, 1))]
ATTACKS: dict[str, Attack] = {
  "none": lambda x, rng, folder: x,
  "delivered MP4 (AAC)": video,
  "MP3 128 kb/s": lossy(".mp3", 128_000),
  "MP3 64 kb/s": lossy(".mp3", 64_000),
  "Opus 48 kb/s": lossy(".opus", 48_000),
  "resampled via 8 kHz": resample(8_000),
  "noise 30 dB": noise(30),
  "noise 20 dB": noise(20),
  "level -26 dB": lambda x, rng, folder: 0.05 * x,
  "equaliser +-6 dB": equalise,
  "low pass 4 kHz": filtered("low", 4000),
  "high pass 500 Hz": filtered("high", 500),
  "compressor 4:1": compress,
  "2 s excerpt": crop,
  "delivered MP4, 2 s excerpt": then(video, crop),
  "speed +5 %": speed(1.05),
  "speed -5 %": speed(0.95),
  "stretched +5 %": stretch(1.05),
  "stretched -5 %": stretch(0.95),
  "mixed with another clip at -6 dB": mix,
  "neural codec": neural_codec,
  "reverberation 0.3 s": reverberate,
  "marked again, other key": lambda x, rng, folder: watermark.embed(
    x, RATE, key="second owner"
  ),
}
