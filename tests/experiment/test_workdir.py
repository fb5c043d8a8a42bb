"""Starting from someone's weights, with the bundled model and a real config."""

import json
import pathlib
import shutil
import subprocess
import sys

from flax import nnx
import jax
import numpy as np
import pytest

from configs import ar_tiny, codec_tiny, finetune, mean_flow_tiny
from data_pipelines import manifest, schema, tokenizer
from data_pipelines.columns import store
from v2a_jax.basics import claim
from v2a_jax.codec import bundled
from v2a_jax.experiment import load, workdir
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.training.checkpoint import CheckpointError
from v2a_jax.weights import bundle, names


def first_weights(config):
  return Experiment.from_config(config).first_weights()


def tokenizers(config, folder, *, resumes=False):
  """The paths that a run in `folder` reads its tokenizers from."""
  experiment = Experiment.from_config(config)
  data = workdir._with_tokenizers(experiment, folder, resumes=resumes).data
  return data.tokenizer, data.prompt_tokenizer


@pytest.fixture
def data(tmp_path):
  """A data set of which only manifest and tokenizer are looked at."""
  folder = tmp_path / "data"
  folder.mkdir()
  model = bundle.find("diffusion_tiny") / bundle.TOKENIZER
  (folder / bundle.TOKENIZER).write_bytes(model.read_bytes())
  (folder / manifest.MANIFEST).write_text(
    json.dumps({"schema_version": schema.SCHEMA_VERSION, "splits": {"val": 1}})
  )
  return folder


def test_fine_tuning_starts_from_the_bundle_and_its_words(mesh, tmp_path):
  config = finetune.get_config()
  # As the loop reads them: with the mesh set.
  with jax.set_mesh(mesh):
    arrays = first_weights(config)
  wanted = names.flatten(nnx.state(load.load("diffusion_tiny").model))
  assert arrays.keys() == wanted.keys()
  for name, array in wanted.items():
    np.testing.assert_array_equal(arrays[name], array)
    assert arrays[name].dtype == array.dtype
  own = str(bundle.find("diffusion_tiny"))
  assert tokenizers(config, tmp_path)[0] == own
  config.data.tokenizer = "mine.model"
  assert tokenizers(config, tmp_path)[0] == "mine.model"


def test_low_rank_adaptation_starts_from_the_plain_weights():
  config = finetune.get_config()
  config.lora = dict(rank=4)
  found = first_weights(config)
  abstract = Experiment.from_config(config).abstract
  params, frozen = (names.flatten(part) for part in abstract[1:])
  assert {name[-1] for name in params} == {"lora_a", "lora_b"}
  assert frozen.keys() == found.keys()


def test_parts_that_the_source_lacks_start_fresh_where_that_is_said():
  config = mean_flow_tiny.get_config()
  found = first_weights(config)
  wanted = names.flatten(nnx.state(load.load("diffusion_tiny").model))
  parts = {("backbone", "time"), ("backbone", "interval")}
  assert found.keys() == {name for name in wanted if name[:2] not in parts}
  _, params, _ = Experiment.from_config(config).abstract
  new = names.flatten(params).keys() - found.keys()
  assert {name[:2] for name in new} == parts
  config.init_fresh = ("backbone/intervals",)
  with pytest.raises(
    ConfigError, match="nothing at 'backbone/intervals'.*backbone/out"
  ):
    first_weights(config)
  config.init_fresh = ()
  with pytest.raises(CheckpointError, match="backbone/interval/kernel"):
    first_weights(config)


def test_every_tensor_that_does_not_fit_is_named():
  config = finetune.get_config()
  config.model.modulation_rank = 0
  config.model.infill = True
  with pytest.raises(CheckpointError) as caught:
    first_weights(config)
  said = str(caught.value)
  assert "diffusion_tiny: " in said and "\n" not in said
  assert "backbone/embed/kernel is (96, 128), the model has (" in said
  assert "backbone/audio/blocks/modulation/down/kernel is extra" in said
  assert "backbone/final/up/kernel is (" in said


