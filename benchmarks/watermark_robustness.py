"""Measures the robustness of the watermark; prints a table in Markdown.

  python benchmarks/watermark_robustness.py CLIPS [--num 100] [-o table.md]

CLIPS is a folder of audio or video files, searched recursively. Four seconds of
each of `num` random files are marked with a key and payload of their own,
attacked, and searched for the watermark. It counts as found at a false positive
probability of at most 1e-4.

The null distribution is measured, too: scores of unmarked clips under many
keys, compared with the bound exp(-z^2 / 2) that `detect` reports.
"""

import argparse
from collections.abc import Callable
import pathlib
import random
import tempfile

import numpy as np
from scipy import signal, stats

from v2a_jax import media, watermark
from v2a_jax.watermark import detector, pattern, spectrum

RATE = 16_000
SECONDS = 4.0
SUFFIXES = (".wav", ".ogg", ".flac", ".mp3", ".mp4", ".m4a")
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


def low_pass(hz: float) -> Attack:
  """Returns an attack by an eighth-order Butterworth low-pass filter."""
  sos = signal.butter(8, hz, fs=RATE, output="sos")
  return lambda x, rng, folder: signal.sosfilt(sos, x, axis=0)


def crop(x, rng, folder):
  """Keeps a random excerpt of 2 s."""
  start = int(rng.integers(0, len(x) - 2 * RATE))
  return x[start : start + 2 * RATE]


def speed(factor: float) -> Attack:
  """Returns an attack that plays `factor` times as fast, at higher pitch."""
  return lambda x, rng, folder: signal.resample(x, int(len(x) / factor))


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


ATTACKS: dict[str, Attack] = {
  "none": lambda x, rng, folder: x,
  "delivered MP4": video,
  "AAC 128 kb/s": lossy(".m4a", 128_000),
  "AAC 64 kb/s": lossy(".m4a", 64_000),
  "AAC 32 kb/s": lossy(".m4a", 32_000),
  "MP3 128 kb/s": lossy(".mp3", 128_000),
  "MP3 64 kb/s": lossy(".mp3", 64_000),
  "Opus 64 kb/s": lossy(".opus", 64_000),
  "resampled via 44.1 kHz": resample(44_100),
  "resampled via 48 kHz": resample(48_000),
  "resampled via 8 kHz": resample(8_000),
  "noise 30 dB": noise(30),
  "noise 25 dB": noise(25),
  "noise 20 dB": noise(20),
  "level -26 dB": lambda x, rng, folder: 0.05 * x,
  "equaliser +-6 dB": equalise,
  "low pass 4 kHz": low_pass(4000),
  "compressor 4:1": compress,
  "reverberation 0.3 s": reverberate,
  "2 s excerpt": crop,
  "delivered MP4, 2 s excerpt": then(video, crop),
  "MP3 64 kb/s, 2 s excerpt": then(lossy(".mp3", 64_000), crop),
  "speed +1 %": speed(1.01),
  "speed -2 %": speed(0.98),
  "speed +5 %": speed(1.05),
  "speed -5 %": speed(0.95),
  "marked again, other key": lambda x, rng, folder: watermark.embed(
    x, RATE, key="second owner"
  ),
}


def read_clips(folder: pathlib.Path, num: int, seed: int) -> list[np.ndarray]:
  """Reads `num` excerpts [t, 1] of 4 s; skips shorter and silent files."""
  files = sorted(f for f in folder.rglob("*") if f.suffix in SUFFIXES)
  random.Random(seed).shuffle(files)
  clips = []
  for file in files:
    try:
      audio = media.read_audio(
        file, sample_rate=RATE, channels=1, duration=SECONDS
      )
    except media.MediaError as error:
      print(error)
      continue
    if len(audio.samples) >= (SECONDS - 0.01) * RATE and audio.samples.any():
      clips.append(audio.samples)
    if len(clips) == num:
      break
  return clips


