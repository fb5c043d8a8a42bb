"""The format that every sound of an evaluation is brought to.

Systems deliver 16 or 48 kHz, mono or stereo, and a distance between sounds of
two rates is mostly the missing treble. So all rows, the truth and the reference
are judged at one rate, by default the highest of the true sounds, up to 48 kHz:
a system of a lower rate is charged for the treble that it lacks, and one of a
higher rate gains nothing by what the truth does not have.
"""

from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np
import soxr

from v2a_jax import media
from v2a_jax.media.base import Source

MAX_RATE = 48_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """Rate in Hz, number of channels, and the longest part that is judged.

  `seconds` is infinite where clips are judged whole.
  """

  sample_rate: int
  channels: int
  seconds: float = float("inf")

  def __str__(self) -> str:
    return f"{self.sample_rate} Hz, " + ("mono", "stereo")[self.channels - 1]

  def read(self, source: Source, *, seconds: float = float("inf")):
    """Reads a sound: float32 [samples, channels], within [-1, 1].

    Raises:
      MediaError: it cannot be read, or is not finite.
    """
    seconds = min(seconds, self.seconds)
    samples = media.limited(media.read_audio)(
      source,
      sample_rate=self.sample_rate,
      channels=self.channels,
      duration=seconds if np.isfinite(seconds) else None,
    ).samples
    return np.clip(samples, -1.0, 1.0)

  def convert(self, sound: np.ndarray, sample_rate: int) -> np.ndarray:
    """Converts [samples, channels] of another rate."""
    sound = np.asarray(sound, np.float32)
    if sound.shape[1] != self.channels:
      sound = sound.mean(axis=1, keepdims=True)
      sound = np.repeat(sound, self.channels, axis=1)
    if sample_rate != self.sample_rate and len(sound):
      sound = soxr.resample(sound, sample_rate, self.sample_rate, quality="HQ")
    return np.ascontiguousarray(sound, np.float32)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A clip that was chosen, before it is decoded.

  Attributes:
    index: its index among the records.
    id: its name.
    sha256: digest of its true sound as it is stored.
    sample_rate: of that sound, Hz; 0 where it cannot be read.
    channels: of that sound.
  """

  index: int
  id: str
  sha256: str
  sample_rate: int
  channels: int


def survey(records: Sequence, indices: Sequence[int]) -> list[Entry]:
  """Looks at chosen records: names, digests and formats of their sounds."""
  return [_entry(records[index], index) for index in indices]


def _entry(record, index: int) -> Entry:
  audio = record["audio"]
  rate = channels = 0
  try:
    info = media.probe_limited(audio) if audio else None
    if info and info.has_audio:
      rate, channels = info.sample_rate, info.channels
  except media.MediaError:
    pass  # Named with its reason when it is loaded.
  digest = hashlib.sha256(audio).hexdigest()
  return Entry(index, record["id"], digest, rate, channels)


def choose(
  entries: Sequence[Entry], *, rate: int | None, seconds: float | None
) -> Format:
  """Returns the format to judge clips in; see the module's docstring."""
  rates = [entry.sample_rate for entry in entries if entry.sample_rate]
  channels = max((entry.channels for entry in entries), default=1)
  return Format(
    sample_rate=rate or min(max(rates, default=MAX_RATE), MAX_RATE),
    channels=min(max(channels, 1), 2),
    seconds=seconds or float("inf"),
  )


def digest(items: Sequence[tuple]) -> str:
  """Returns the sha256 of clips (name, digest of the sound, seconds)."""
  lines = [f"{name}\t{sha}\t{seconds:.3f}" for name, sha, seconds in items]
  return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
