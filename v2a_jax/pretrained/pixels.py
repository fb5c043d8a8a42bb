"""Resizing and normalisation of frames for published image encoders."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

# Ways to resize, by Pillow's numbers, which published configs use.
RESAMPLE: Mapping[int, str] = {2: "linear", 3: "cubic"}


def preprocess(
  frames,
  *,
  size: int,
  mean: Sequence[float],
  std: Sequence[float],
  resample: int = 3,
  crop: bool = False,
):
  """Resizes and normalises frames: (resized / 255 - mean) / std.

  Resizing is antialiased and clipped to the range of pixels, as in Pillow, but
  not rounded to whole pixel values.

  Args:
    frames: [b n h w 3], uint8, or floats in [0, 1].
    size: height and width of the result in pixels.
    mean: mean of red, green and blue in [0, 1].
    std: standard deviation of each, likewise.
    resample: a key of `RESAMPLE`.
    crop: whether the shorter side becomes `size` and the middle is cut out;
      else the whole frame is squashed into the square.

  Returns:
    float32 [b n size size 3].
  """
  scale = 255.0 if frames.dtype == jnp.uint8 else 1.0
  x = frames.astype(jnp.float32) / scale
  height, width = frames.shape[2:4] if crop else (1, 1)
  short = min(height, width)
  height, width = size * height // short, size * width // short
  shape = (*x.shape[:2], height, width, x.shape[-1])
  x = jnp.clip(jax.image.resize(x, shape, RESAMPLE[resample]), 0.0, 1.0)
  top, left = (height - size) // 2, (width - size) // 2
  x = x[:, :, top : top + size, left : left + size]
  return (x - jnp.asarray(mean)) / jnp.asarray(std)
