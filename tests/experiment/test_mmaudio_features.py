"""MMAudio's kind of generator: its files by name, its features in data sets."""

import dataclasses

from flax import nnx
import jax
import numpy as np
import pytest

from data_pipelines import features as features_lib
from data_pipelines.assemble import OutputOptions
from data_pipelines.derive import CopyOptions
from data_pipelines.schema import DataError
from data_pipelines.source import open_source
from tests import tiny
from tests.data_pipelines import samples
from tests.soundtrack import mmaudio_tiny
from v2a_jax.basics.settings import SettingError
from v2a_jax.experiment import features, load, precompute, sections, workdir
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models import lora
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training.program import make_program
from v2a_jax.weights import names

pytest.importorskip("tokenizers", reason="prompts are byte pairs")
DIM = 10 + 2 * 8  # of a frame, and two of synchronisation with it
ONE_SECOND = {"data": {"seconds": 1.0}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
  return mmaudio_tiny.save(tmp_path_factory.mktemp("bundle"), **ONE_SECOND)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """A data set, and its copy with features of the bundle's towers."""
  records = [samples.clip_record(i, seconds=1.5) for i in range(3)]
  return samples.write(tmp_path_factory.mktemp("sets") / "plain", records)


@pytest.fixture(scope="module")
def cached(bundle, clips, tmp_path_factory):
  out = tmp_path_factory.mktemp("sets") / "features"
  trained = load.load(bundle)
  precompute.write(
    trained.experiment,
    clips,
    out=out,
    options=CopyOptions(add=("features",)),
    output=OutputOptions(),
    model=lambda: trained.model,
    log=lambda _: None,
  )
  return str(out)


def config(bundle, paths, **changes):
  """A config that adapts the bundle to a data set."""
  values = mmaudio_tiny.config("")
  values["data"] |= {
    "paths": (paths,),
    "seconds": 1.0,
    "features": DIM,
    "crop": "start",
    "num_threads": 0,
  }
  values |= {
    "init_from": str(bundle),
    "eval_every": 0,
    "wandb_mode": "disabled",
    "lora": {"rank": 2, "targets": ("qkv", "out")},
  }
  for section, change in changes.items():
    values[section] = values[section] | change
  return values


def test_features_are_those_of_the_first_window(bundle, cached):
  records = open_source(cached, "train")
  found = features_lib.unpack(records[0]["features"], DIM)
  assert found.values.shape == (8, DIM) and not found.whole
  np.testing.assert_allclose(found.times, np.arange(8) / 8)
  length = np.linalg.norm(found.values[:, :10], axis=1)
  np.testing.assert_allclose(length, 1, rtol=1e-5)


def test_low_rank_changes_are_trained_on_features(bundle, cached, tmp_path):
  exp = workdir.open_experiment(config(bundle, cached), tmp_path)
  assert exp.data.encoder and not exp.data.frames
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1), jax.devices()[:1])
  with exp.open_loader("train") as loader:
    batch = exp.make_batch(next(loader))
  assert batch.cond.features.shape == (2, 8, DIM) and batch.cond.frames is None
  assert batch.cond.frame_mask.all() and batch.cond.prompt_mask.any()
  with jax.set_mesh(mesh):
    program = make_program(exp, mesh)
    state = tiny.train_state(program.state)
    leaves = names.flatten(state.params)
    assert {name[-1] for name in leaves} == set(lora.NEW)
    assert not any(name[:2] == ("conditioner", "clip") for name in leaves)
    state = jax.device_put(state, program.shardings)
    state, metrics = program.step(state, exp.frozen(), batch)
  assert np.isfinite(metrics["loss"])


def test_features_of_another_tower_are_refused(bundle, cached, tmp_path):
  other = mmaudio_tiny.save(tmp_path, **ONE_SECOND)
  trained = load.load(other)
  tower = trained.model.conditioner.clip
  tower.class_token.set_value(tower.class_token[...] + 1)
  mark = features.digest(
    trained.model.conditioner, names.flatten(nnx.state(trained.model))
  )
  exp = Experiment.from_config(config(bundle, cached))
  data = dataclasses.replace(exp.data, encoder=mark)
  with pytest.raises(DataError, match="cached features are of encoder="):
    dataclasses.replace(exp, data=data).open_loader("train")


def test_windows_whose_features_do_not_fit_are_refused(bundle, cached):
  changed = config(bundle, cached, data={"seconds": 2.0})
  exp = Experiment.from_config(changed)
  with pytest.raises(SettingError, match="seconds=2: .* use 8"):
    features.check_sizes(exp)


def test_a_tower_of_another_size_is_refused(bundle, cached):
  changed = config(bundle, cached)
  changed["model"]["conditioner"]["clip_dim"] = 11
  with pytest.raises(
    ConfigError, match="clip_dim=11, but clip 'open_clip' has"
  ):
    Experiment.from_config(changed)


def test_a_bundle_of_merged_changes_is_the_same_kind_of_model(bundle):
  exp = load.load(bundle).experiment
  assert exp.names["model"] == "mmaudio"
  resolved = sections.complete(exp.config)
  assert resolved["model"]["conditioner"]["sync"]["name"] == "synchformer"
