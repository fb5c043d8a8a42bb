"""Our own judge of synchronisation: a network over pixels and sound.

It compares a sound with the picture itself, not with the true sound, and gives
the probability of each lag within 480 ms and of "the sound is not of this
picture" (`sync/network.py`). Kept of a sound are

  in time   the probability that it is at most 80 ms early or late
  offset    the mean lag near the likeliest one, positive is late

The network was trained on scenes that no generator saw (`configs/sync_tiny.py`)
and conditions, starts and teaches no generator: nothing that is judged could
have learned to please it. Takes that it has chosen (`v2a generate --rank_by
sync_judge`) are not measured by it. What was measured of it on held-out pairs is
in its bundle, and stands beside its scores.
"""

import dataclasses
import functools

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.looks import Look
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.offset import median_with_spread
from v2a_jax.sync import bundled
from v2a_jax.sync.verdict import IN_TIME_MS


@dataclasses.dataclass(frozen=True)
class _Judged(base.ClipMetric):
  """A number that a judge gives.

  Attributes:
    judge: bundle of the judge: its folder, or its name in assets/.
  """

  judge: str = bundled.DEFAULT

  needs_video = needs_sight = True
  chosen_by = ("sync_judge",)

  @property
  def look(self) -> Look:
    return _look(self.judge)

  def facts(self, clips) -> dict[str, str]:
    judge = bundled.load(self.judge)
    return {"judge": f"{judge.name} {judge.sha256}", **judge.measured}

  def verdict(self, sample: base.Sample) -> tuple[float, float]:
    """Returns offset in ms and probability of being in time, of one sound."""
    return sample.cached(_by(self.judge))


class JudgedSync(_Judged):
  """Probability that a sound is in time with its picture."""

  id = "judged_sync"
  label = "In time (own judge)"
  bounds = (0.0, 1.0)
  direction = "higher"
  judges_timing = True
  about = (
    f"Mean probability, of a network that sees the picture and hears the sound,"
    f" that the sound is at most {IN_TIME_MS:.0f} ms early or late. A sound that"
    " belongs to another picture has little; so have noise and a metronome."
  )

  def get_state(self, sample: base.Sample) -> float:
    return self.verdict(sample)[1]

  def weakness(self, clips: int) -> str:
    found = bundled.load(self.judge).measured
    return "; ".join(f"{name}: {text}" for name, text in found.items())


class JudgedOffset(_Judged):
  """How late a sound is for its picture."""

  id = "judged_offset"
  label = "Offset (own judge)"
  unit = "ms"
  bounds = (-480.0, 480.0)
  direction = "none"
  role = "shown"
  about = (
    "Median over clips of the lag, within ±480 ms, at which the same network"
    " finds the sound to fit the picture best; positive is late. `spread` is the"
    " range of the middle half of the clips, some hundred where no lag fits."
  )

  def get_state(self, sample: base.Sample) -> float:
    return self.verdict(sample)[0]

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    return median_with_spread(self.values(states), seed=seed)


@functools.cache
def _by(judge: str):
  """Returns a function from a sample to (offset in ms, probability in time)."""

  def verdict(sample: base.Sample) -> tuple[float, float]:
    seen = (sample.truth or sample).cached(_seen(judge))
    found = bundled.load(judge).listen(
      seen, sample.waveform, sample.sample_rate
    )
    return float(found.offset), float(found.in_time)

  return verdict


@functools.cache
def _seen(judge: str):
  """Returns a function from a sample to its picture as the judge sees it."""
  return lambda sample: sample.clip.look(_look(judge))


@functools.cache
def _look(judge: str) -> Look:
  """Returns how a judge looks at a picture."""
  by = bundled.load(judge)
  see = lambda video, seconds: by.look(video.frames, video.times, seconds)
  size = lambda height, width: by.frame_size
  return Look(f"judge {judge}", by.frame_rate, size, see)