def test_a_run_goes_on_when_what_it_started_from_is_gone(tmp_path, data):
  config = finetune.get_config()
  config.data.paths = (str(data),)
  run = tmp_path / "run"
  workdir.open_experiment(config, run)
  (run / "checkpoints" / "5").mkdir(parents=True)
  config.init_from = "no/such/run"
  experiment = workdir.open_experiment(config, run)
  assert experiment.data.tokenizer == str(run)


def test_a_workdir_says_the_same_at_every_start(tmp_path, data):
  """So seeds of an arm are one arm, also where some were interrupted."""
  config = finetune.get_config()
  config.data.paths = (str(data),)
  run = tmp_path / "run"
  workdir.open_experiment(config, run)
  first = (run / "config.json").read_text()
  (run / "checkpoints" / "5").mkdir(parents=True)
  workdir.open_experiment(config, run)
  assert (run / "config.json").read_text() == first
  assert not list(run.glob("config.before*"))


def test_nothing_to_start_from_is_refused(tmp_path):
  config = finetune.get_config()
  config.init_from = "no/such/run"
  with pytest.raises(bundle.BundleError, match="no/such/run"):
    workdir.open_experiment(config, tmp_path)


def test_a_codec_goes_on_from_a_bundle_with_new_critics():
  config = codec_tiny.get_config()
  config.init_from = "codec_tiny"
  with pytest.raises(CheckpointError, match="discriminator/.* is missing"):
    first_weights(config)
  config.init_fresh = ("discriminator",)
  arrays = first_weights(config)
  codec = names.flatten(nnx.state(bundled.load("codec_tiny")))
  assert arrays.keys() == {("codec", *name) for name in codec}
  for name, array in codec.items():
    np.testing.assert_array_equal(arrays["codec", *name], array)


def test_a_codec_does_not_start_from_a_generator():
  config = codec_tiny.get_config()
  config.init_from = "diffusion_tiny"
  with pytest.raises(CheckpointError, match="diffusion_tiny: .*is missing"):
    first_weights(config)


@pytest.fixture
def trained(tmp_path, data):
  """A workdir with a checkpoint; opens it again with other settings."""
  config = ar_tiny.get_config()
  config.data.paths = (str(data),)
  run = tmp_path / "run"
  workdir.open_experiment(config, run)
  (run / "checkpoints" / "3").mkdir(parents=True)

  def again(**changes):
    config.update_from_flattened_dict(changes)
    return workdir.open_experiment(config, run)

  return again


@pytest.mark.parametrize(
  "key,value",
  [("model.depth", 9), ("codec", "other"), ("model.pattern", "parallel")],
)
def test_a_workdir_keeps_the_config_of_its_weights(
  trained, tmp_path, key, value
):
  if key == "codec":
    value = str(tmp_path / "other")
    shutil.copytree(bundle.find("codec_tiny"), value)
  before = (tmp_path / "run" / "config.json").read_text()
  with pytest.raises(ConfigError, match=rf"config.{key}=.* not '?{value}"):
    trained(**{key: value})
  assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_workdir_goes_on_with_more_steps(trained, tmp_path):
  trained(num_train_steps=7)
  assert bundle.read_config(tmp_path / "run")["num_train_steps"] == 7


def test_a_workdir_keeps_its_tokenizer(trained, data):
  model = tokenizer.train(["another tongue altogether"], vocab_size=512)
  (data / "other.model").write_bytes(model)
  with pytest.raises(ConfigError, match="another tokenizer"):
    trained(**{"data.tokenizer": str(data / "other.model")})


@pytest.mark.parametrize("text", ["", "[1]", '{"name": '])
def test_a_damaged_config_of_a_workdir_is_named(trained, tmp_path, text):
  (tmp_path / "run" / "config.json").write_text(text)
  with pytest.raises(bundle.BundleError, match="run/config.json is not"):
    trained()


