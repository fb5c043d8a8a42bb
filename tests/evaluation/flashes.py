"""Clips that flash and click, and a model that clicks where frames flash."""

import numpy as np

from data_pipelines import schema
from data_pipelines.loader_config import LoaderConfig
from v2a_jax import media
from v2a_jax.evaluation import runner

RATE, FPS, SECONDS = 8000, 25, 2.0


def clicks(times, seconds=SECONDS):
  """Returns decaying clicks at given times, over quiet noise."""
  sound = 1e-4 * np.random.default_rng(0).standard_normal(round(RATE * seconds))
  for time in times:
    start = round(time * RATE)
    tail = np.arange(min(800, len(sound) - start))
    sound[start : start + len(tail)] += np.sin(tail) * np.exp(-tail / 100) / 2
  return sound.astype(np.float32)[:, None]


def make_record(index, split, **changes):
  """Makes a record with events on and off screen, at times of its own."""
  rng = np.random.default_rng(index)
  seen = np.round(np.sort(rng.choice(np.arange(4, 44, 6), 3, False)) / FPS, 4)
  frames = np.full((round(FPS * SECONDS), 16, 16, 3), 30 + 3 * index, np.uint8)
  for time in seen:
    first = round(time * FPS)
    frames[first : first + 2] = 220
  unseen = [1.9]
  events = [
    {"time": float(t), "kind": "flash", "on_screen": t not in unseen}
    for t in [*seen, *unseen]
  ]
  fields = dict(
    id=f"clip{index}",
    video=media.encode_video(frames, fps=FPS),
    audio=media.encode_flac(clicks([*seen, *unseen]), RATE),
    duration=SECONDS,
    caption=f"a lamp flashes {index} times",
    events=events,
    label="flash",
    split=split,
  )
  return schema.make_record(**(fields | changes))


class Follower:
  """A model that clicks wherever its frames turn bright, and knows no words."""

  sample_rate = RATE
  see = None
  size = {"parameters": 1000, "precision": "float32"}  # noqa: RUF012

  def __init__(self, data, *, path="", broken=()):
    self.loader_config = LoaderConfig(
      paths=(str(data),),
      seconds=SECONDS,
      fps=FPS,
      frame_size=16,
      sample_rate=RATE,
      channels=1,
    )
    self._path, self._broken = str(path), broken
    self.seeds = []

  def sample(self, cond, *, seed, seconds, sampler):
    self.seeds.append([int(one) for one in seed])
    sounds = []
    for i, frames in enumerate(cond.frames):
      bright = frames.mean(axis=(1, 2, 3)) > 130
      rises = np.flatnonzero(bright[1:] & ~bright[:-1]) + 1
      sounds.append(clicks(cond.frame_times[i][rises]))
      if seed[i] in self._broken:
        sounds[-1][100] = np.nan
    return np.stack(sounds)

  def reconstruct(self, audio):
    return 0.9 * audio

  def describe(self):
    return {
      "name": "follower",
      "checkpoint": {
        "path": self._path,
        "step": 7,
        "sha256": "",
        "train_seconds": 3.0,
        "clips_seen": 56,
      },
      "config": {"model": {"width": 1}},
      "sampler": {"num_steps": 1},
    }


class Mean:
  """An embedding of one number per window, without weights."""

  id, sha256, dim = "mean", "0", 1
  sample_rate, window, hop = RATE, 0.5, 0.5
  repeats = False

  def __init__(self, path=None):
    pass

  def apply(self, windows):
    level = np.abs(windows).mean(axis=1, keepdims=True)
    return level, level


_CALL = ("metrics", "weights_path", "eligible", "log")


def evaluate_quickly(data, out, *, tracker=None, **settings):
  """Evaluates a `Follower`, or another system, without media and log."""
  call = {k: settings.pop(k) for k in _CALL if k in settings}
  return runner.evaluate(
    tracker or Follower(data),
    data=data,
    out=out,
    options=runner.Options(**{"gallery_clips": 0} | settings),
    **{"log": lambda line: None} | call,
  )


def value_of(content, row, metric):
  """Returns a row's entry for a metric."""
  (row,) = [r for r in content["rows"] if r["name"] == row]
  return row["metrics"][metric]
