"""Can joins be told from other places of a long sound, by its spectral flux?

  python -m benchmarks.seams -o seams.html --videos 3 --seconds 97.2

Makes long videos of scenes in a row, whose lengths are drawn so that their cuts
have nothing to do with windows, and takes for them with the default model. At
joins of passages, and of windows inside them, and at all other places 0.1 s apart
that are 0.3 s or more from a join, it takes the largest spectral flux
(`soundtrack.ranking.onset_curve`) within 30 ms, and compares both samples by the
two-sample test of Kolmogorov and Smirnov. The same is done for sounds that show
what the test says without joins, the scenes' own, at the same places, and with
bad ones: two takes that take turns at the joins, cut hard.

Writes a page without other files, with 2 s before and after each join of passages,
and after each of as many joins of windows and other places, in random order; what
each is opens under it.
"""

import argparse
import base64
import dataclasses
import html
import io
import pathlib
import tempfile

import numpy as np
from scipy import stats
import soundfile

from data_pipelines import scenes
from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.soundtrack import passages, ranking
from v2a_jax.soundtrack.tracker import Soundtracker

FPS = 25
SEED = 95_000_000_000  # of scenes that no model was trained on
NEAR, APART, STEP, AROUND = 0.03, 0.3, 0.1, 2.0  # seconds
PASSAGES, WINDOWS = "joins of passages", "joins of windows"


@dataclasses.dataclass(frozen=True)
class Film:
  """A long video with its sounds, float32 [t 1], by what they are."""

  sounds: dict[str, list[np.ndarray]]


def make_video(path: pathlib.Path, seed: int, seconds: float) -> np.ndarray:
  """Writes scenes of 2.4 to 6 s in a row; returns their own sound."""
  rng = np.random.default_rng(seed)
  frames, sounds, left = [], [], round(seconds * FPS)
  while left > 0:
    count = int(rng.integers(60, 150))
    scene = scenes.make_scene(
      SEED + 1000 * seed + len(frames), seconds=count / FPS, fps=FPS
    )
    frames.append(scene.frames[:left])
    sounds.append(scene.audio[: round(min(count, left) / FPS * 16_000)])
    left -= count
  media.encode_video(np.concatenate(frames), fps=FPS, path=path)
  return np.concatenate(sounds)


def joins_of(tracker: Soundtracker, seconds: float) -> dict[str, list[float]]:
  """Returns the times in seconds of joins, by their kind.

  Windows overlap by half, so that one begins where the last but one ends. A
  passage has two joins: from where it holds nothing for good, and from where it
  knows nothing.
  """
  rate = tracker.codec.config.latent_rate
  total = int(np.ceil(seconds * rate))
  length = round(tracker.window_seconds * rate)
  parts = list(passages.plan(total, length=length))
  of_passages = {
    part.begin + settled
    for part in parts[1:]
    for settled in (part.settled, part.prefix)
  }
  of_windows = {
    part.begin + start
    for part in parts
    for start in part.windows.starts
    if 0 < part.begin + start < total
  }
  kinds = {PASSAGES: of_passages, WINDOWS: of_windows - of_passages}
  return {
    kind: sorted(latent / rate for latent in of) for kind, of in kinds.items()
  }


def in_turn(first, second, joins: list[float], rate: int) -> np.ndarray:
  """Cuts from one sound to the other at each join."""
  turns = np.zeros(len(first), int)
  for join in joins:
    turns[round(join * rate) :] += 1
  return np.where((turns % 2)[:, None], second, first)


def flux_at(sound: np.ndarray, rate: int, times) -> np.ndarray:
  """Returns the largest flux near each time."""
  count = int(len(sound) / rate * ranking.RATE)
  curve = ranking.onset_curve(sound, rate, count)
  near = round(NEAR * ranking.RATE)
  places = np.round(np.asarray(times) * ranking.RATE).astype(int)
  return np.array(
    [curve[max(p - near, 0) : p + near + 1].max() for p in places]
  )


def elsewhere(joins: list[float], seconds: float) -> list[float]:
  """Returns the places that are far from all joins and from both ends."""
  grid = np.arange(1.0, seconds - 1.0, STEP)
  apart = np.abs(grid[:, None] - np.asarray(joins)).min(axis=1)
  return [float(time) for time in grid[apart > APART]]


