"""Known sound for infilling and extension.

Kept samples come back bit for bit; a latent is known to the model where all the
samples that it stands for are kept.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from v2a_jax import media
from v2a_jax.basics import scratch

FADE = 0.010  # seconds, from kept to new sound
_PIECE = 1 << 20  # samples that are faded at a time


def new_spans(
  regenerate: Sequence[tuple[float, float]],
  sample_rate: int,
  *,
  given: int,
  total: int,
) -> list[tuple[int, int]]:
  """Returns where sound is new: (begin, end) pairs in samples, in order.

  Args:
    regenerate: (start, end) pairs in seconds that are not kept.
    sample_rate: sample rate in Hz.
    given: number of samples that there are.
    total: number of samples that are wanted.
  """
  spans = [[round(x * sample_rate) for x in pair] for pair in regenerate]
  found: list[tuple[int, int]] = []
  for begin, end in sorted([*spans, [given, total]]):
    end = min(end, total)
    if found and begin <= found[-1][1]:
      found[-1] = found[-1][0], max(end, found[-1][1])
    elif begin < end:
      found.append((begin, end))
  return found


def continued(sound: np.ndarray, total: int, sample_rate: int) -> np.ndarray:
  """Returns sound [t channels] at a length of `total` samples.

  After its end comes its mirror image as long as a fade, which new sound can be
  faded in from, and then silence.
  """
  sound = sound[:total]
  out, given = scratch.empty((total, sound.shape[1])), len(sound)
  out[:given] = sound
  image = sound[::-1][: min(round(FADE * sample_rate), total - given)]
  out[given : given + len(image)] = image
  out[given + len(image) :] = 0.0
  return out


def put_back(
  old: np.ndarray,
  new: np.ndarray,
  spans: Sequence[tuple[int, int]],
  sample_rate: int,
) -> np.ndarray:
  """Returns old sound with new sound in spans, faded into each other there.

  Args:
    old: float32 [t channels].
    new: float32 [t channels].
    spans: (begin, end) pairs in samples.
    sample_rate: sample rate in Hz.
  """
  out = scratch.empty(old.shape)
  out[:] = old
  for begin, end in spans:
    for first in range(begin, end, _PIECE):
      place = np.arange(first, min(first + _PIECE, end))
      away = np.full(len(place), np.inf)
      if begin > 0:
        away = place - begin + 1.0
      if end < len(old):
        away = np.minimum(away, end - place)
      share = np.clip(1 - away / (FADE * sample_rate), 0, 1)[:, None]
      out[place] = share * old[place] + (1 - share) * new[place]
  return out


@dataclasses.dataclass(frozen=True)
class Kept:
  """A sound and which part of it is kept.

  Attributes:
    samples: float32 [t channels], see `continued`.
    spans: (begin, end) pairs, samples that are not kept.
    given: number of samples that there are.
    hop: number of samples per latent.
    sample_rate: sample rate in Hz.
  """

  samples: np.ndarray
  spans: Sequence[tuple[int, int]]
  given: int
  hop: int
  sample_rate: int

  @classmethod
  def read(
    cls,
    audio: str,
    regenerate: Sequence[tuple[float, float]],
    *,
    latents: int,
    codec,
    audio_track: int | None = None,
    limits: media.Limits = media.DEFAULT_LIMITS,
  ) -> "Kept":
    """Reads a sound for `latents` latents of a codec.

    Args:
      audio: file with sound; a video's sound is on the picture's clock.
      regenerate: (start, end) pairs in seconds, spans that are not kept.
      latents: number of latents of the soundtrack.
      codec: sizes of the codec.
      audio_track: number of the sound track, from 0; None for the main one.
      limits: resource limits of the read.

    Raises:
      MediaError: the file cannot be read or has no sound.
    """
    rate, total = codec.sample_rate, latents * codec.hop
    sound = media.limited(media.read_audio)(
      audio,
      sample_rate=rate,
      channels=codec.channels,
      duration=total / rate,
      audio_track=audio_track,
      limits=limits,
    ).samples[:total]
    return cls(
      samples=continued(sound, total, rate),
      spans=new_spans(regenerate, rate, given=len(sound), total=total),
      given=len(sound),
      hop=codec.hop,
      sample_rate=rate,
    )

  @property
  def sound(self) -> np.ndarray:
    """The sound alone, float32 [t channels]."""
    return self.samples[: self.given]

  def repeated(self, begin: int, count: int) -> np.ndarray:
    """Returns the sound, again and again, at some latents, [1 t channels]."""
    span = np.arange(begin * self.hop, (begin + count) * self.hop)
    return self.sound[span % len(self.sound)][None]

  def known(self, begin: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sound at some latents [1 t channels], and a mask [1 count]."""
    first, length = begin * self.hop, count * self.hop
    samples = self.samples[first : first + length]
    samples = np.pad(samples, ((0, length - len(samples)), (0, 0)))
    mask = np.arange(first, first + length) < len(self.samples)
    for start, end in self.spans:
      mask[max(start - first, 0) : max(end - first, 0)] = False
    return samples[None], mask.reshape(-1, self.hop).all(axis=1)[None]

  def put_back(self, generated: np.ndarray) -> np.ndarray:
    """Returns generated sound [t channels] with the kept samples in place."""
    return put_back(self.samples, generated, self.spans, self.sample_rate)
