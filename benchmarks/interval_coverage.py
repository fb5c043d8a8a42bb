"""How often 95 % intervals hold the truth.

  python -m benchmarks.interval_coverage clips
  python -m benchmarks.interval_coverage seeds
  python -m benchmarks.interval_coverage embed DIR_A -o a.npz  # of sounds
  python -m benchmarks.interval_coverage sets a.npz [b.npz] --repeats 100

`clips` simulates scores of clips. `seeds` simulates arms of 3 and 5 training
seeds, whose scores have a part that is the clip's (`shared` of its variance), one
that is the model's on the clip, and one of the seed, whose standard deviation is
that of clips' means times `apart`; beside it is what resampling seeds and then
clips gives. `sets` draws sets of n clips and a reference of 128, for n of 16, 48
and 128, in four ways:

  gauss  windows with the means and the covariances, between clips and within
         clips, of the embeddings in a.npz, and a reference of those in b.npz
         (without it of a.npz too, so that the distance is 0); the truth is a
         closed form; also the difference to a row like the reference
  own    as gauss, but the reference are the true sounds of the same n clips, of
         which a clip's part of the set depends on a share (`--shared`): how
         `v2a eval` measures folders of sounds; also for a set of the same moments
         as its reference, of which the distance is 0, and the difference of the
         two
  halves real clips of a.npz, half of them the set and others the reference:
         the truth is 0
  drawn  real clips of a.npz drawn with replacement, which makes the score of
         all of them the truth of the inception score
"""

import argparse
import pathlib

import numpy as np

from v2a_jax import media
from v2a_jax.evaluation import intervals, training_seeds
from v2a_jax.evaluation.metrics import frechet, inception, kernel, own_truth
from v2a_jax.evaluation.metrics.offset import median_with_spread
from v2a_jax.hearing import embeddings

SIZES = (16, 48, 128)
REFERENCE = 128


def report(name: str, found: list, truths) -> None:
  """Prints coverage, misses on each side, bias and width."""
  found = [(e.low, e.high, e.value) for e in found]
  low, high, value = np.array(found, float).T
  truths = np.broadcast_to(truths, low.shape)
  inside = np.mean((low <= truths) & (truths <= high))
  error = 100 * np.sqrt(inside * (1 - inside) / len(low))
  print(
    f"| {name} | {100 * inside:.1f} ± {error:.1f}"
    f" | {100 * np.mean(truths < low):.1f} / {100 * np.mean(truths > high):.1f}"
    f" | {np.mean(value - truths):+.3f} | {value.std(ddof=1):.3f}"
    f" | {np.mean(high - low):.3f} | {len(low)} |",
    flush=True,
  )


HEAD = (
  "| case | covered % | truth below / above % | bias | sd | width | repeats |\n"
  "|---|---:|---:|---:|---:|---:|---:|"
)


def _onsets(rng, n):
  """Draws 2 hits and reference + detected of clips of different difficulty."""
  reference = rng.poisson(4, n) + 1
  detected = rng.poisson(4, n) + 1
  share = rng.beta(3, 2, n)
  hits = rng.binomial(np.minimum(reference, detected), share)
  return 2.0 * hits, (reference + detected).astype(float)


def clips(repeats: int) -> None:
  rng = np.random.default_rng(0)
  above, below = _onsets(np.random.default_rng(1), 2_000_000)
  ratio = above.sum() / below.sum()
  normal = lambda n: intervals.mean(rng.normal(size=n), draws=2000)
  skewed = lambda n: intervals.mean(rng.exponential(size=n), draws=2000)
  f1 = lambda n: intervals.ratio(*_onsets(rng, n))

  def paired(n):
    one, (two, total) = _onsets(rng, n), _onsets(rng, n)
    return intervals.ratio_difference(*one, two, total)

  cases = {
    "mean, normal scores": (normal, 0.0),
    "mean, exponential scores": (skewed, 1.0),
    "onset F1": (f1, ratio),
    "difference of onset F1": (paired, 0.0),
    "share of clips, 10 %": (
      lambda n: intervals.share(rng.random(n) < 0.1),
      0.1,
    ),
    "median offset": (lambda n: median_with_spread(rng.standard_t(2, n)), 0.0),
  }
  print(HEAD)
  for name, (draw, truth) in cases.items():
    for n in SIZES:
      report(f"{name}, {n} clips", [draw(n) for _ in range(repeats)], truth)


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
    return _features(windows)

  def models(self, seeds: int) -> list[intervals.Estimate]:
    """Draws an arm; half of the variance of clips is shared."""
    found = []
    for move in self._apart * self._rng.normal(size=seeds):
      rest = self._clips(len(self._own))
      made = np.sqrt(0.5) * (self._own + rest)
      made = self._features(made, self.shift + move)
      found.append(frechet.frechet(made, self._reference))
    return found


