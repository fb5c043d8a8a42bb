"""Compares a separate guidance scale for negative prompts with joint guidance.

  v2a data scenes -o data/unseen --num 280 --seed 1
  python -m benchmarks.negative_prompts data/unseen --learn data/scenes

The negative prompt of every clip names the class that the video shows, such as
"a person says" for a talking person; there is no prompt. Two kinds of guidance
are compared at several scales s:

  separate  out(v) + (s_v - 1) [out(v) - out(0)] + (s - 1) [out(v) - out(v, n)]
  joint     out(v) + (s - 1) [out(v) - out(n)]

for the video v and the negative prompt n (`sampling/guidance.py`; joint
guidance is that of MMAudio, arXiv:2412.15322, where n is in the branch without
video). Reported are the probability that mn04 gives to the class, and onset F1
at 50 ms. The AudioSet class of a label is estimated on the true audio of
`--learn`: the one whose mean probability is highest relative to the other
labels. Labels without a class that is `LEAST_LIFT` higher are left out.
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
from v2a_jax.evaluation import embeddings, intervals
from v2a_jax.evaluation.metrics import onsets
from v2a_jax.experiment import build
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
  """Guidance with one scale: the negative prompt replaces the video.

  Attributes:
    scale: guidance scale s.
  """

  scale: float

  def branches(self, cond, negative):
    ids, mask = negative
    other = cond.without("video").replace(prompt=ids, prompt_mask=mask)
    stacked = jax.tree.map(lambda *x: jnp.concatenate(x), cond, other)
    return stacked, jnp.asarray([self.scale, 1 - self.scale])


def probabilities(ear, sounds) -> np.ndarray:
  """Returns mn04's class probabilities [n, classes] of audio at `RATE` Hz."""
  found = embeddings.embed(ear, sounds, sample_rate=RATE)
  return special.expit(found.logits)


def learn_classes(ear, path, *, num: int = 16) -> dict[str, int]:
  """Returns the AudioSet class of each label that mn04 can distinguish."""
  records, sounds = open_source(path, "train"), defaultdict(list)
  for record in records:
    if len(sounds[record["label"]]) < num:
      sound = media.read_audio(record["audio"], sample_rate=RATE, channels=1)
      sounds[record["label"]].append(sound.samples)
  means = {k: probabilities(ear, v).mean(axis=0) for k, v in sounds.items()}
  classes = {}
  for label in WORDS.keys() & means.keys():
    others = np.mean([v for k, v in means.items() if k != label], axis=0)
    lift = means[label] - others
    if lift.max() >= LEAST_LIFT:
      classes[label] = int(lift.argmax())
  return classes


def generate(tracker, clips, guidance):
  """Generates audio for each clip with its own class as negative prompt."""
  sampler = build.make_sampler(tracker.config)
  sampler = dataclasses.replace(sampler, guidance=guidance)
  length = tracker.loader_config.window.prompt_length
  encoded = [tracker.tokenizer.encode(WORDS[c.label], length) for c in clips]
  sounds = []
  for start in range(0, len(clips), BATCH):
    part = clips[start : start + BATCH]
    arrays = clips_lib.stacked(part, size=BATCH)
    cond = Batch.from_arrays(arrays).cond.without("prompt", "transcript")
    rows = [encoded[min(start + i, len(clips) - 1)] for i in range(BATCH)]
    negative = tuple(np.stack(column) for column in zip(*rows))
    made = tracker.sample(cond, seed=start, negative=negative, sampler=sampler)
    sounds += list(made[: len(part)])
  return [s[: len(c.audio)] for s, c in zip(sounds, clips)]


def judge(ear, clips, sounds, classes):
  """Returns the probability of its class and onset counts for each clip."""
  every = probabilities(ear, sounds)
  own = np.array([classes[clip.label] for clip in clips])
  counts = [
    onsets.match(
      clip.events,
      onsets.detect(sound, RATE),
      tolerance=0.05,
      ignored=clip.off_screen,
    )
    for clip, sound in zip(clips, sounds)
  ]
  return every[np.arange(len(clips)), own], counts


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("unseen", help="data set of unseen scenes")
  parser.add_argument("--learn", required=True, help="data set of other scenes")
  parser.add_argument("--checkpoint", help="bundled model if empty")
  parser.add_argument("--num_clips", type=int, default=128)
  parser.add_argument("--scales", type=float, nargs="+", default=[2, 3, 5])
  parser.add_argument("--video", type=float, nargs="+", default=[1, 2])
  parser.add_argument("--out", help="JSON file for all results")
  args = parser.parse_args()
  ear, tracker = embeddings.Mn04(), Soundtracker.load(args.checkpoint)
  classes = learn_classes(ear, args.learn)
  print("AudioSet classes:", classes, flush=True)
  records, indices = clips_lib.choose(args.unseen, "all", num=None, seed=0)
  clips, _ = clips_lib.load(records, indices, tracker.loader_config)
  clips = [c for c in clips if c.label in classes and c.events is not None]
  clips = clips[: args.num_clips]
  own = tracker.config.sampler.guidance.video
  ways = {"none": Guidance(video=own)}
  for video, s in itertools.product(args.video, args.scales):
    scales = Guidance(video=video, negative_prompt=s)
    ways[f"separate {video:g}, {s:g}"] = scales
  for s in args.scales:
    ways[f"joint {s:g}"] = Joint(scale=s)
  found, plain = {}, None
  print(f"{len(clips)} clips; changes are relative to 'none', paired by clip")
  print(f"'separate': scales of video and negative prompt; 'none': {own:g}")
  for name, guidance in ways.items():
    p, counts = judge(ear, clips, generate(tracker, clips, guidance), classes)
    plain = plain or (p, counts)
    figures = {
      "probability": intervals.mean(p),
      "change": intervals.mean(p - plain[0]),
      "onset_f1": onsets.f1(counts),
      "f1_change": onsets.f1_difference(counts, plain[1]),
    }
    found[name] = {k: v.to_json() for k, v in figures.items()}
    cells = (f"{v.value:+.3f} [{v.low:+.3f}, {v.high:+.3f}]"
             for v in figures.values())  # fmt: skip
    print(f"{name:14s} " + "  ".join(cells), flush=True)
  if args.out:
    with open(args.out, "w") as file:
      json.dump(found, file, indent=1)


if __name__ == "__main__":
  main()
