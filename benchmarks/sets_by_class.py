"""Distances of one system's sounds to true ones of the same classes, by class.

  python -m benchmarks.sets_by_class TRUE GENERATED --classes dog_bark footstep

A sound is of a class whose name is in its file's name. For each class there is
the distance of the generated sounds to the true ones, of true ones to true ones
of the same class (halves, ten times), and to true ones of the other classes.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.set_coverage import read_sounds
from v2a_jax.evaluation.metrics import frechet, kernel
from v2a_jax.hearing import embeddings

HALVES = 10


def features(network, paths) -> list[embeddings.Features]:
  """Embeds sounds, each by itself."""
  sounds = read_sounds(paths, network.sample_rate)
  return embeddings.embed(
    network, sounds, sample_rate=network.sample_rate
  ).split()


def cells(x, y) -> list[str]:
  """Returns FAD, its plug-in value and KAD, with intervals."""
  x, y = embeddings.joined(x), embeddings.joined(y)
  found = [frechet.frechet(x, y), kernel.kernel_distance(x, y)]
  fad, kad = (f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in found)
  return [fad, f"{found[0].extras['plug_in']:.2f}", kad]


def halves(sounds) -> list[str]:
  """Returns means over random halves, with their standard deviation."""
  rng, found = np.random.default_rng(0), []
  for _ in range(HALVES):
    order = [sounds[i] for i in rng.permutation(len(sounds))]
    half = len(order) // 2
    x, y = map(embeddings.joined, (order[:half], order[half:]))
    fad = frechet.frechet(x, y)
    kad = kernel.kernel_distance(x, y)
    found.append((fad.value, fad.extras["plug_in"], kad.value))
  means, spreads = np.mean(found, 0), np.std(found, 0, ddof=1)
  return [f"{m:.2f} (sd {s:.2f})" for m, s in zip(means, spreads)]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("true", type=pathlib.Path)
  parser.add_argument("generated", type=pathlib.Path)
  parser.add_argument("--classes", nargs="+", required=True)
  parser.add_argument("--embedding", default="mn04")
  parser.add_argument("--weights", help="file or folder of the weights")
  args = parser.parse_args()
  network = embeddings.get(args.embedding)(args.weights)
  named = lambda folder, name: sorted(
    path for path in folder.rglob(f"*{name}*") if path.is_file()
  )
  true, made = (
    {name: features(network, named(of, name)) for name in args.classes}
    for of in (args.true, args.generated)
  )
  print("| class | sounds | clips | FAD | plug-in | KAD |")
  print("|---|---|---:|---:|---:|---:|")
  for name in args.classes:
    others = [s for other in args.classes if other != name for s in true[other]]
    counts = len(made[name]), len(true[name]), len(others)
    rows = (
      ("generated to true", f"{counts[0]}, {counts[1]}", cells),
      ("true to true, halves", f"{counts[1] // 2}, {-(-counts[1] // 2)}", None),
      ("true to those of other classes", f"{counts[1]}, {counts[2]}", cells),
    )
    pairs = (made[name], true[name]), (true[name],), (true[name], others)
    for (what, clips, function), pair in zip(rows, pairs):
      found = (function or halves)(*pair)
      print(f"| {name} | {what} | {clips} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
  main()