def seeds(repeats: int, only: str = "") -> None:
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
    if only not in name:
      continue
    truths = [value(n) if callable(value) else value for _, n in sizes]
    found = [
      _of_seeds(make, truth, *size, repeats)
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


def read_sounds(paths, rate: int) -> list[np.ndarray]:
  """Reads at most 10 s of sounds in mono."""
  read = lambda path: media.read_audio(
    path, sample_rate=rate, channels=1, duration=10.0
  )
  return [read(path).samples for path in paths]


def embed(folder: pathlib.Path, out: pathlib.Path, weights) -> None:
  network = embeddings.Mn04(weights)
  kinds = (".wav", ".flac", ".ogg")
  paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds)
  rate = network.sample_rate
  features = embeddings.embed(
    network, read_sounds(paths, rate), sample_rate=rate
  )
  np.savez(out, **vars(features))
  print(f"{len(paths)} sounds, {len(features.vectors)} windows -> {out}")


class Gauss:
  """Clips of which the mean and the windows are Gaussian, as in real ones."""

  def __init__(self, path):
    with np.load(path) as file:
      vectors, clips = file["vectors"].astype(float), file["clips"]
    count, self.windows = clips.max() + 1, len(vectors) // (clips.max() + 1)
    means = np.stack([vectors[clips == i].mean(0) for i in range(count)])
    rest = vectors - means[clips]
    within = rest.T @ rest / (len(vectors) - count)
    between = np.cov(means, rowvar=False) - within / self.windows
    self.mean = means.mean(0)
    self.roots = [_root(between), _root(within)]
    self.covariance = sum(root @ root for root in self.roots)

  def draw(self, n, rng, shared=None) -> embeddings.Features:
    """Draws clips; `shared` has standard normal numbers that they are made of."""
    if shared is None:
      shared = (self.normal(n, rng), 1.0)
    numbers, weight = shared
    own, windows = (
      np.sqrt(weight) * x[:, : self.windows] + np.sqrt(1 - weight) * y
      for x, y in zip(numbers, self.normal(n, rng))
    )
    own, windows = own @ self.roots[0], windows @ self.roots[1]
    return _features((self.mean + own + windows).astype(np.float32))

  def normal(self, n, rng) -> list[np.ndarray]:
    """Draws standard normal numbers of clips and of their windows."""
    d = len(self.mean)
    return [rng.normal(size=(n, k, d)) for k in (1, self.windows)]


def _root(matrix) -> np.ndarray:
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _features(windows) -> embeddings.Features:
  n, k, d = windows.shape
  clips = np.repeat(np.arange(n), k)
  return embeddings.Features(windows.reshape(-1, d), clips, np.zeros((n, 1)))


def true_frechet(a: Gauss, b: Gauss) -> float:
  root = _root(a.covariance)
  cross = np.linalg.eigvalsh(root @ b.covariance @ root)
  apart = np.square(a.mean - b.mean).sum()
  spread = np.trace(a.covariance) + np.trace(b.covariance)
  return apart + spread - 2 * np.sqrt(np.maximum(cross, 0)).sum()


def true_kernel(a: Gauss, b: Gauss, y: embeddings.Features) -> float:
  """Returns the kernel distance with the bandwidth of the reference `y`."""
  gamma = 1 / (2 * kernel.median_distance(y.vectors) ** 2 + 1e-8)

  def mean(one, two):
    apart = one.mean - two.mean
    wide = np.eye(len(apart)) + 2 * gamma * (one.covariance + two.covariance)
    _, log_size = np.linalg.slogdet(wide)
    return np.exp(-log_size / 2 - gamma * apart @ np.linalg.solve(wide, apart))

  return 100 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))


