"""Invented results of an evaluation, with media, for tests of the report."""

import json
import pathlib

import numpy as np

from v2a_jax import media
from v2a_jax.evaluation.report import compare, loading
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.evaluation.schema import SCHEMA

RATE = 16_000
SECONDS = 2.0
METRICS = {
  "onset_f1_50": {
    "label": "Onset F1 at 50 ms",
    "unit": "",
    "higher_is_better": True,
    "judges_timing": True,
    "about": "Harmonic mean of precision and recall of onsets.",
  },
  "fad": {
    "label": "FAD (mn04)",
    "unit": "",
    "higher_is_better": False,
    "judges_timing": False,
    "about": "Fréchet distance of EfficientAT mn04 embeddings.",
  },
}
ROWS = {
  "generated": 0.6,
  "ground_truth": 0.95,
  "codec": 0.9,
  "shuffled_video": 0.3,
  "shifted": 0.3,
  "metronome": 0.2,
  "silence": 0.0,
  "noise": 0.1,
}


def write_media(folder: pathlib.Path, clip: str, rows, events, seed: int):
  """Writes a video that flashes at the events, and sounds close to them."""
  (folder / "media").mkdir(parents=True, exist_ok=True)
  frames = np.full((16, 48, 64, 3), 30, np.uint8)
  for event in events:
    frames[int(event * 8)] = (240, 180, 60)
  video = folder / "media" / f"{clip}.mp4"
  media.encode_video(frames, fps=8.0, path=video)
  rng = np.random.default_rng(seed)
  t = np.arange(int(SECONDS * RATE)) / RATE
  paths = {}
  for i, row in enumerate(rows):
    x = 1e-3 * rng.standard_normal(len(t))
    for event in events:
      after = t - event - 0.02 * i
      x += (
        (after > 0)
        * np.exp(-9 * np.clip(after, 0, None))
        * 0.4
        * (np.sin(2 * np.pi * (300 + 200 * i) * after))
      )
    path = folder / "media" / f"{clip}.{row}.m4a"
    media.encode_audio(path, x[:, None].astype(np.float32), RATE)
    paths[row] = str(path.relative_to(folder))
  return str(video.relative_to(folder)), paths


def write_results(
  folder: pathlib.Path, name: str, *, shift=0.0, clips=12, with_media=2, **over
) -> pathlib.Path:
  """Writes results.json of an invented run whose scores are `shift` higher."""
  rng = np.random.default_rng(0)
  rows = {row: rng.normal(v, 0.08, clips) for row, v in ROWS.items()}
  rows["generated"] = rows["generated"] + shift
  entries = []
  for i in range(clips):
    events = [0.3, 1.1 + 0.05 * (i % 5)]
    clip = f"clip_{i:03d}"
    video, audio = "", {}
    if i < with_media:
      kept = ["generated", "ground_truth", "codec", "shuffled_video"]
      video, audio = write_media(folder, clip, kept, events, i)
    scores = {
      row: {"onset_f1_50": float(values[i])} for row, values in rows.items()
    }
    entries.append(
      {
        "id": clip,
        "caption": f"A ball strikes bar {i} & rings",
        "transcript": "bin blue at f two now" if i % 2 else "",
        "heard": {"speech": bool(i % 2)},
        "duration": SECONDS,
        "video": video,
        "audio": audio,
        "events": events,
        "scores": scores,
      }
    )
  results = {
    "schema": SCHEMA,
    "name": name,
    "created": "2026-11-20T10:00:00+00:00",
    "wall_seconds": 61.2,
    "checkpoint": {
      "path": f"runs/{name}/checkpoints/900",
      "step": 900,
      "sha256": "0" * 64,
      "train_seconds": 754.0,
      "clips_seen": 28_800,
    },
    "config": {
      "model": {"width": 192, "name": name},
      "seed": 0,
      "batch_size": 32,
    },
    "sampler": {"num_steps": 16, "guidance_scale": 2.0},
    "code": {"git": "a" * 40, "versions": {"jax": "0.10.2"}},
    "set": {
      "path": "data/scenes",
      "split": "test",
      "n": clips,
      "seconds": SECONDS,
      "manifest_sha256": "b" * 64,
    },
    "identity": {},
    "metrics": METRICS,
    "rows": [
      {
        "name": row,
        "kind": "model" if row == "generated" else "anchor",
        "metrics": {
          "onset_f1_50": {
            "value": float(v.mean()),
            "low": float(v.mean() - 0.05),
            "high": float(v.mean() + 0.05),
            "n": clips,
          },
          "fad": {
            "value": 10 * (1 - float(v.mean())),
            "low": 10 * (1 - float(v.mean())) - 3,
            "high": 10 * (1 - float(v.mean())) + 3,
            "n": clips,
          },
        },
      }
      for row, v in rows.items()
    ],
    "clips": entries,
    "curve": [
      {
        "step": step,
        "train/loss": 1.5 * np.exp(-step / 250) + 0.3 + 0.03 * np.sin(step),
        "train/grad_norm": 1.0 + 0.2 * np.cos(step),
        "perf/mfu": 0.21,
      }
      for step in range(10, 900, 10)
    ],
    "failures": [],
  } | over
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / "results.json"
  path.write_text(json.dumps(results))
  return path


def two_runs(root):
  """Writes results of two runs, of which the first is better; their files."""
  failures = [{"id": "x<y", "reason": "NaN"}]
  return [
    write_results(root / "a", "diffusion", shift=0.2, failures=failures),
    write_results(root / "b", "ar", failures=failures),
  ]


def load(path):
  """Reads one file of results for a report."""
  return loading.load_runs([path])[0]


def verdict(*paths) -> str:
  """Returns the whole verdict on results, each read by itself."""
  runs = [load(path) for path in paths]
  sentences = compare.verdict(runs, columns_of(runs))
  return " ".join(sentence.text for sentence in sentences)
