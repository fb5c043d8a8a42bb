"""Which clips can be heard: chosen by score of all, in one page of 25 MB."""

import json
import re
import shutil

from flashes import Follower, evaluate_quickly
import numpy as np
import pytest
from report_results import write_results

from v2a_jax import media
from v2a_jax.evaluation import selection
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.evaluation.report import page
from v2a_jax.weights import registry as weights


class Late(Follower):
  """A model that is late by 15 ms times the seed of a clip."""

  def sample(self, cond, *, seed, seconds, sampler):
    made = super().sample(cond, seed=seed, seconds=seconds, sampler=sampler)
    delays = [round(0.015 * int(one) * self.sample_rate) for one in seed]
    return np.stack([np.roll(x, by, axis=0) for x, by in zip(made, delays)])


@pytest.mark.parametrize("keep_sounds", [False, True])
def test_the_worst_and_the_best_clip_of_all_can_be_heard(
  data, tmp_path, monkeypatch, keep_sounds
):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  content = evaluate_quickly(
    data,
    tmp_path / "out",
    tracker=Late(data),
    metrics=[m for m in METRICS if m.id == "sync_error"],
    num_clips=None,
    batch_size=2,
    gallery_clips=4,
    keep_sounds=keep_sounds,
  )
  errors = [c["scores"]["generated"]["sync_error"] for c in content["clips"]]
  heard = [i for i, clip in enumerate(content["clips"]) if clip["audio"]]
  assert len(errors) > 4 and len(heard) == 4
  # Two are shared by all systems; of the others the best and the worst.
  assert heard == [0, 1, *np.argsort(errors)[[2, -1]]]
  for i in heard:
    audio = content["clips"][i]["audio"]
    assert set(audio) == {row["name"] for row in content["rows"]}
    true, made = (
      media.read_audio(
        tmp_path / "out" / audio[row], sample_rate=Late.sample_rate
      ).samples[:, 0]
      for row in ("ground_truth", "generated")
    )
    lag = np.argmax(np.correlate(made, true, "full")) - len(true) + 1
    assert lag == pytest.approx(0.015 * i * Late.sample_rate, abs=30)
  assert (tmp_path / "out" / "sounds").is_dir() == keep_sounds


def test_chosen_clips_go_from_the_worst_to_the_best():
  scores = np.random.default_rng(0).permutation(41) / 40
  about = {"higher_is_better": True}
  run = {
    "metrics": {"f1": about},
    "clips": [
      {"id": f"{i}", "scores": {"generated": {"f1": float(score)}}}
      for i, score in enumerate(scores)
    ],
  }
  chosen = selection.choose(run, 10)
  assert chosen[:5] == ["0", "1", "2", "3", "4"] and len({*chosen}) == 10
  rest = sorted(scores[5:])
  found = [scores[int(id_)] for id_ in chosen[5:]]
  assert found[0] == rest[0] and found[-1] == rest[-1]
  assert found[2] == pytest.approx(np.median(rest), abs=0.03)
  assert selection.choose(run, 50) == [clip["id"] for clip in run["clips"]]


def test_files_that_cannot_be_made_smaller_stay_as_they_are(tmp_path):
  """A picture that is a sound, and a sound that is cut off."""
  path = write_results(tmp_path / "a", "run", with_media=3, clips=3)
  folder = tmp_path / "a" / "media"
  shutil.copy(folder / "clip_000.codec.m4a", folder / "clip_000.mp4")
  cut = folder / "clip_001.generated.m4a"
  cut.write_bytes(cut.read_bytes()[:500])
  out = page.write_report([path], tmp_path / "r.html", max_bytes=1000)
  text = out.read_text()
  assert "no sound could be read" in text
  data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
  kept = [tmp_path / clip["video"] for clip in data["clips"]]
  assert (folder / "clip_000.mp4").read_bytes() in [
    file.read_bytes() for file in kept
  ]


def noises(folder, names, seed):
  """Writes sounds of 8 s as an evaluation keeps them."""
  folder.mkdir(exist_ok=True)
  rng = np.random.default_rng(seed)
  for name in names:
    noise = 0.1 * rng.standard_normal((8 * 48_000, 2))
    media.encode_audio(folder / f"{name}.m4a", noise.astype(np.float32), 48_000)


def results_with_sounds(folder, name, *, shared):
  """Writes results whose 20 clips all have a picture and eight sounds."""
  path = write_results(folder / name, name, with_media=1, clips=20)
  content = json.loads(path.read_text())
  video, kept = content["clips"][0]["video"], folder / name / "sounds"
  shutil.copytree(shared, kept)
  noises(kept, ("generated", "codec", "shuffled_video"), seed=ord(name))
  audio = {file.stem: f"sounds/{file.name}" for file in kept.iterdir()}
  for clip in content["clips"]:
    clip |= {"duration": 8.0, "video": video, "audio": audio}
  path.write_text(json.dumps(content))
  return path


def test_twenty_clips_of_four_runs_are_one_page_under_25_megabytes(tmp_path):
  shared = tmp_path / "shared"
  anchors = ("ground_truth", "shifted", "metronome", "silence", "noise")
  noises(shared, anchors, seed=0)
  paths = [
    results_with_sounds(tmp_path, name, shared=shared) for name in "abcd"
  ]
  # Each clip has the three of each run, and the five that all runs share.
  whole = sum(file.stat().st_size for file in tmp_path.rglob("*/sounds/*.m4a"))
  whole -= 3 * sum(file.stat().st_size for file in shared.iterdir())
  assert 20 * whole * 4 / 3 > 75e6
  out = page.write_report(paths, tmp_path / "r.html")
  assert 5e6 < out.stat().st_size < 25e6
  assert not (tmp_path / "r_media").exists()
  text = out.read_text()
  assert "To keep the page small" in text
  data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
  cards = text.split('<article class="clip"')[1:]
  assert len(data["clips"]) == 20
  for clip, card in zip(data["clips"], cards, strict=True):
    names = re.findall(r"</span>([^<]*)</span>\s*</button>", card)
    assert len(clip["tracks"]) >= 5 and [*"abcd"] == names
    assert "Ground truth" in card
