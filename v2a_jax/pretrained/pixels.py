"""Frames as published image encoders were trained to see them."""

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
  """Frames as a tower was trained to see them: (resized / 255 - mean) / std.

  Resizing is antialiased and cut to the range of pixels, as Pillow does it, but
  not rounded to whole pixel values.

  Args:
    frames: [b n h w 3], uint8, or floats in [0, 1].
    size: pixels of either side.
    mean: of red, green and blue in [0, 1].
    std: likewise.
    resample: a key of `RESAMPLE`.
    crop: make the shorter side `size` and cut the middle out; else the whole
      frame is squashed into the square.

  Returns:
    float32 [b n size size 3].
  """
  scale = 255.0 if frames.dtype == jnp.uint8 else 1.0
  x = frames.astype(jnp.float32) / scale
  height, width = _resized(x.shape[2:4], size, crop=crop)
  shape = (*x.shape[:2], height, width, x.shape[-1])
  x = jnp.clip(jax.image.resize(x, shape, RESAMPLE[resample]), 0.0, 1.0)
  top, left = (height - size) // 2, (width - size) // 2
  x = x[:, :, top : top + size, left : left + size]
  return (x - jnp.asarray(mean)) / jnp.asarray(std)


def _resized(given, size: int, *, crop: bool) -> tuple[int, int]:
  """(height, width) of a frame before its middle is cut out."""
  if not crop:
    return size, size
  short = min(given)
  return size * given[0] // short, size * given[1] // short