def sets(paths, repeats: int, kinds, sizes, shared=0.5, only="") -> None:
  rng = np.random.default_rng(0)
  a, b = Gauss(paths[0]), Gauss(paths[-1])
  print(HEAD)
  for n in sizes if "gauss" in kinds else ():
    fads, kads, truths, gaps = [], [], [], []
    for _ in range(repeats):
      x, y = a.draw(n, rng), b.draw(REFERENCE, rng)
      fads.append(frechet.frechet(x, y))
      kads.append(kernel.kernel_distance(x, y))
      truths.append(true_kernel(a, b, y))
      other = frechet.frechet(b.draw(n, rng), y)
      gaps.append(intervals.mean(fads[-1].parts - other.parts))
    report(f"FAD, gauss, {n} clips", fads, true_frechet(a, b))
    report(f"KAD, gauss, {n} clips", kads, truths)
    report(f"FAD less FAD of b, {n} clips", gaps, true_frechet(a, b))
  for n in sizes if "own" in kinds else ():
    own(a, b, n, shared, repeats, rng, only)
  real(paths[0], repeats, kinds, sizes, rng)


def own(a: Gauss, b: Gauss, n: int, shared, repeats, rng, only="") -> None:
  far = true_frechet(a, b)
  of = {"FAD": frechet.frechet, "KAD": kernel.kernel_distance}
  of = {label: metric for label, metric in of.items() if only in label}
  found = {(label, name): [] for label in of for name in "ab"}
  truths = {label: [] for label in of}
  for _ in range(repeats):
    numbers = b.normal(n, rng)
    truth = b.draw(n, rng, (numbers, 1.0))
    for label in of:
      apart = far if label == "FAD" else true_kernel(a, b, truth)
      truths[label].append(apart)
    for name, kind in (("a", a), ("b", b)):
      x = kind.draw(n, rng, (numbers, shared))
      y = own_truth.paired(x, truth)
      for label, metric in of.items():
        found[label, name].append(metric(x, y, own=True).at_least(0))
  for label in of:
    one, other = (found[label, name] for name in "ab")
    gaps = [intervals.mean(x.parts - y.parts) for x, y in zip(one, other)]
    report(f"{label}, own, a, {n} clips", one, truths[label])
    report(f"{label}, own, b, {n} clips", other, 0)
    report(f"{label}, own, a less b, {n} clips", gaps, truths[label])


def real(path, repeats, kinds, sizes, rng) -> None:
  with np.load(path) as file:
    features = embeddings.Features(
      file["vectors"], file["clips"], file["logits"]
    )
  count = len(features.logits)
  parts = features.split()

  def joined(chosen):
    vectors = [parts[i].vectors for i in chosen]
    clips = np.repeat(np.arange(len(chosen)), [len(v) for v in vectors])
    logits = features.logits[chosen]
    return embeddings.Features(np.concatenate(vectors), clips, logits)

  for n in sizes if "halves" in kinds else ():
    pairs = []
    for _ in range(repeats):
      order = rng.permutation(count)
      other = order[n : n + min(REFERENCE, count - n)]
      pairs.append((joined(order[:n]), joined(other)))
    report(f"FAD, halves, {n} clips", [frechet.frechet(*p) for p in pairs], 0)
    kads = [kernel.kernel_distance(*p) for p in pairs]
    report(f"KAD, halves, {n} clips", kads, 0)
  truth = inception.inception_score(features.logits).extras["plug_in"]
  for n in sizes if "drawn" in kinds else ():
    scores = [
      inception.inception_score(features.logits[rng.integers(count, size=n)])
      for _ in range(10 * repeats)
    ]
    report(f"IS, drawn, {n} clips", scores, truth)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("what", choices=["clips", "seeds", "embed", "sets"])
  parser.add_argument("paths", nargs="*", type=pathlib.Path)
  parser.add_argument("-o", "--output", type=pathlib.Path)
  parser.add_argument("--weights", help="file or folder of mn04's weights")
  parser.add_argument("--repeats", type=int, default=100)
  parser.add_argument("--clips", nargs="*", type=int, default=SIZES)
  parser.add_argument(
    "--case", default="", help="only seeds or own of this name"
  )
  parser.add_argument(
    "--kinds", nargs="*", default=["gauss", "own", "halves", "drawn"]
  )
  parser.add_argument("--shared", type=float, default=0.5)
  args = parser.parse_args()
  if args.what == "clips":
    clips(args.repeats)
  elif args.what == "seeds":
    seeds(args.repeats, args.case)
  elif args.what == "embed":
    embed(args.paths[0], args.output, args.weights)
  else:
    own_case = args.shared, args.case
    sets(args.paths, args.repeats, args.kinds, args.clips, *own_case)


if __name__ == "__main__":
  main()
