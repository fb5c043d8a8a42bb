"""Negative prompts: a scale of their own, or joined with the picture's?

  v2a data scenes -o data/unseen --num 280 --seed 1
  python -m benchmarks.negative_prompts data/unseen --learn data/scenes

The negative prompt of every clip names the class of what it shows ("a person
says" where a person talks), with no other prompt. Two forms of guidance, with
several scales s:

  separate  out(v) + (s_v - 1) [out(v) - out(0)] + (s - 1) [out(v) - out(v, n)]
  joint     out(v) + (s - 1) [out(v) - out(n)]

with the picture v and the negative prompt n (`sampling/guidance.py`; the joint
form is that of MMAudio, arXiv:2412.15322, where n stands in the branch without
the picture). Measured are the probability that mn04 gives to the class, and
onset F1 at 50 ms. The AudioSet class of a label is learned from the true sounds
of `--learn`: the one whose probability rises most over that of other labels;
labels for which none rises by `LEAST_LIFT` are left out.
"""

import argparse
from collections import defaultdict
import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from data_pipelines.source import open_source
from v2a_jax import media
from v2a_jax.batch import Batch
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.formats import Format
from v2a_jax.evaluation.metrics import onsets
from v2a_jax.hearing import embeddings
from v2a_jax.sampling.guidance import Guidance
from v2a_jax.soundtrack.tracker import Soundtracker

WORDS = {
  "talk": "a person says",
  "drum": "drum strokes",
  "pluck": "plucked strings",
  "saw": "sawing",
  "clap": "claps",
  "shake": "shakes of a rattle",
  "walk": "footsteps",
  "pour": "pouring water",
}
LEAST_LIFT = 0.05
RATE = 16_000
BATCH = 8
F1 = onsets.OnsetF1(milliseconds=50)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
  """Guidance with one scale: the negative prompt replaces the picture."""

  scale: float

  def branches(self, cond, negative):
    ids, mask = negative
    other = cond.without("video").replace(prompt=ids, prompt_mask=mask)
    stacked = jax.tree.map(lambda *x: jnp.concatenate(x), cond, other)
    return stacked, jnp.asarray([self.scale, 1 - self.scale])


def probabilities(network, sounds) -> np.ndarray:
  """Computes class probabilities [n, classes] of sounds at `RATE`."""
  features = embeddings.embed(network, sounds, sample_rate=RATE)
  return special.expit(features.logits)


def learn_classes(network, path, *, num: int = 16) -> dict[str, int]:
  """Returns the AudioSet class by label, of labels that mn04 can tell apart."""
  records, sounds = open_source(path, "train"), defaultdict(list)
  for record in records:
    if len(sounds[record["label"]]) < num:
      sound = media.read_audio(record["audio"], sample_rate=RATE, channels=1)
      sounds[record["label"]].append(sound.samples)
  means = {k: probabilities(network, v).mean(axis=0) for k, v in sounds.items()}
  classes = {}
  for label in WORDS.keys() & means.keys():
    others = np.mean([v for k, v in means.items() if k != label], axis=0)
    lift = means[label] - others
    if lift.max() >= LEAST_LIFT:
      classes[label] = int(lift.argmax())
  return classes


def generate(tracker, clips, guidance):
  """Generates one sound per clip, with its own class as negative prompt."""
  sampler = tracker.experiment.sampler
  sampler = dataclasses.replace(sampler, guidance=guidance)
  length = tracker.loader_config.window.prompt_length
  encoded = [
    tracker.encoder.tokenizer.encode(WORDS[c.label], length) for c in clips
  ]
  sounds = []
  for start in range(0, len(clips), BATCH):
    part = clips[start : start + BATCH]
    arrays = clips_lib.stacked(part, size=BATCH)
    cond = Batch.from_arrays(arrays).cond.without("prompt", "transcript")
    rows = [encoded[min(start + i, len(clips) - 1)] for i in range(BATCH)]
    negative = tuple(np.stack(column) for column in zip(*rows))
    drawn = tracker.sample(cond, seed=start, negative=negative, sampler=sampler)
    sounds += list(drawn[: len(part)])
  return [s[: len(c.audio)] for s, c in zip(sounds, clips)]


def judge(network, clips, sounds, classes):
  """Returns the probability of each clip's class, and its onset counts."""
  every = probabilities(network, sounds)
  own = np.array([classes[clip.label] for clip in clips])
  counts = [
    onsets.match(
      clip.events,
      onsets.detect(sound, RATE),
      tolerance=0.05,
      unseen=len(clip.off_screen),
    )
    for clip, sound in zip(clips, sounds)
  ]
  return every[np.arange(len(clips)), own], counts


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("unseen", help="scenes that the model has not seen")
  parser.add_argument("--learn", required=True, help="other scenes")
  parser.add_argument("--checkpoint", help="the bundled model by default")
  parser.add_argument("--num_clips", type=int, default=128)
  parser.add_argument("--scales", type=float, nargs="+", default=[2, 3, 5])
  parser.add_argument("--video", type=float, nargs="+", default=[1, 2])
  parser.add_argument("--out", help="a JSON file of all figures")
  args = parser.parse_args()
  network, tracker = embeddings.Mn04(), Soundtracker.load(args.checkpoint)
  classes = learn_classes(network, args.learn)
  print("AudioSet classes:", classes, flush=True)
  records = clips_lib.open_truth(args.unseen, "all").records
  config = tracker.loader_config
  format = Format(sample_rate=RATE, channels=1, seconds=config.seconds)
  read = clips_lib.Reader(records, format, config)
  clips = [read(i, i) for i in range(len(records))]
  clips = [c for c in clips if isinstance(c, clips_lib.Clip)]
  clips = [c for c in clips if c.label in classes and c.events is not None]
  clips = clips[: args.num_clips]
  own = tracker.experiment.sampler.guidance.video
  ways = {"none": Guidance(video=own)}
  for video, s in itertools.product(args.video, args.scales):
    scales = Guidance(video=video, negative_prompt=s)
    ways[f"separate {video:g}, {s:g}"] = scales
  for s in args.scales:
    ways[f"joint {s:g}"] = Joint(scale=s)
  results, plain = {}, None
  print(f"{len(clips)} clips; changes are against 'none', clip by clip")
  print(f"'separate' with scales of picture and negative prompt; none: {own:g}")
  for name, guidance in ways.items():
    p, counts = judge(
      network, clips, generate(tracker, clips, guidance), classes
    )
    plain = plain or (p, counts)
    figures = {
      "probability": intervals.mean(p),
      "change": intervals.mean(p - plain[0]),
      "onset_f1": F1.compute(counts),
      "f1_change": F1.compute_difference(counts, plain[1]),
    }
    results[name] = {k: v.to_json() for k, v in figures.items()}
    cells = (f"{v.value:+.3f} [{v.low:+.3f}, {v.high:+.3f}]"
             for v in figures.values())  # fmt: skip
    print(f"{name:14s} " + "  ".join(cells), flush=True)
  if args.out:
    with open(args.out, "w") as file:
      json.dump(results, file, indent=1)


if __name__ == "__main__":
  main()
