"""What of an existing sound is kept when a soundtrack is extended or mended.

Samples that are kept come back bit for bit; a latent is known to the model
where all samples that it stands for are kept.
"""

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np
from scipy import ndimage

from v2a_jax import media

FADE = 0.010  # seconds, from kept to new sound


@dataclasses.dataclass(frozen=True)
class Kept:
  """A sound and which part of it is kept.

  Attributes:
    samples: float32 [t channels], silence where there is no sound.
    there: bool [t], what is kept.
    hop: samples a latent.
    sample_rate: hertz.
  """

  samples: np.ndarray
  there: np.ndarray
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
  ) -> "Kept":
    """Reads a sound for `latents` latents of a codec.

    Args:
      audio: any file with sound; in a video, on the picture's clock.
      regenerate: (start, end) in seconds, of what is not kept.
      latents: how many the soundtrack has.
      codec: its config.

    Raises:
      MediaError: the file cannot be read or has no sound.
    """
    rate, total = codec.sample_rate, latents * codec.hop
    look = functools.partial(
      media.read_audio,
      sample_rate=rate,
      channels=codec.channels,
      duration=total / rate,
    )
    heard = media.run_limited(look, audio).samples[:total]
    there = np.arange(total) < len(heard)
    for start, end in regenerate:
      there[round(start * rate) : round(end * rate)] = False
    samples = np.zeros((total, codec.channels), np.float32)
    samples[: len(heard)] = heard
    return cls(samples, there, codec.hop, rate)

  @property
  def known(self) -> tuple[np.ndarray, np.ndarray]:
    """The sound [1 t channels], and which latents of it are kept [1 n]."""
    latents = self.there.reshape(-1, self.hop).all(axis=1)
    return self.samples[None], latents[None]

  def put_back(self, made: np.ndarray) -> np.ndarray:
    """New sounds [b t channels] with the kept samples in their place."""
    if not self.there.any():
      return made
    away = ndimage.distance_transform_edt(~self.there)
    old = np.clip(1 - away / (FADE * self.sample_rate), 0, 1)[:, None]
    mixed = old * self.samples + (1 - old) * made
    return np.where(self.there[:, None], self.samples, mixed).astype(np.float32)
