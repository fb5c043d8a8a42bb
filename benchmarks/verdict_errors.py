"""How often a report names a winner among equal models, and among unequal ones.

  python -m benchmarks.verdict_errors

Reports are made of simulated results, by the code that writes real ones: scores
of clips with a part that is the clip's own and one of the model's, counts of
onsets, and embeddings, of which Fréchet and kernel distances to a reference of
64 clips are taken. Models are equal, or the second is worse by an effect in
every metric. Each has a row of shuffled videos that is as good as itself: a model
that follows nothing. With `--seeds 3 --apart 0.3` they are arms of three training
seeds, whose spread in every metric is 0.3 of the effect's unit. Printed are the
shares of reports whose verdict names a winner, with the standard error, of those
that would without Holm's correction, and of those that say that a model is better
or worse than with shuffled videos.
"""

import argparse
import itertools

import numpy as np

from v2a_jax.evaluation.metrics import frechet, kernel
from v2a_jax.evaluation.report import compare, differences
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.hearing import embeddings

SIZES = (5, 8, 16, 48)
DIM, WINDOWS, REFERENCE = 12, 4, 64
SCORES = 4  # metrics with scores of clips
RATIO = [{"hits": 2}, {"reference": 1, "detected": 1}]


def metrics() -> dict:
  ids = [f"score_{i}" for i in range(SCORES)]
  described = {id_: {"higher_is_better": True} for id_ in ids}
  described["onsets"] = {"higher_is_better": True, "ratio": RATIO}
  lower = {"higher_is_better": False}
  return described | {"fad": lower, "kad": lower}


def features(windows) -> embeddings.Features:
  n = len(windows)
  clips = np.repeat(np.arange(n), WINDOWS)
  vectors = windows.reshape(-1, DIM)
  return embeddings.Features(vectors, clips, np.zeros((n, 1)))


def draw(
  rng, n: int, models: int, effect: float, seeds: int = 1, apart: float = 0.0
) -> list[dict]:
  """Draws results of models on the same clips; the last is worse.

  With several `seeds` each is an arm of as many, which are `apart` by chance, in
  the unit of the effect.
  """
  scale = 0.8 ** np.arange(DIM)
  sound = lambda: rng.normal(size=(n, 1, DIM)) * scale
  window = lambda n: rng.normal(size=(n, WINDOWS, DIM)) * scale
  ref = rng.normal(size=(REFERENCE, 1, DIM)) * scale + window(REFERENCE)
  reference, shared = features(ref), sound()
  own = rng.exponential(size=(n, SCORES))
  events = rng.poisson(4, n) + 1
  ease = rng.beta(3, 2, n)

  def row(worse: float) -> list[dict]:
    """Draws scores, counts and parts of the clips of a row."""
    scores = own + 0.7 * rng.standard_t(4, size=(n, SCORES)) - worse
    hits = rng.binomial(events, np.clip(ease - 0.3 * worse, 0, 1))
    detected = hits + rng.poisson(2, n)
    made = features(shared + sound() + window(n) + 0.4 + worse * scale)
    sets = {
      "fad": frechet.frechet(made, reference),
      "kad": kernel.kernel_distance(made, reference),
    }
    clips = []
    for i in range(n):
      counts = dict(hits=hits[i], reference=events[i], detected=detected[i])
      values = {f"score_{k}": float(x) for k, x in enumerate(scores[i])}
      parts = {id_: float(e.parts[i]) for id_, e in sets.items()}
      clips.append(
        {"scores": values, "counts": {"onsets": counts}, "parts": parts}
      )
    return clips

  def run(name: str, worse: float) -> dict:
    """Draws a model's results."""
    rows = {of: row(worse) for of in ("generated", "shuffled_video")}
    kinds = ("scores", "counts", "parts")
    clips = [
      {"id": str(i)}
      | {kind: {of: rows[of][i][kind] for of in rows} for kind in kinds}
      for i in range(n)
    ]
    listed = [{"name": of, "metrics": {}} for of in rows]
    set_ = {"n": n, "manifest_sha256": "", "split": "test"}
    about = {"name": name, "set": set_, "metrics": metrics(), "identity": {}}
    about["checkpoint"] = {}
    return about | {"rows": listed, "clips": clips}

  arms = []
  for model in range(models):
    worse = effect if model == models - 1 else 0.0
    own_runs = [
      run(str(model), worse + apart * rng.normal()) for _ in range(seeds)
    ]
    several = {"models": own_runs} if seeds > 1 else {}
    arms.append(own_runs[0] | several)
  return arms


def named(runs) -> tuple[bool, bool, bool]:
  """Returns what a report says.

  Whether it names a winner, whether it would without correction, and whether it
  tells a model from itself with shuffled videos.
  """
  leads = [s.lead for s in compare.verdict(runs, columns_of(runs))]
  other = any("itself with videos shuffled on" in lead for lead in leads)
  names = [run["name"] for run in runs]
  winner = any(
    lead.endswith("best first:")
    or any(lead == f"{a} beats {b} on" for a in names for b in names)
    for lead in leads
  )
  gaps = [
    gap
    for first, second in itertools.combinations(runs, 2)
    for gap in differences.differences(
      columns_of(runs), (first, "generated"), (second, "generated")
    )
  ]
  return winner, any(gap.sign for gap in gaps), other


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--repeats", type=int, default=300)
  parser.add_argument("--clips", type=int, nargs="*", default=SIZES)
  parser.add_argument("--equal", action="store_true", help="two equal models")
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--apart", type=float, default=0.0)
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  print(
    "| clips | models | effect | reports that name one, % | uncorrected, %"
    " | shuffled, % | reports |"
  )
  print("|---:|---:|---:|---:|---:|---:|---:|")
  cases = [(n, 2, 0.0) for n in args.clips] + [(16, 8, 0.0)]
  cases += [(n, 2, 0.5) for n in args.clips]
  for case in cases if not args.equal else cases[: len(args.clips)]:
    n, models, effect = case
    repeats = args.repeats if models == 2 else args.repeats // 5
    found = np.array(
      [named(draw(rng, *case, args.seeds, args.apart)) for _ in range(repeats)]
    )
    share = found.mean(axis=0)
    error = 100 * np.sqrt(share[0] * (1 - share[0]) / repeats)
    print(
      f"| {n} | {models} | {effect} | {100 * share[0]:.1f} ± {error:.1f}"
      f" | {100 * share[1]:.1f} | {100 * share[2]:.1f} | {repeats} |",
      flush=True,
    )


if __name__ == "__main__":
  main()