def compare(films: list[Film], name: str, joins, other, rate: int) -> str:
  """Returns a row of the table."""
  at, rest = (
    np.concatenate(
      [flux_at(x, rate, times) for film in films for x in film.sounds[name]]
    )
    for times in (joins, other)
  )
  test = stats.ks_2samp(at, rest)
  high = np.quantile(rest, 0.95)
  return (
    f"| {name} | {len(at)} | {np.median(at):.2f} | {len(rest)}"
    f" | {np.median(rest):.2f} | {100 * (at > high).mean():.0f} %"
    f" | {test.statistic:.2f} | {test.pvalue:.2g} |"
  )


def table_of(films: list[Film], joins, other, rate: int) -> str:
  """Returns the table, in Markdown."""
  lines = [
    "| sound | joins | median flux | other places | median flux"
    " | joins over their 95 % | D | p |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for kind, times in joins.items():
    lines.append(f"| **{kind}** | | | | | | | |")
    for name in ("generated", "scenes' own", f"cut at {kind}"):
      lines.append(compare(films, name, times, other, rate))
  return "\n".join(lines)


def clip_of(sound: np.ndarray, rate: int, time: float) -> str:
  """Returns 2 s before and after a time, as a data URL."""
  first = max(round((time - AROUND) * rate), 0)
  buffer = io.BytesIO()
  soundfile.write(
    buffer, sound[first : round((time + AROUND) * rate)], rate, format="FLAC"
  )
  return (
    "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode()
  )


def page_of(films: list[Film], joins, other, rate: int, table: str) -> str:
  """Returns the page."""
  rng = np.random.default_rng(0)
  count = len(joins[PASSAGES]) * len(films) * len(films[0].sounds["generated"])
  rows = []
  for kind, times in {**joins, "no join": other}.items():
    places = [
      (number, take, time)
      for number, film in enumerate(films)
      for take in range(len(film.sounds["generated"]))
      for time in times
    ]
    drawn = rng.permutation(len(places))[:count]
    rows += [(kind, *places[i]) for i in drawn]
  items = []
  for number, place in enumerate(rng.permutation(len(rows)), start=1):
    kind, film, take, time = rows[place]
    source = clip_of(films[film].sounds["generated"][take], rate, time)
    what = f"{kind}: video {film + 1}, take {take + 1}, at {time:.2f} s"
    items.append(
      f'<li><audio controls preload="none" aria-label="sound {number}"'
      f' src="{source}"></audio><details><summary>What is in the middle of sound'
      f" {number}</summary>{html.escape(what)}</details></li>"
    )
  return (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    "<title>Seams</title><style>body{font:16px sans-serif;max-width:60rem;"
    "margin:2rem auto;padding:0 1rem}audio{width:100%}li{margin:1rem 0}</style>"
    "<main><h1>Seams</h1><p>Each sound is 4 s long. In its middle, 2 s from its"
    " start, is a join of two passages, of two windows, or none. Can you hear"
    f" which?</p><ol>{''.join(items)}</ol><h2>Spectral flux</h2>"
    f"<pre>{html.escape(table)}</pre></main></html>"
  )


def main() -> None:
  """Prints the table and writes the page, after each video those so far."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("-o", "--output", required=True)
  parser.add_argument("--videos", type=int, default=3)
  parser.add_argument("--seconds", type=float, default=97.2)
  parser.add_argument("--num_steps", type=int, default=None)
  parser.add_argument(
    "--passage_windows",
    type=int,
    default=passages.MAX_WINDOWS,
    help="windows of a passage; fewer than by default give more joins",
  )
  args = parser.parse_args()
  passages.MAX_WINDOWS = args.passage_windows
  tracker = Soundtracker.load()
  rate = tracker.sample_rate
  changes = {"num_steps": args.num_steps} if args.num_steps else {}
  joins, films = joins_of(tracker, args.seconds), []
  other = elsewhere([*joins[PASSAGES], *joins[WINDOWS]], args.seconds)
  with tempfile.TemporaryDirectory() as folder:
    for number in range(args.videos):
      video = pathlib.Path(folder, f"{number}.mp4")
      truth = make_video(video, number, args.seconds)
      takes = tracker(
        video, num_candidates=2, seed=10 * number, sampler=changes
      )
      one, two = (np.array(take.samples) for take in takes.candidates)
      sounds = {"generated": [one, two], "scenes' own": [truth]}
      for kind, times in joins.items():
        turns = [
          in_turn(*pair, times, rate) for pair in ((one, two), (two, one))
        ]
        sounds[f"cut at {kind}"] = turns
      films.append(Film(sounds))
      table = table_of(films, joins, other, rate)
      print(f"{number + 1} of {args.videos} videos\n{table}", flush=True)
      page = page_of(films, joins, other, rate, table)
      files.write_whole(args.output, page)


if __name__ == "__main__":
  main()
