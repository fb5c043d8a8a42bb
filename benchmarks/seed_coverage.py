"""How often intervals of arms of training seeds hold the truth.

  python -m benchmarks.seed_coverage --repeats 400

Arms have 3 and 5 training seeds. Scores have a part that is the clip's (`shared`
of its variance), one that is the model's on the clip, and one of the seed, whose
standard deviation is that of clips' means times `apart`. Beside it is what
resampling seeds and then clips gives.
"""

import argparse

import numpy as np

from benchmarks.interval_coverage import SIZES
from benchmarks.set_coverage import REFERENCE, features
from v2a_jax.evaluation import intervals, training_seeds
from v2a_jax.evaluation.metrics import frechet
from v2a_jax.hearing import embeddings


class Scores:
  """Scores of arms on the same clips, of which the mean is 0 in truth."""

  def __init__(self, rng, n: int, *, skewed: bool, shared: float, apart: float):
    self._rng, self._skewed, self._shared = rng, skewed, shared
    self._apart, self._own = apart / np.sqrt(n), self._values(1, n)

  def _values(self, *shape) -> np.ndarray:
    if self._skewed:
      return self._rng.exponential(size=shape) - 1
    return self._rng.normal(size=shape)

  def terms(self, seeds: int) -> np.ndarray:
    """Draws an arm, [seeds, clips, 1, 2]."""
    rest = self._values(seeds, self._own.shape[1])
    scores = np.sqrt(self._shared) * self._own
    scores = scores + np.sqrt(1 - self._shared) * rest
    scores += self._apart * self._rng.normal(size=(seeds, 1))
    return np.stack([scores, np.ones_like(scores)], -1)[:, :, None]


class OnsetCounts:
  """Counts of onsets of arms on the same clips.

  Models' shares of hits are `apart` by chance.
  """

  def __init__(self, rng, n: int, *, apart: float):
    self._rng, self._apart = rng, apart
    self._share = 0.25 + 0.5 * rng.beta(3, 2, n)
    self._events = rng.poisson(4, n) + 1

  def terms(self, seeds: int) -> np.ndarray:
    size = (seeds, len(self._share))
    share = self._share + self._apart * self._rng.normal(size=(seeds, 1))
    detected = self._rng.poisson(4, size) + 1
    matched = np.minimum(self._events, detected)
    hits = self._rng.binomial(matched, np.clip(share, 0, 1))
    total = np.broadcast_to(self._events, size) + detected
    return np.stack([2.0 * hits, total], -1)[:, :, None]


class Distances:
  """Fréchet distances of arms, whose models are moved by as much as `apart`.

  Embeddings have 12 dimensions and 4 windows a clip, the reference 128 clips of
  the same covariance, so that the distance is the square of the shift.
  """

  shift = 0.8
  _scale = 0.8 ** np.arange(12)

  def __init__(self, rng, n: int, *, apart: float):
    self._rng, self._apart = rng, apart
    self._own = self._clips(n)
    self._reference = self._features(self._clips(REFERENCE), 0.0)

  def _clips(self, n: int) -> np.ndarray:
    return self._rng.normal(size=(n, 1, 12)) * self._scale

  def _features(self, clips, shift: float) -> embeddings.Features:
    windows = self._rng.normal(size=(len(clips), 4, 12)) * self._scale
    windows = clips + windows
    windows[..., 0] += shift
    return features(windows)

  def models(self, seeds: int) -> list[intervals.Estimate]:
    """Draws an arm; half of the variance of clips is shared."""
    found = []
    for move in self._apart * self._rng.normal(size=seeds):
      rest = self._clips(len(self._own))
      made = np.sqrt(0.5) * (self._own + rest)
      made = self._features(made, self.shift + move)
      found.append(frechet.frechet(made, self._reference))
    return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--repeats", type=int, default=100)
  parser.add_argument("--case", default="", help="only cases with this in them")
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  cases = {}
  for apart in (0, 2, 6):
    for skewed, shared in ((False, 0.5), (True, 0.5), (True, 0.1)):
      kind = "exponential" if skewed else "normal"
      cases[f"{kind} scores, shared {shared}, apart {apart}"] = (
        lambda n, o=dict(skewed=skewed, shared=shared, apart=apart): Scores(
          rng, n, **o
        ),
        0.0,
      )
    of_hits = lambda n, apart=apart: 0.3 * apart / np.sqrt(n)
    cases[f"onset F1, apart {apart}"] = (
      lambda n, own=of_hits: OnsetCounts(rng, n, apart=own(n)),
      lambda n, own=of_hits: _true_f1(rng, own(n)),
    )
  for apart in (0.0, 0.05, 0.15):
    cases[f"FAD, apart {apart}"] = (
      lambda n, apart=apart: Distances(rng, n, apart=apart),
      Distances.shift**2 + apart**2,
    )
  sizes = [(count, n) for count in (3, 5) for n in SIZES]
  heads = [f"{count} seeds, {n} clips" for count, n in sizes]
  print(f"| case | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
  for name, (make, value) in cases.items():
    if args.case not in name:
      continue
    truths = [value(n) if callable(value) else value for _, n in sizes]
    found = [
      _of_seeds(make, truth, *size, args.repeats)
      for truth, size in zip(truths, sizes)
    ]
    for row, what in enumerate(("", "difference of ", "resampled: ")):
      cells = [f"{100 * of[row]:.1f}" for of in found]
      cells = [cell.replace("nan", "") for cell in cells]
      print(f"| {what}{name} | {' | '.join(cells)} |", flush=True)


def _true_f1(rng, apart: float) -> float:
  """Returns the mean of models' ratios over seeds, of very many clips."""
  sums = OnsetCounts(rng, 4000, apart=apart).terms(1000).sum(1)[:, 0]
  return float((sums[:, 0] / sums[:, 1]).mean())


def _of_seeds(make, truth, count: int, n: int, repeats: int) -> np.ndarray:
  """Returns the shares of intervals that hold the truth, by what they are of."""
  held = np.zeros(3)
  for _ in range(repeats):
    clips = make(n)
    if isinstance(clips, Distances):
      models, others = clips.models(count), clips.models(count)
      one, other = _of_parts(models), _of_parts(others)
    else:
      one, other = clips.terms(count), clips.terms(count)
      models = [
        intervals.weighted_ratios(terms, (1,), draws=1000) for terms in one
      ]
    arm = training_seeds.Arm(one)
    row = training_seeds.mean(models, arm.parts)
    arms = [arm, training_seeds.Arm(other, (-1,))]
    gap, _ = training_seeds.estimate(arms, draws=1000)
    held += [
      np.nan if np.isnan(row.low) else row.low <= truth <= row.high,
      gap.low <= 0 <= gap.high,
      np.prod(_resampled(one) - truth) <= 0,
    ]
  return held / repeats


def _of_parts(models) -> np.ndarray:
  parts = np.stack([model.parts for model in models])
  return np.stack([parts, np.ones_like(parts)], -1)[:, :, None]


def _resampled(terms: np.ndarray, draws: int = 500) -> np.ndarray:
  """Returns percentiles of means over resampled seeds and clips."""
  rng = np.random.default_rng(0)
  count, n = terms.shape[:2]
  sums = rng.multinomial(n, np.full(n, 1 / n), draws) @ terms[:, :, 0]
  ratios = sums[..., 0] / sums[..., 1]  # [seeds, draws]
  drawn = rng.integers(count, size=(count, draws))
  means = np.take_along_axis(ratios, drawn, 0).mean(0)
  return np.quantile(means, [0.025, 0.975])


if __name__ == "__main__":
  main()
