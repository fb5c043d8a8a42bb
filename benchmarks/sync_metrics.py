"""What each timing metric says of true sounds that are moved in time.

  v2a data scenes -o data/unseen --num 60 --seed 5
  python -m benchmarks.sync_metrics --set data/unseen --videos DIR

The true sound of every clip is delayed by 0, ±20, ... ±320 ms, and replaced by
pink noise and by a metronome at its level. Printed are a table of each metric's
value over all clips, and for each metric the share of clips in which the true
sound is strictly better than the sound 160 ms late, the noise and the
metronome. True sounds are judged as they are and, as a sound that is in time
but another, low-passed at 3 kHz with noise 20 dB below (`rough`). `--only` of
file name prefixes takes the clips whose sound belongs to the picture. Of our own
judge (`--judge`) are printed the error of its offset over all shifts, and the
share within 40 ms; `--write` puts them into its bundle, from where evaluations
say them beside its scores.
"""

import argparse
import pathlib

import numpy as np
from scipy import signal

from data_pipelines.source import open_source
from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import motion, rows
from v2a_jax.evaluation.metrics import (
  av_align,
  base,
  offset,
  onsets,
  sync_judge,
)
from v2a_jax.sync import bundled
from v2a_jax.weights import bundle

RATE = 16_000
SHIFTS = (0, 20, 40, 80, 160, 320)
LONGEST = 8.0  # seconds
METRICS = (
  *(offset.OnsetOffset(), offset.EnvelopeOffset(), offset.SyncError()),
  *(offset.OnsetCorrelation(), onsets.OnsetF1(milliseconds=50)),
  *(onsets.OnsetF1(milliseconds=100), av_align.AVAlign()),
)
NEAR_MS = 40.0
SCENES = "scenes"
RIVALS = ("+160", "noise", "metronome")


def read(video, audio, *, events=None) -> clips_lib.Clip:
  sound = media.read_audio(
    audio, sample_rate=RATE, channels=1, duration=LONGEST
  ).samples
  return clips_lib.Clip(
    id="",
    video=video,
    audio=sound,
    seconds=len(sound) / RATE,
    events=events,
    motion=motion.detect(video, seconds=LONGEST),
  )


def read_all(args) -> dict[str, list[clips_lib.Clip]]:
  """Reads the clips, by group: `scenes`, or the start of a file's name."""
  groups = {}
  for record in list(open_source(args.set, "all"))[: args.num_scenes]:
    times = [e["time"] for e in record["events"] if e.get("on_screen", True)]
    clip = read(record["video"], record["audio"], events=np.sort(times))
    groups.setdefault(SCENES, []).append(clip)
  for path in sorted(args.videos.glob("*.mp4")) if args.videos else ():
    group = path.stem.split("_")[0]
    if group in args.only:
      data = path.read_bytes()
      groups.setdefault(group, []).append(read(data, data))
  return groups


