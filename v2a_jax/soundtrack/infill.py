"""Known sound for infilling and extension.

Kept samples come back bit for bit; a latent is known to the model where all the
samples that it stands for are kept.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from scipy import ndimage

from v2a_jax import media

FADE = 0.010  # seconds, from kept to new sound


@dataclasses.dataclass(frozen=True)
class Kept:
  """A sound and which part of it is kept.

  Attributes:
    samples: float32 [t channels], zeros where there is no sound.
    mask: bool [t], True where samples are kept.
    hop: number of samples per latent.
    sample_rate: sample rate in Hz.
  """

  samples: np.ndarray
  mask: np.ndarray
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
    mask = np.arange(total) < len(sound)
    for start, end in regenerate:
      mask[round(start * rate) : round(end * rate)] = False
    samples = np.zeros((total, codec.channels), np.float32)
    samples[: len(sound)] = sound
    return cls(samples, mask, codec.hop, rate)

  @property
  def sound(self) -> np.ndarray:
    """The sound alone, float32 [t channels]."""
    return self.samples[: int(self.mask.sum())]

  def repeated(self, begin: int, count: int) -> np.ndarray:
    """Returns the sound, again and again, at some latents, [1 t channels]."""
    span = np.arange(begin * self.hop, (begin + count) * self.hop)
    return self.sound[span % len(self.sound)][None]

  def known(self, begin: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sound at some latents [1 t channels], and a mask [1 count]."""
    span = slice(begin * self.hop, (begin + count) * self.hop)
    missing = count * self.hop - len(self.mask[span])
    mask = np.pad(self.mask[span], (0, missing))
    samples = np.pad(self.samples[span], ((0, missing), (0, 0)))
    return samples[None], mask.reshape(-1, self.hop).all(axis=1)[None]

  def put_back(self, generated: np.ndarray) -> np.ndarray:
    """Returns generated sound [b t channels] with the kept samples in place."""
    if not self.mask.any():
      return generated
    away = ndimage.distance_transform_edt(~self.mask)
    old = np.clip(1 - away / (FADE * self.sample_rate), 0, 1)[:, None]
    mixed = old * self.samples + (1 - old) * generated
    return np.where(self.mask[:, None], self.samples, mixed).astype(np.float32)