def measure(clips: list[np.ndarray], names: list[str], seed: int) -> dict:
  """Attacks every marked clip and searches the watermark.

  Args:
    clips: excerpts [t, 1].
    names: names of the attacks.
    seed: random seed of payloads and attacks.

  Returns:
    `ratios`: signal to change in dB for each clip; `attacks`: (found, payload
    is right, score) for each clip by attack.
  """
  results = {name: [] for name in names}
  ratios = []
  with tempfile.TemporaryDirectory() as folder:
    for i, clip in enumerate(clips):
      rng = np.random.default_rng((seed, i))
      key, payload = f"owner {i}", int(rng.integers(1 << 16))
      marked = watermark.embed(clip, RATE, key=key, payload=payload)
      change = np.sum((marked - clip) ** 2) + 1e-12
      ratios.append(10 * np.log10(np.sum(clip**2) / change))
      for name in names:
        attacked = ATTACKS[name](marked, rng, pathlib.Path(folder))
        result = watermark.detect(attacked.astype(np.float32), RATE, key=key)
        results[name].append(
          (result.found, result.payload == payload, result.score)
        )
      print(f"{i + 1}/{len(clips)}", end="\r", flush=True)
  return {"ratios": np.array(ratios), "attacks": results}


def measure_null(clips: list[np.ndarray], keys: int, seed: int) -> dict:
  """Counts scores of unmarked audio above 3, 4, 5 and 6.

  The resultants of a clip do not depend on the key, so one pass scores every
  start of the tile under all keys.

  Args:
    clips: excerpts [t, 1].
    keys: number of keys.
    seed: seed of the keys.
  """
  names = [f"nobody {seed} {i}".encode() for i in range(keys)]
  where = ~pattern.carries_payload().T
  signs = np.stack([np.exp(-1j * pattern.phases(k)).T[where] for k in names])
  thresholds = np.array([3.0, 4.0, 5.0, 6.0])
  counts, total, highest = np.zeros(4, int), 0, 0.0
  for clip in clips:
    power = detector._power(clip[:, 0])
    bands = pattern.band_matrix()
    energies = detector._slot_energies(bands @ power, detector._SLOT / 2)
    for weighting in detector._WEIGHTINGS:
      chips = detector._weighted_chips(*energies, bands.sum(1), weighting)
      resultants = detector._fold(chips, detector._SLOT)[where]
      spread = np.sqrt((np.abs(resultants) ** 2).sum(0) / 2) + 1e-14
      scores = (signs.astype(np.complex64) @ resultants).real / spread
      counts += [(scores > t).sum() for t in thresholds]
      total += scores.size
      highest = max(highest, float(scores.max()))
  return {
    "thresholds": thresholds,
    "counts": counts,
    "total": total,
    "highest": highest,
  }


def table(results: dict, null: dict) -> str:
  """Formats the results of `measure` and `measure_null` as Markdown."""
  ratios = results["ratios"]
  lines = [
    f"N = {len(ratios)} clips of {SECONDS:.0f} s; signal to change "
    f"{np.median(ratios):.1f} dB (median; 10 % under "
    f"{np.percentile(ratios, 10):.1f} dB).",
    "",
    "| change | found | payload read | median z | lowest decile of z |",
    "|---|---:|---:|---:|---:|",
  ]
  for name, rows in results["attacks"].items():
    found, right, z = np.array(rows, float).T
    lines.append(
      f"| {name} | {100 * found.mean():.0f} % | {100 * right.mean():.0f} % "
      f"| {np.median(z):.1f} | {np.percentile(z, 10):.1f} |"
    )
  lines += [
    "",
    f"Null: {null['total']:,} scores of unmarked clips, highest "
    f"{null['highest']:.2f}.",
    "",
    "| z above | measured | Gaussian | reported bound |",
    "|---|---:|---:|---:|",
  ]
  for threshold, count in zip(null["thresholds"], null["counts"]):
    gaussian = stats.norm.sf(threshold)
    lines.append(
      f"| {threshold:.0f} | {count / null['total']:.1e} | {gaussian:.1e} "
      f"| {np.exp(-(threshold**2) / 2):.1e} |"
    )
  return "\n".join(lines) + "\n"


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "clips", type=pathlib.Path, help="folder of audio or video files"
  )
  parser.add_argument("--num", type=int, default=100, help="number of clips")
  parser.add_argument(
    "--keys", type=int, default=200, help="keys of the null distribution"
  )
  parser.add_argument("--only", nargs="*", help="names of attacks; all if none")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("-o", "--out", type=pathlib.Path)
  args = parser.parse_args()
  clips = read_clips(args.clips, args.num, args.seed)
  names = args.only or list(ATTACKS)
  text = table(
    measure(clips, names, args.seed), measure_null(clips, args.keys, args.seed)
  )
  print(text)
  if args.out:
    args.out.write_text(text)


if __name__ == "__main__":
  main()
