"""A trained judge from a bundle: frames and a sound in, a verdict out."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.sync import inputs
from v2a_jax.sync.network import FPS, RATE, STEP, SyncConfig, SyncJudge
from v2a_jax.sync.verdict import Verdict
from v2a_jax.weights import bundle

DEFAULT = "sync_tiny"
_STEPS = 150  # of a window, 3 s
VIEWS = (
  inputs.whole,
  inputs.mirrored,
  *(
    functools.partial(inputs.part, centre=(y, x), scale=0.7)
    for y in (0.35, 0.65)
    for x in (0.35, 0.65)
  ),
)
MEASURED = "measured"  # key of config.json: what the judge was found to do


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
  """A picture as the judge remembers it, in windows of 3 s.

  Attributes:
    starts: first step of each window.
    features: of each window and view, float [windows, views, t, k].
    masks: steps that there are, bool [windows, t].
  """

  starts: np.ndarray
  features: jax.Array
  masks: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
  """A trained network that compares sounds with pictures.

  A clip of more than 3 s is judged in windows of 3 s, at equal distances of at
  most 1.5 s, each picture whole, mirrored, and its parts (`VIEWS`); logarithms of
  the probabilities are averaged.

  Attributes:
    name: name of its bundle.
    sha256: digest of its weights.
    measured: what was measured of it, a sentence by what it was measured on.
    model: the network.
  """

  name: str
  sha256: str
  measured: Mapping[str, str]
  model: SyncJudge

  @property
  def pixels(self) -> int:
    """Height and width of the frames that it looks at."""
    return self.model.config.pixels

  @property
  def frame_size(self) -> tuple[int, int]:
    """Height and width to read pictures at: parts of them are seen, too."""
    return 2 * self.pixels, 2 * self.pixels

  @property
  def frame_rate(self) -> float:
    """Frame rate in Hz over which none is needed."""
    return 2 * FPS

  def look(self, frames: np.ndarray, times: np.ndarray, seconds: float) -> Seen:
    """Looks at a picture.

    Args:
      frames: uint8 [n, h, w, 3].
      times: seconds [n], ascending.
      seconds: length of the clip.
    """
    spare = max(seconds * RATE / STEP - _STEPS, 0)
    count = 1 + int(np.ceil(2 * spare / _STEPS - 1e-6))
    starts = 2 * np.round(np.linspace(0, spare / 2, count)).astype(int)
    features, masks = [], []
    known = jnp.ones(len(times), bool)
    for start in starts:
      at = start * STEP / RATE + jnp.arange(_STEPS // 2) / FPS
      index, mask = inputs.shown(jnp.asarray(times, jnp.float32), known, at)
      mask &= at < seconds
      features.append(self._watch(frames[np.asarray(index)], mask))
      masks.append(np.repeat(mask, 2))
    return Seen(starts, jnp.stack(features), np.stack(masks))

  def listen(self, seen: Seen, sound: np.ndarray, sample_rate: int) -> Verdict:
    """Judges a sound for a picture.

    Args:
      seen: the picture.
      sound: float [samples channels], from the same time on.
      sample_rate: Hz.
    """
    size = _STEPS * STEP
    sound = inputs.mono(sound, sample_rate)
    sound = sound[: len(sound) // STEP * STEP]
    whole = np.pad(sound, (0, size + int(seen.starts[-1]) * STEP))
    there = np.arange(len(whole) // STEP) < len(sound) // STEP
    logits = [
      self._compare(
        features, mask, whole[i * STEP :][:size], there[i:][:_STEPS]
      )
      for i, features, mask in zip(seen.starts, seen.features, seen.masks)
    ]
    return Verdict(jnp.stack(logits).mean(0), self.model.config.offsets)

  @functools.cached_property
  def _watch(self):
    graphdef, state = nnx.split(self.model)

    @jax.jit
    def watch(state, frames, mask):
      see = lambda view: inputs.look(frames, view(len(frames)), self.pixels)
      grey = jnp.stack([see(view) for view in VIEWS])
      masks = jnp.broadcast_to(mask, (len(VIEWS), len(mask)))
      return nnx.merge(graphdef, state).video(grey, masks)

    return functools.partial(watch, state)

  @functools.cached_property
  def _compare(self):
    graphdef, state = nnx.split(self.model)

    @jax.jit
    def compare(state, v, v_mask, sound, a_mask):
      model, views = nnx.merge(graphdef, state), len(v)
      of_all = lambda x: jnp.broadcast_to(x, (views, *x.shape))
      a = model.audio(sound[None], a_mask[None])[0]
      logits = model.compare(of_all(a), v, of_all(a_mask), of_all(v_mask))
      return jax.nn.log_softmax(logits).mean(0)

    return functools.partial(compare, state)


@functools.cache
def load(name: str = DEFAULT) -> Judge:
  """Reads a judge.

  Args:
    name: folder of a bundle, or its name in `assets/`.

  Raises:
    BundleError: there is none, it is damaged, or holds no judge.
  """
  folder = bundle.find(name)
  config = bundle.read_config(folder)
  sizes = _sizes(folder, config)
  make = lambda: sizes.make(rngs=nnx.Rngs(0))
  graphdef, state = nnx.split(nnx.eval_shape(make))
  return Judge(
    name=folder.name,
    sha256=bundle.digest(folder),
    measured=config.get(MEASURED, {}),
    model=nnx.merge(graphdef, bundle.load_state(folder, state)),
  )


def _sizes(folder, config: Mapping[str, Any]) -> SyncConfig:
  section = config.get("model", {})
  if section.get("name") != SyncConfig.family:
    raise bundle.BundleError(
      f"{folder} holds no judge of synchronisation, but model.name="
      f"{section.get('name')!r}: name a bundle of configs/sync_tiny.py"
    )
  try:
    return settings.build(SyncConfig, section, skip=("name",))
  except settings.SettingError as error:
    raise bundle.BundleError(f"{folder}: {error}") from None