def variants(true: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the sounds that are judged, by name."""
  sounds = {}
  for shift in sorted({*SHIFTS, *(-s for s in SHIFTS)}):
    sounds[f"{shift:+d}"] = rows.delayed(true, shift * RATE // 1000)
  low = signal.sosfilt(signal.butter(4, 3000, fs=RATE, output="sos"), true, 0)
  noise = rows.pink_noise(true, RATE, seed=1)
  sounds["rough"] = (low + 0.1 * noise).astype(np.float32)
  sounds["noise"] = noise
  sounds["metronome"] = rows.metronome(true, RATE)
  return sounds


def judge(clip: clips_lib.Clip, metrics) -> dict[str, dict[str, object]]:
  """Returns the state of each metric, by sound and metric id."""
  common = dict(clip=clip, sample_rate=RATE, features={})
  truth = base.Sample(waveform=clip.audio, **common)
  return {
    name: {
      metric.id: metric.get_state(
        base.Sample(waveform=sound, truth=truth, **common)
      )
      for metric in metrics
    }
    for name, sound in variants(clip.audio).items()
  }


def print_table(judged: list[dict], metrics) -> None:
  heads = [metric.label for metric in metrics]
  print("| sound | " + " | ".join(heads) + " |\n|---|" + "---:|" * len(heads))
  for name in judged[0]:
    cells = []
    for metric in metrics:
      estimate = metric.compute([clip[name][metric.id] for clip in judged])
      digits = 0 if metric.unit == "ms" else 2
      text = f"{estimate.value:.{digits}f}"
      if "spread" in estimate.extras:
        text += f" ({estimate.extras['spread']:.0f})"
      cells.append(text)
    print(f"| {name} | " + " | ".join(cells) + " |")


def first_share(judged: list[dict], metric, winner: str) -> tuple[int, int]:
  """Counts clips in which a sound is better than all rivals."""
  sign = -1 if metric.unit == "ms" else 1
  score = lambda clip, name: sign * abs(metric.value(clip[name][metric.id]))
  first = [
    all(not score(clip, rival) >= score(clip, winner) for rival in RIVALS)
    for clip in judged
    if np.isfinite(score(clip, winner))
  ]
  return sum(first), len(first)


def measured(judged: list[dict], in_time, lag) -> str:
  """Says what our own judge did on some clips, whose own offset counts as 0."""
  shifts = [*SHIFTS, *(-s for s in SHIFTS if s)]
  errors = np.abs(
    [[clip[f"{s:+d}"][lag.id] - s for s in shifts] for clip in judged]
  )
  first, count = first_share(judged, in_time, "+0")
  return (
    f"of {count} held-out true pairs, moved by up to {max(SHIFTS)} ms, the offset"
    f" is within {NEAR_MS:.0f} ms in {np.mean(errors <= NEAR_MS):.0%}, mean error"
    f" {errors.mean():.0f} ms, median {np.median(errors):.0f} ms; the true sound"
    f" is likelier in time than itself 160 ms late, noise and a metronome in"
    f" {first}"
  )


def write(folder: pathlib.Path, found: dict[str, str]) -> None:
  """Puts what was measured of a judge into its bundle."""
  config = bundle.read_config(folder) | {bundled.MEASURED: found}
  files.write_json(folder / bundle.CONFIG, config, sort_keys=True)
  bundle.write_digests(folder)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--set", required=True, help="folder of a data set")
  parser.add_argument("--num_scenes", type=int, default=40)
  parser.add_argument("--videos", type=pathlib.Path, help="folder of .mp4")
  parser.add_argument("--only", nargs="*", default=["gh", "cav", "grid"])
  parser.add_argument("--judge", default=bundled.DEFAULT, help="bundle")
  parser.add_argument("--write", action="store_true")
  args = parser.parse_args()
  own = [sync_judge.JudgedSync(args.judge), sync_judge.JudgedOffset(args.judge)]
  metrics = [*METRICS, *own]
  judged = {
    group: [judge(clip, metrics) for clip in clips]
    for group, clips in read_all(args).items()
  }
  every = [clip for clips in judged.values() for clip in clips]
  counts = ", ".join(f"{len(clips)} {name}" for name, clips in judged.items())
  print(f"{len(every)} clips: {counts}\n")
  print_table(every, metrics)
  print(f"\nfirst among {', '.join(RIVALS)}, of the clips of each group:")
  for metric in metrics:
    for winner in ("+0", "rough"):
      parts = [
        f"{name} {'/'.join(map(str, first_share(clips, metric, winner)))}"
        for name, clips in {"all": every, **judged}.items()
      ]
      print(f"  {metric.label}, true sound {winner}: {', '.join(parts)}")
  real = [c for name, clips in judged.items() if name != SCENES for c in clips]
  parts = {SCENES: judged.get(SCENES), "real clips": real, **judged}
  found = {k: measured(clips, *own) for k, clips in parts.items() if clips}
  print(*(f"\n{name}: {text}" for name, text in found.items()), sep="")
  if args.write:
    names = [name for name in (SCENES, "real clips") if name in found]
    write(bundle.find(args.judge), {name: found[name] for name in names})


if __name__ == "__main__":
  main()