def test_a_validation_split_that_is_empty_is_found_before_training(
  data, tmp_path
):
  config = ar_tiny.get_config()
  config.data.paths = (str(data),)
  text = (data / manifest.MANIFEST).read_text()
  (data / manifest.MANIFEST).write_text(text.replace("val", "train"))
  with pytest.raises(ConfigError, match="eval_every=1000.*set config.eval_ev"):
    workdir.open_experiment(config, tmp_path / "run")
  config.eval_every = 0
  assert workdir.open_experiment(config, tmp_path / "run")


def test_what_changed_is_named_and_the_settings_of_before_are_kept(
  trained, tmp_path, data, caplog
):
  trained(num_train_steps=8000)
  assert not caplog.messages
  trained(**{"optimizer.learning_rate": 1.0, "seed": 7})
  (said,) = caplog.messages
  assert "config.seed: 0 -> 7" in said and "learning_rate: " in said
  assert "from step 3" in said
  kept = json.loads((tmp_path / "run/config.before_step_3.json").read_text())
  assert kept["seed"] == 0

  changed = json.loads((data / manifest.MANIFEST).read_text())
  changed |= {"splits": {"val": 1, "train": 60}, "fingerprint": "other"}
  (data / manifest.MANIFEST).write_text(json.dumps(changed))
  caplog.clear()
  trained()
  (said,) = caplog.messages
  assert f"{data} is another data set than before (1 records, now 61)" in said


def test_an_average_cannot_be_dropped_on_the_way(trained):
  with pytest.raises(ConfigError, match="config.ema_decay=0.998, which keeps"):
    trained(ema_decay=0.0)


def test_a_damaged_config_is_named(trained, tmp_path):
  path = tmp_path / "run" / "config.json"
  path.write_text(path.read_text()[:100])
  with pytest.raises(bundle.BundleError, match="run/config.json is not JSON"):
    trained()


def test_each_step_waits_for_those_that_training_still_saves(tmp_path):
  """A process holds the workdir, saves and removes, and ends."""
  save = lambda step: (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
  save(2), save(10)
  code = (
    "import os, sys, time\n"
    "from v2a_jax.basics import claim\n"
    "with claim.held(sys.argv[1]):\n"
    "  print('held', flush=True)\n"
    "  for step in (12, 14, 16):\n"
    "    time.sleep(0.4)\n"
    "    os.mkdir(f'{sys.argv[1]}/checkpoints/{step}')\n"
    "    if step == 16:\n"
    "      os.rmdir(f'{sys.argv[1]}/checkpoints/14')\n"
  )
  run = subprocess.Popen(
    [sys.executable, "-c", code, str(tmp_path)],
    stdout=subprocess.PIPE,
    cwd=pathlib.Path(__file__).parents[2],
  )
  assert run.stdout.readline() == b"held\n"
  assert claim.is_held(tmp_path)
  found, said = [], []
  for step in workdir.each_step(tmp_path, log=said.append, seconds=0.1):
    found.append(step)
    if step == 12:
      run.wait()  # Judging it takes so long that 14 is gone by then.
  assert found == [2, 10, 12, 16] and run.returncode == 0
  assert said == [f"{tmp_path}: waiting for the checkpoint after step 10"]
  assert not claim.is_held(tmp_path)
  assert list(workdir.each_step(tmp_path, seconds=100)) == [2, 10, 12, 16]


def test_columns_that_were_measured_again_are_named(
  trained, tmp_path, data, caplog
):
  def measure(level):
    with store.Journal(data, "levels") as journal:
      journal.add("a", "1", {"silence": level})
      journal.finish()

  measure(0.1)
  admit = {"data.admit": "silence < 0.5 or missing(silence)"}
  trained(**admit)
  caplog.clear()
  trained(**admit)
  assert not any("columns" in said for said in caplog.messages)
  measure(0.9)
  trained(**admit)
  (said,) = [said for said in caplog.messages if "columns" in said]
  assert f"the columns of {data} are not those of before" in said
