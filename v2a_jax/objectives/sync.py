"""Training of the judge of synchronisation: how far was the sound moved?

From each clip a window of picture and sound is cut, the sound d seconds earlier
in the clip, so that it is heard d too late. All of it is real sound: neither
silence nor an edge gives d away. Some rows get a sound that does not belong to
the picture, and the answer "none". With p the probabilities of lags and of none
(`sync/network.py`),

  L = -sum_i q_i log p_i,  q_i ~ exp(-((lag_i - d) / 15 ms)^2 / 2), or none
"""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.batch import Batch
from v2a_jax.parallel import rows
from v2a_jax.sync import augment, inputs
from v2a_jax.sync.network import FPS, RATE, STEP, SyncConfig, SyncJudge
from v2a_jax.sync.verdict import Verdict

_WIDTH = 0.015  # seconds
_SHORTEST = 1.2  # seconds of a window
KINDS = ("true", "other", "silence", "clicks")  # of sound


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncObjective:
  """Trains a `SyncJudge`; see the module's docstring.

  Attributes:
    seconds: length of the window in seconds; the clips are longer by twice the
      largest lag or more.
    other_rate: share of the rows whose sound is of another clip, in [0, 1].
    silence_rate: share of the rows without sound but for noise.
    clicks_rate: share of the rows whose sound is strokes at other times.
    augment: whether pictures and sounds are changed as other cameras and
      microphones would.
  """

  family: ClassVar[str] = "sync"
  needs: ClassVar = ()

  seconds: float = 3.0
  other_rate: float = 0.15
  silence_rate: float = 0.05
  clicks_rate: float = 0.08
  augment: bool = True

  def __post_init__(self):
    rates = ("other_rate", "silence_rate", "clicks_rate")
    settings.check(self, seconds="[1.2, inf)", **dict.fromkeys(rates, "[0, 1]"))
    if sum(getattr(self, name) for name in rates) > 1:
      raise settings.SettingError(
        f"other_rate={self.other_rate} + silence_rate={self.silence_rate} +"
        f" clicks_rate={self.clicks_rate} is more than 1"
      )

  def loss(
    self, model: SyncJudge, batch: Batch, *, key: jax.Array, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns loss [b] and metrics of [b].

    Without `train` all sounds are true, nothing is augmented and windows are
    whole; the lag is drawn all the same.
    """
    keys, kind = self._draws(batch, key=key, train=train)
    change = train and self.augment
    self._check(batch, model.config)
    view = _Window(self, model.config, change=change, train=train)
    late, grey, *rest = jax.vmap(view.cut)(keys, batch, _partners(batch), kind)
    if change:
      grey = view.develop(keys, grey, kind)
    verdict = Verdict(model(grey, *rest), model.config.offsets)
    lags = jnp.asarray(verdict.offsets / 1000)
    near = jax.nn.softmax(
      -(((lags - late[:, None]) / _WIDTH) ** 2) / 2, axis=-1
    )
    true = (kind == 0)[:, None]
    wanted = jnp.concatenate([near * true, ~true], axis=-1)
    loss = -(wanted * jax.nn.log_softmax(verdict.logits)).sum(-1)
    return loss, _measure(verdict, late, kind)

  def evaluate(
    self, model: SyncJudge, batch: Batch, *, key: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns `loss`, `within_40ms` and `error_ms` of true sounds, and `first`.

    The last is 1 where the true sound is likelier to be in time than itself 160
    ms late and than another clip's; NaN for a batch of one clip.
    """
    loss, metrics = self.loss(model, batch, key=key, train=False)
    view = _Window(self, model.config, change=False, train=False)
    keys, kind = self._draws(batch, key=key, train=False)
    other = _partners(batch)

    def in_time(kind, late):
      cut = lambda *args: view.cut(*args, late=late)
      _, *seen = jax.vmap(cut)(keys, batch, other, kind)
      return Verdict(model(*seen), model.config.offsets).in_time

    true, moved = in_time(kind, 0.0), in_time(kind, 0.16)
    rival = jnp.maximum(moved, in_time(kind + 1, 0.0))
    first = jnp.where(_has_partner(len(loss)), true > rival, jnp.nan)
    metrics = {k: v for k, v in metrics.items() if k != "none"}
    return metrics | {"loss": loss, "first": first.astype(jnp.float32)}

  def _check(self, batch: Batch, config: SyncConfig) -> None:
    """Refuses clips in which no window can be moved by the largest lag.

    Raises:
      SettingError: says how long clips must be.
    """
    total, reach = batch.audio.shape[1] / RATE, config.reach * STEP / RATE
    if total < self.seconds + 2 * reach - 1e-6:
      raise settings.SettingError(
        f"seconds={self.seconds:g} does not go with data of {total:g} s and lags"
        f" of {reach:g} s: set objective.seconds to at most"
        f" {total - 2 * reach:g}, or data.seconds to more"
      )

  def _draws(self, batch: Batch, *, key: jax.Array, train: bool):
    """Draws a key and the kind of sound, an index of `KINDS`, for each row."""
    b = len(batch.audio)
    first, second = jax.random.split(key)
    keys = rows.draw(lambda key, shape: key, first, (b,))
    share = rows.draw(jax.random.uniform, second, (b,))
    ends = jnp.cumsum(
      jnp.array([self.other_rate, self.silence_rate, self.clicks_rate])
    )
    kind = 1 + (share[:, None] >= ends).sum(1)
    kind = jnp.where(kind > len(ends), 0, kind)
    kind = jnp.where((kind == 1) & ~_has_partner(b), 0, kind)
    return keys, kind if train else jnp.zeros_like(kind)


@dataclasses.dataclass(frozen=True)
class _Window:
  """Cuts the window of one clip.

  Attributes:
    objective: settings.
    config: sizes of the network.
    change: whether picture and sound are augmented.
    train: whether the window has any place and any length.
  """

  objective: SyncObjective
  config: SyncConfig
  change: bool
  train: bool

  def cut(self, key, clip: Batch, other, kind, late=None):
    """Returns (seconds late, grey, frame mask, sound, sound mask) of a clip.

    Args:
      key: random key.
      clip: a batch without its first axis.
      other: another clip, likewise.
      kind: index of `KINDS`.
      late: seconds that the sound is late; None to draw them.
    """
    keys = iter(jax.random.split(key, 12))
    seconds, total = self.objective.seconds, len(clip.audio) / RATE
    reach = self.config.reach * STEP / RATE
    spare = total - seconds - 2 * reach + 1e-6
    drawn = jax.random.uniform(next(keys), minval=-reach, maxval=reach)
    late = drawn if late is None else late
    # On a frame: at other times pictures would be seen late, always by as much.
    later = jnp.floor(jax.random.uniform(next(keys)) * (spare * FPS + 1))
    start = reach + later / FPS * self.train
    begin, end = self._part(next(keys))
    grey, frame_mask = self._picture(next(keys), clip.cond, start)
    first = jnp.round((start - late) * RATE).astype(int)
    count = 2 * round(seconds * FPS) * STEP
    part = lambda x: jax.lax.dynamic_slice_in_dim(x.audio[:, 0], first, count)
    sounds = [part(clip), part(other), jnp.zeros(count)]
    sounds += [augment.clicks(next(keys), count)] if self.train else []
    sound = jnp.stack(sounds)[kind]
    if self.change:
      sound = augment.heard(next(keys), sound)
    steps = jnp.arange(count // STEP) * STEP / RATE
    there = (steps >= begin) & (steps < end)
    there &= (steps + start - late < clip.duration) | (kind > 0)
    sound = sound * jnp.repeat(there, STEP)
    if self.change:
      sound *= self._faded(next(keys), jnp.arange(count) / RATE)
    steps = jnp.arange(len(frame_mask)) / FPS
    frame_mask &= (steps >= begin) & (steps < end)
    return late, grey, frame_mask, sound, there

  def develop(self, keys, grey: jax.Array, kind: jax.Array) -> jax.Array:
    """Changes grey frames [b n h w] as `augment` does, with keys and kinds [b].

    Where another clip is heard, it is not seen.
    """
    over = grey[_pairs(len(grey))]
    over = jnp.where((kind == 1)[:, None, None, None], grey, over)

    def develop(key, grey, over):
      first, second = jax.random.split(jax.random.fold_in(key, 1))
      return augment.exposed(second, augment.filmed(first, grey, over))

    return jax.vmap(develop)(keys, grey, over)

  def _part(self, key):
    """Draws where the clip begins and ends in the window, in seconds."""
    seconds, keys = self.objective.seconds, jax.random.split(key, 3)
    if not self.train:
      return 0.0, seconds
    length = jax.random.uniform(keys[0], minval=_SHORTEST, maxval=seconds)
    whole = jax.random.bernoulli(keys[1], 0.4)
    length = jnp.where(whole, seconds, length)
    begin = jax.random.uniform(keys[2]) * (seconds - length)
    return begin, begin + length

  def _picture(self, key, cond, start):
    """Returns grey frames and their mask from `start` seconds on."""
    keys = jax.random.split(key)
    times = jnp.arange(round(self.objective.seconds * FPS)) / FPS
    seen = times + start
    if self.change:
      seen = augment.slowed(keys[0], seen)
    index, mask = inputs.shown(cond.frame_times, cond.frame_mask, seen)
    n = len(times)
    framing = augment.framing(keys[1], n) if self.change else inputs.whole(n)
    grey = inputs.look(cond.frames[index], framing, self.config.pixels)
    return grey, mask

  def _faded(self, key, times):
    """Draws silence at the start or the end, whatever the lag: a factor [t]."""
    keys = jax.random.split(key, 3)
    length = jax.random.uniform(keys[0], minval=0.0, maxval=0.4)
    length *= jax.random.bernoulli(keys[1], 0.3)
    last = times[-1] - length
    at_start = jax.random.bernoulli(keys[2], 0.5)
    return jnp.where(at_start, times >= length, times <= last)


def _partners(batch: Batch) -> Batch:
  """Returns for each row the other row of its pair.

  Pairs are rows 2i and 2i + 1; devices and microbatches have whole pairs where
  their rows are even in number, so the loss is the same on any mesh.
  """
  index = _pairs(len(batch.audio))
  return jax.tree.map(lambda x: x[index], batch)


def _pairs(b: int) -> np.ndarray:
  """Returns for each of b rows the other row of its pair; for a last one itself."""
  return np.minimum(np.arange(b) ^ 1, b - 1)


def _has_partner(b: int) -> jax.Array:
  return (jnp.arange(b) ^ 1) < b


def _measure(verdict: Verdict, late, kind) -> Mapping[str, jax.Array]:
  """Measures rows of true sounds; in the mean over rows the others count 0.

  Their sums are divided by the share of the rows that they are of.
  """
  true = kind == 0
  count, b = rows.total(true.sum()), rows.total(len(true))
  share = jnp.maximum(count, 1) / b
  error = jnp.abs(verdict.offset - 1000 * late)
  right = (verdict.none > 0.5) == ~true
  return {
    "within_40ms": jnp.where(true, error <= 40, 0) / share,
    "error_ms": jnp.where(true, error, 0) / share,
    "none": right.astype(jnp.float32),
  }
