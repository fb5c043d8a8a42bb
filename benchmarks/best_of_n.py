"""What does choosing the best of N takes bring, and what does it cost?

  v2a data scenes -o data/scenes --num 2400 --seed 0 --ordered 0.12
  python -m benchmarks.best_of_n data/scenes --clips 48

Makes 16 takes for each clip of the test split with the default model, as `v2a
generate` does, ranks the first N by the default score (`motion_onset`), and
measures the first in rank by what did not rank it: onset F1 against the true
events, and the own judge of synchronisation. Prints both with 95 % intervals over
clips, the paired change from one take, and the time of N takes over that of one.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from v2a_jax.evaluation import clips, formats, metrics
from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.onsets import OnsetF1
from v2a_jax.soundtrack.tracker import Soundtracker

COUNTS = (1, 2, 4, 8, 16)
MEASURES = (OnsetF1(milliseconds=50), metrics.JudgedSync())


def takes_of(tracker, clip: clips.Clip, folder: pathlib.Path):
  """Makes all takes of a clip; returns them by seed."""
  video = folder / "clip.mp4"
  video.write_bytes(clip.video)
  asked = dict(prompt=clip.caption, transcript=clip.transcript, seed=0)
  made = tracker(video, num_candidates=COUNTS[-1], **asked)
  return sorted(made.candidates, key=lambda take: take.seed)


def measured(clip: clips.Clip, take) -> list:
  """Measures one take."""
  truth = base.Sample(
    clip=clip, waveform=clip.audio, sample_rate=take.sample_rate, features={}
  )
  sound = base.Sample(
    clip=clip,
    waveform=take.samples[: len(clip.audio)],
    sample_rate=take.sample_rate,
    features={},
    truth=truth,
  )
  return [metric.get_state(sound) for metric in MEASURES]


def cost(tracker, clip: clips.Clip, folder: pathlib.Path, rounds: int) -> None:
  """Prints the time of N takes over that of one, in turn."""
  video = folder / "clip.mp4"
  video.write_bytes(clip.video)
  seconds = {count: [] for count in (1, COUNTS[-1])}
  for _ in range(rounds + 1):  # The first one compiles.
    for count, times in seconds.items():
      began = time.monotonic()
      tracker(video, num_candidates=count)
      times.append(time.monotonic() - began)
  one, many = (np.array(times[1:]) for times in seconds.values())
  ratios = many / one
  print(
    f"{COUNTS[-1]} takes cost {np.median(ratios):.1f} times one"
    f" ({ratios.min():.1f} to {ratios.max():.1f}, {rounds} rounds)"
  )


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("dataset")
  parser.add_argument("--clips", type=int, default=48)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  tracker = Soundtracker.load()
  truth = clips.open_truth(args.dataset)
  rate = tracker.codec.config.sample_rate
  format_ = formats.Format(sample_rate=rate, channels=1)
  reader = clips.Reader(truth.records, format_)
  chosen = clips.choose(range(len(truth.records)), num=args.clips, seed=0)
  states = {count: [[] for _ in MEASURES] for count in COUNTS}
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    for place, index in enumerate(chosen):
      clip = reader(index, place)
      takes = takes_of(tracker, clip, folder)
      found = [measured(clip, take) for take in takes]
      for count in COUNTS:
        best = max(range(count), key=lambda i: takes[i].scores["motion_onset"])
        for row, state in zip(states[count], found[best]):
          row.append(state)
    print(f"{len(chosen)} clips of {args.dataset}")
    for count in COUNTS:
      for metric, row, first in zip(MEASURES, states[count], states[1]):
        value = metric.compute(row)
        change = metric.compute_difference(row, first)
        print(
          f"best of {count:2}: {metric.label} {value.value:.3f}"
          f" [{value.low:.3f}, {value.high:.3f}], change {change.value:+.3f}"
          f" [{change.low:+.3f}, {change.high:+.3f}]"
        )
    cost(tracker, reader(chosen[0], 0), folder, args.rounds)


if __name__ == "__main__":
  main()
