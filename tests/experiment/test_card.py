"""The card of a model says what is known, and what is not."""

import json
import re

from flax import nnx
import pytest

from configs import codec_tiny, diffusion_tiny
from data_pipelines.build import SceneOptions, build_scenes
from v2a_jax.experiment import card
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.weights import bundle

SECTIONS = ["Data", "Licence", "Training", "Measured", "Limits"]
SOURCE = {"step": 7, "clips_seen": 56, "train_seconds": 125.0}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "scenes"
  options = SceneOptions(seconds=2, fps=1, size=8, held_out=0.25)
  build_scenes(4, 3, out=folder, options=options, log=lambda line: None)
  return folder


def written(module, workdir, paths, *evaluations, source=SOURCE, **changes):
  """What a card says first, and then by section."""
  config = module.get_config()
  config.data.paths = tuple(map(str, paths))
  config.update(changes)
  experiment = Experiment.from_config(config)
  text = card.write(
    experiment,
    source | {"path": str(workdir)},
    model=nnx.merge(*experiment.abstract),
    bundle="mine",
    evaluations=evaluations,
  )
  parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
  return parts[0], dict(zip(parts[1::2], parts[2::2]))


def results(rows, **metrics):
  """What `v2a eval` writes of rows, each with every metric."""
  names = {"onset_f1_50ms": "Onset F1", "lip_error": "Lip error"}
  entry = lambda id_: {
    "label": names.get(id_, id_), "unit": "", "role": "quality"
  }  # fmt: skip
  score = lambda v: {"value": v, "low": v - 0.25, "high": v + 0.25}
  return {
    "set": {"path": "data/x", "split": "test", "n": 48},
    "metrics": {id_: entry(id_) for id_ in metrics},
    "rows": [
      {
        "name": name,
        "metrics": {id_: score(v + i) for id_, v in metrics.items()},
      }
      for i, name in enumerate(rows)
    ],
  }


def test_what_the_run_knows_is_in_the_card(scenes, tmp_path):
  row = {"step": 7, "eval_mean/loss": 0.5}
  (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
  about, said = written(diffusion_tiny, tmp_path, [scenes, "gone"], seed=41)
  assert [*said] == [*SECTIONS, "How to use it"]
  assert about.startswith("# diffusion_tiny\n") and "3.48 M param" in about
  assert "16000 Hz" in about and "32 x 32 pixels" in about
  assert "2 procedural scenes, seed 3 | CC0-1.0 (2)" in said["Data"]
  assert "| `gone` | 50% | not known" in said["Data"]
  assert "`codec_tiny`" in said["Licence"]
  for fact in ("7 of ", "56 clips", "2:05", "seed 41"):
    assert fact in said["Training"]
  assert "`eval_mean/loss` 0.5" in said["Measured"]
  assert "--checkpoint mine" in said["How to use it"]


def test_what_was_not_measured_is_said_with_its_command(tmp_path):
  _, said = written(diffusion_tiny, tmp_path, ["data/x"])
  video, lips = said["Limits"].split("**Lips.**")
  assert "Quality of the video" in video
  for part, command in (
    (said["Measured"], f"v2a eval {tmp_path} --set"),
    (video, f"v2a eval {tmp_path} --set DATA --degraded"),
    (lips, f"v2a eval {tmp_path} --set data/talk"),
  ):
    assert card.NOT_MEASURED in part and command in part
  # Nobody but the owner can say under which licence the weights are.
  assert card.FILL_IN in said["Licence"] and card.FILL_IN in said["Data"]


def test_an_average_of_another_length_is_measured_as_the_bundle(tmp_path):
  _, said = written(
    diffusion_tiny,
    tmp_path,
    ["data/x"],
    source=SOURCE | {"average_length": 0.07},
  )
  assert "average of the weights of length 0.07" in said["Training"]
  assert "v2a eval mine --set DATA" in said["Measured"]
  assert str(tmp_path) not in "".join(said.values())


def test_what_was_measured_takes_its_place(tmp_path):
  pictures = results(["generated", "slow_video"], onset_f1_50ms=0.5)
  lips = results(
    ["generated", "shuffled_video"], lip_error=40.0, lips_in_time=1
  )
  _, said = written(diffusion_tiny, tmp_path, ["data/x"], pictures, lips)
  assert card.NOT_MEASURED not in "".join(said.values())
  video, spoken = said["Limits"].split("**Lips.**")
  assert "48 clips of `data/x` (test)" in video
  assert "| | as it is | 5 frames a second |" in video
  assert "| Onset F1 | 0.5 [0.25, 0.75] | 1.5 [1.25, 1.75] |" in video
  assert "| Lip error | 40 [39.8, 40.2] | 41 [" in spoken
  _, half = written(diffusion_tiny, tmp_path, ["data/x"], pictures)
  assert half["Limits"].count(card.NOT_MEASURED) == 1


def test_a_codec_has_a_card_without_what_only_generators_do(tmp_path):
  about, said = written(codec_tiny, tmp_path, ["data/x"])
  assert "codec of sound" in about and [*said] == SECTIONS
  assert "Lips" not in said["Limits"]


def test_a_bundle_has_the_card_that_it_came_with():
  found = card.served("diffusion_tiny", {"step": 9})
  assert found == (bundle.find("diffusion_tiny") / bundle.CARD).read_text()


def test_a_workdir_says_how_far_it_is_and_that_it_is_not_measured(tmp_path):
  source = {"path": str(tmp_path), "step": 400, "clips_seen": 3200}
  found = card.served(str(tmp_path), source | {"train_seconds": 90.0})
  assert "400 steps, 3200 clips, 1.5 minutes" in found
  assert "Limits" in found and "lips" in found and "v2a eval" in found
  assert str(tmp_path) not in found


@pytest.mark.parametrize("name", ["mmaudio:small_16k", "mmaudio:large_44k_v2"])
def test_a_published_model_names_the_licence_of_every_file(name):
  found = card.served(name, {"path": name})
  assert "not for commercial use" in found and "Limits" in found
  network = "mmaudio_" + name.partition(":")[2]
  (row,) = [line for line in found.splitlines() if f"`{network}`" in line]
  assert row.endswith("| CC-BY-NC-4.0 |")
  assert "`clip_dfn5b`" in found and "apple-sample-code-license" in found
