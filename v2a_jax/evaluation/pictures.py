"""Pictures that are made worse on purpose: what a model loses with them.

compressed   every frame as JPEG of quality 5
noisy        Gaussian noise of 10 % of full scale, new in every frame
slow         5 frames a second
film         black and white, grain of 8 %, brightness that flickers by 10 %

They change the frames that the model is given, at its own size.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

_JPEG_QUALITY = 5
_NOISE, _GRAIN, _FLICKER = 0.1 * 255, 0.08 * 255, 0.1
_SLOW_FPS = 5.0
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Example = Mapping[str, np.ndarray]


def degrade(name: str, example: Example, *, seed: int) -> dict[str, np.ndarray]:
  """Returns an example whose frames are one of `DEGRADED`.

  Args:
    name: how they are changed.
    example: `frames` uint8 [n, h, w, 3], `frame_times` [n] in seconds and
      `frame_mask` [n].
    seed: random seed of noise and flicker.
  """
  rng = np.random.default_rng(seed)
  return {**example, **DEGRADED[name](example, rng)}


def _compressed(example: Example, rng) -> dict[str, np.ndarray]:
  del rng
  setting = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
  frames = [
    cv2.imdecode(cv2.imencode(".jpg", frame, setting)[1], cv2.IMREAD_COLOR)
    for frame in example["frames"][..., ::-1]
  ]
  return {"frames": np.stack(frames)[..., ::-1].copy()}


def _noisy(example: Example, rng) -> dict[str, np.ndarray]:
  frames = example["frames"]
  return {"frames": _pixels(frames + rng.normal(0, _NOISE, frames.shape))}


def _slow(example: Example, rng) -> dict[str, np.ndarray]:
  """Keeps the first frame of every fifth of a second, the others move up."""
  del rng
  times, mask = example["frame_times"], example["frame_mask"]
  ticks = np.floor(times * _SLOW_FPS + 1e-6)
  first = np.concatenate([[True], ticks[1:] != ticks[:-1]])
  kept = np.flatnonzero(mask & first)
  order = np.concatenate([kept, np.setdiff1d(np.arange(len(mask)), kept)])
  found = {key: example[key][order] for key in ("frames", "frame_times")}
  return found | {"frame_mask": np.arange(len(mask)) < len(kept)}


def _film(example: Example, rng) -> dict[str, np.ndarray]:
  grey = (example["frames"] @ _GREY)[..., None]
  light = 1 + _FLICKER * rng.uniform(-1, 1, (len(grey), 1, 1, 1))
  grain = rng.normal(0, _GRAIN, grey.shape)
  return {"frames": np.repeat(_pixels(grey * light + grain), 3, axis=-1)}


def _pixels(values: np.ndarray) -> np.ndarray:
  return np.clip(np.round(values), 0, 255).astype(np.uint8)


DEGRADED: dict[str, Callable] = {
  "compressed_video": _compressed,
  "noisy_video": _noisy,
  "slow_video": _slow,
  "film_video": _film,
}
