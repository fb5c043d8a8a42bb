"""How often intervals of distances of sets hold the truth.

  python -m benchmarks.set_coverage embed DIR_A -o a.npz  # of sounds
  python -m benchmarks.set_coverage draw a.npz [b.npz] --repeats 100

`draw` draws sets of n clips and a reference of 128, for n of 16, 48
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

from benchmarks.interval_coverage import HEAD, SIZES, report
from v2a_jax import media
from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import frechet, inception, kernel, own_truth
from v2a_jax.hearing import embeddings

REFERENCE = 128  # clips


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
    return features((self.mean + own + windows).astype(np.float32))

  def normal(self, n, rng) -> list[np.ndarray]:
    """Draws standard normal numbers of clips and of their windows."""
    d = len(self.mean)
    return [rng.normal(size=(n, k, d)) for k in (1, self.windows)]


def _root(matrix) -> np.ndarray:
  values, vectors = np.linalg.eigh(matrix)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def features(windows: np.ndarray) -> embeddings.Features:
  """Returns features of clips of equally many windows, [clips, windows, d]."""
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


def draw(paths, repeats: int, kinds, sizes, shared=0.5, only="") -> None:
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
    whole = embeddings.Features(file["vectors"], file["clips"], file["logits"])
  count = len(whole.logits)
  parts = whole.split()

  joined = lambda chosen: embeddings.joined([parts[i] for i in chosen])

  for n in sizes if "halves" in kinds else ():
    pairs = []
    for _ in range(repeats):
      order = rng.permutation(count)
      other = order[n : n + min(REFERENCE, count - n)]
      pairs.append((joined(order[:n]), joined(other)))
    report(f"FAD, halves, {n} clips", [frechet.frechet(*p) for p in pairs], 0)
    kads = [kernel.kernel_distance(*p) for p in pairs]
    report(f"KAD, halves, {n} clips", kads, 0)
  truth = inception.inception_score(whole.logits).extras["plug_in"]
  for n in sizes if "drawn" in kinds else ():
    scores = [
      inception.inception_score(whole.logits[rng.integers(count, size=n)])
      for _ in range(10 * repeats)
    ]
    report(f"IS, drawn, {n} clips", scores, truth)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("what", choices=["embed", "draw"])
  parser.add_argument("paths", nargs="+", type=pathlib.Path)
  parser.add_argument("-o", "--output", type=pathlib.Path)
  parser.add_argument("--weights", help="file or folder of mn04's weights")
  parser.add_argument("--repeats", type=int, default=100)
  parser.add_argument("--clips", nargs="*", type=int, default=SIZES)
  parser.add_argument("--case", default="", help="only FAD or KAD, of own")
  parser.add_argument(
    "--kinds", nargs="*", default=["gauss", "own", "halves", "drawn"]
  )
  parser.add_argument("--shared", type=float, default=0.5)
  args = parser.parse_args()
  if args.what == "embed":
    embed(args.paths[0], args.output, args.weights)
  else:
    own_case = args.shared, args.case
    draw(args.paths, args.repeats, args.kinds, args.clips, *own_case)


if __name__ == "__main__":
  main()
