"""An encoder that is frozen, adapted or cached, in runs of real scenes."""

import dataclasses
import functools
import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_tiny
from data_pipelines import features as features_lib
from data_pipelines import tokenizer
from data_pipelines.schema import DataError
from data_pipelines.source import open_source
from launch import cli
from tests import small_runs, tiny
from v2a_jax.basics.settings import SettingError
from v2a_jax.experiment import cost, features, workdir
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models import lora
from v2a_jax.training.optimizer import make_optimizer
from v2a_jax.training.state import TrainState, abstract_model
from v2a_jax.training.step import make_train_step
from v2a_jax.weights import bundle, names

# As in all small runs, but with a joint block and decoded clips in memory.
SMALL = {"data.cache_mb": 16.0, "model.joint_depth": 1, "eval_every": 0}
PIXELS = dict(name="pixels", stride=3, spatial_width=16, spatial_depth=1)
VIT = dict(name="vit", stride=2, sizes=dataclasses.asdict(tiny.TOWER.sizes))
STREAMS = {"single": None, "pixels": PIXELS, "vit": VIT}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  """Three scenes, twice as long as a window."""
  return small_runs.render_scenes(tmp_path_factory.mktemp("data"))


def config_of(scenes, streams="single", **changes):
  changes = SMALL | {"data.frame_size": (16, 24)} | changes
  semantic = STREAMS[streams] or {}
  config = small_runs.config_of(diffusion_tiny, scenes, **changes)
  with config.unlocked():
    config.model.conditioner.semantic.update(semantic)
  return config


@functools.cache
def checkpoint(folder, scenes, streams, seed=0):
  """A bundle of random weights, none of them zero."""
  experiment = Experiment.from_config(config_of(scenes, streams))
  make = lambda: experiment.make_model(nnx.Rngs(0))
  out = folder / f"{streams}{seed}"
  words = tokenizer.Tokenizer.load(scenes).model
  bundle.save(
    out,
    nnx.state(tiny.drawn(make, seed)),
    experiment.config,
    card="",
    tokenizer=words,
    dtype="float32",
  )
  return str(out)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
  return tmp_path_factory.mktemp("bundles")


def start(experiment):
  """(graphdef, parameters, the rest) with the initial weights."""
  graphdef, *parts = abstract_model(experiment.make_model)
  arrays = experiment.first_weights()
  assert set().union(*map(names.flatten, parts)) == arrays.keys()
  return graphdef, *(names.fill(part, arrays) for part in parts)


def losses(experiment, batches=3):
  """Per-example losses of the first batches, from the initial weights."""
  graphdef, *parts = start(experiment)

  @jax.jit
  def run(parts, frozen, batch):
    model = nnx.merge(graphdef, *parts)
    batch = experiment.target(frozen, batch)
    return experiment.objective.loss(
      model, batch, key=jax.random.key(0), train=True
    )[0]

  found, seen = [], []
  with experiment.open_loader("train") as loader:
    for _ in range(batches):
      batch = experiment.make_batch(next(loader))
      found.append(run(parts, experiment.frozen(), batch))
      seen.append(batch)
  return np.stack(found), seen


@pytest.mark.parametrize("streams", STREAMS)
def test_cached_features_train_as_the_frozen_encoder_does(
  streams, scenes, bundles, tmp_path, capsys
):
  source = checkpoint(bundles, scenes, streams)
  seen = str(tmp_path / "seen")
  command = [
    "data",
    "precompute",
    scenes,
    "--add",
    "features",
    "--checkpoint",
    source,
    "-o",
    seen,
  ]
  assert cli.main(command) == 0, capsys.readouterr().err
  facts = json.loads((tmp_path / "seen/manifest.json").read_text())["features"]
  # What a frame's neighbours have a say in is cached for one window only.
  crop = "random" if streams == "vit" else "start"
  shared = {
    "init_from": source,
    "model.conditioner.tune": "frozen",
    "data.crop": crop,
  }
  frozen = config_of(scenes, streams, **shared)
  cached = config_of(seen, streams, **shared)
  cached.data.features = facts["dim"]
  plain = workdir.open_experiment(frozen, tmp_path / "frozen")
  quick = workdir.open_experiment(cached, tmp_path / "cached")
  wanted, batches = losses(plain)
  found, others = losses(quick)
  np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
  assert np.ptp(wanted) > 1e-3
  assert (others[0].cond.frames is None) == (streams == "single")
  assert others[0].cond.features.shape == (2, 8, facts["dim"])
  for a, b in zip(batches, others):
    np.testing.assert_array_equal(a.cond.frame_times, b.cond.frame_times)
  flops = [cost.inspect(e)["flops"]["training"] for e in (quick, plain)]
  assert flops[0] < flops[1]


def test_features_of_another_encoder_are_refused(scenes, bundles, tmp_path):
  ours, theirs = (checkpoint(bundles, scenes, "single", seed=s) for s in (0, 1))
  seen = str(tmp_path / "seen")
  cli.main(
    [
      "data",
      "precompute",
      scenes,
      "--add",
      "features",
      "--checkpoint",
      theirs,
      "-o",
      seen,
    ]
  )
  shared = {"init_from": ours, "model.conditioner.tune": "frozen"}

  def refused(where=seen, **changes):
    changes = {"data.features": 16, "data.crop": "start"} | changes
    config = config_of(where, **(shared | changes))
    with pytest.raises((DataError, ConfigError, SettingError)) as error:
      made = workdir.open_experiment(config, tmp_path / "run")
      with made.open_loader("train") as loader:
        next(loader)
    assert "\n" not in str(error.value)
    return str(error.value)

  assert "cached features are of encoder=" in refused()
  theirs = {"init_from": theirs}
  assert "of fps=8.0, this run has 4.0" in refused(
    **theirs, **{"data.fps": 4.0}
  )
  assert "frame_size" in refused(**theirs, **{"data.frame_size": 16})
  assert "set data.crop='start'" in refused(**theirs, **{"data.crop": "random"})
  assert "has 16 features per frame" in refused(
    **theirs, **{"data.features": 5}
  )
  assert "no cached features" in refused(scenes, **theirs)
  full = {"model.conditioner.tune": "full"}
  assert "set 'frozen'" in refused(**theirs, **full)
  # The records of a set without features are as they were.
  records = [open_source(path, "train")[1] for path in (scenes, seen)]
  assert features_lib.unpack(records[1].pop("features"), 16).values.any()
  assert records[0].pop("features") == b""
  assert records[0] == records[1]


def test_the_first_model_of_a_config_may_give_the_features(
  scenes, bundles, tmp_path
):
  """As its checkpoint does: same bytes."""
  source = checkpoint(bundles, scenes, "vit")
  of = {}
  for name in ("checkpoint", "config"):
    out = tmp_path / name
    how = ["--checkpoint", source]
    if name == "config":
      file = tmp_path / "config.py"
      config = config_of(scenes, "vit", init_from=source)
      file.write_text(
        "from ml_collections import config_dict\n"
        f"def get_config():\n  return config_dict.ConfigDict({config.to_dict()})"
      )
      how = [f"--config={file}"]
    assert (
      cli.main(
        [
          "data",
          "precompute",
          scenes,
          "--add",
          "features",
          *how,
          "-o",
          str(out),
        ]
      )
      == 0
    )
    of[name] = [
      r["features"] for r in map(open_source(out).__getitem__, range(3))
    ]
  assert of["checkpoint"] == of["config"]


def test_records_without_a_picture_have_no_features():
  found = features_lib.unpack(b"", 5)
  assert found.values.shape == (0, 5)


def test_features_come_back_and_damage_is_named():
  rng = np.random.default_rng(0)
  values = rng.standard_normal((7, 5)).astype(np.float32)
  given = features_lib.Features(np.arange(7) / 12.5, values, whole=False)
  data = features_lib.pack(given)
  found = features_lib.unpack(data, 5)
  np.testing.assert_array_equal(found.values, values)
  np.testing.assert_array_equal(found.times, given.times)
  assert found.values.dtype == np.float32 and found.whole is False
  with pytest.raises(DataError, match="are 5 numbers a frame, should be 4"):
    features_lib.unpack(data, 4)
  middle = len(data) // 2
  spoiled = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
  for bad in (data[:-40], data[:50], b"x", spoiled):
    with pytest.raises(DataError, match="damaged.*data precompute"):
      features_lib.unpack(bad, 5)


def tuned(streams, **changes):
  changes = {f"model.conditioner.{k}": v for k, v in changes.items()}
  return config_of("no/such/data", streams, **changes)


@pytest.mark.parametrize("streams", STREAMS)
def test_tune_says_what_of_the_frame_part_is_trained(streams):
  place = "video" if streams == "single" else "semantic"
  parts = ("tower",) if streams == "vit" else ("embed", "spatial", "pool")
  looks = lambda name: name[1] == place and name[2] in parts

  def trained(**changes):
    config = tuned(streams, **changes)
    _, params, rest = Experiment.from_config(config).abstract
    return names.flatten(params), names.flatten(rest)

  full, nothing = trained()
  assert not nothing
  params, rest = trained(tune="frozen")
  assert set(rest) == {name for name in full if looks(name)}
  assert set(params) == set(full) - set(rest)
  params, rest = trained(tune="lora", lora=dict(rank=2))
  new = {name for name in params if name[-1] in lora.NEW}
  assert new and all(map(looks, new))
  assert set(rest) == {name for name in full if looks(name)}
  assert set(params) - new == set(full) - set(rest)


def test_a_step_leaves_what_is_frozen_as_it_is(scenes, bundles, tmp_path):
  source = checkpoint(bundles, scenes, "vit")
  config = config_of(
    scenes, "vit", init_from=source, **{"model.conditioner.tune": "frozen"}
  )
  e = workdir.open_experiment(config, tmp_path / "run")
  optimizer = make_optimizer(e.optimizer, 10)
  graphdef, params, rest = start(e)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    buffers=rest,
    opt_state=optimizer.init(params),
    ema=None,
    skipped=jnp.zeros((), jnp.int32),
    skipped_in_row=jnp.zeros((), jnp.int32),
  )
  step = make_train_step(
    graphdef, e.objective, e.optimizer, 10, target=e.target
  )
  with e.open_loader("train") as loader:
    batch = e.make_batch(next(loader))
  after, _ = jax.jit(step)(state, e.frozen(), batch)
  frozen, given = names.flatten(after.buffers), e.first_weights()
  assert {name[:3] for name in frozen} == {("conditioner", "semantic", "tower")}
  for name, leaf in frozen.items():
    np.testing.assert_array_equal(leaf, given[name])
  moved = names.flatten(after.params)
  for name in (
    ("conditioner", "semantic", "project", "kernel"),
    ("conditioner", "video", "embed", "kernel"),
    ("backbone", "out", "kernel"),
  ):
    assert np.any(moved[name] != given[name]), name


@pytest.mark.parametrize(
  "changes,said",
  [
    (dict(tune="frosen"), "tune='frosen' is not one of full, lora, frozen"),
    (dict(tune="lora"), "tune='lora' with lora.rank=0"),
    (dict(lora=dict(rank=2)), "tune='full' with lora.rank=2"),
    (dict(semantic=dict(name="vitt")), "name='vitt' is not one of"),
    (dict(semantic=dict(name="vit")), "semantic.path=''"),
    (
      dict(semantic=dict(name="pixels", strid=2)),
      "strid: no such key, did you mean stride",
    ),
    (dict(semantic=dict(name="vit", path="no/such")), "no/such.*not found"),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, said):
  config = diffusion_tiny.get_config().to_dict()
  config["model"]["conditioner"].update(changes)
  with pytest.raises((ValueError, OSError), match=said):
    Experiment.from_config(config)


def test_a_random_encoder_is_not_frozen(scenes, tmp_path):
  config = config_of(scenes, **{"model.conditioner.tune": "frozen"})
  with pytest.raises(ConfigError, match="set config.init_from"):
    workdir.open_experiment(config, tmp_path / "run")


@pytest.fixture
def tower(publish):
  """(a published tower, its folder)."""
  transformers = pytest.importorskip("transformers")
  sizes = dataclasses.asdict(tiny.TOWER.sizes)
  known = transformers.SiglipVisionConfig().to_dict()
  config = transformers.SiglipVisionConfig(
    **{k: v for k, v in sizes.items() if k in known}
  )
  model = transformers.SiglipVisionModel(config)
  return model, publish(model)


def test_a_published_tower_is_what_a_new_run_starts_with(
  tower, scenes, tmp_path, mesh
):
  reference, folder = tower
  folder = folder.rename(f"{tmp_path}-tower")
  tmp_path.mkdir()
  config = config_of(scenes, "vit", **{"model.conditioner.tune": "frozen"})
  config.model.conditioner.semantic = dict(name="vit", path=str(folder))
  e = workdir.open_experiment(config, tmp_path / "run")
  with jax.set_mesh(mesh):  # as the loop reads them
    given = e.first_weights()
  first = features.first_model(Experiment.from_config(config))
  encoder = first.conditioner.semantic
  frames = tiny.conditioning(2, n=3).frames
  found = encoder.embed_frames(frames, np.ones((2, 3), bool))
  import torch

  from v2a_jax.pretrained import pixels

  seen = pixels.preprocess(frames, size=24, mean=(0.5,) * 3, std=(0.5,) * 3)
  seen = np.array(seen).reshape(-1, 24, 24, 3).transpose(0, 3, 1, 2)
  with torch.no_grad():
    wanted = reference(pixel_values=torch.tensor(seen)).pooler_output
  np.testing.assert_allclose(
    found.reshape(6, -1), wanted.numpy(), rtol=0, atol=1e-5
  )
  assert {name[:3] for name in given} == {("conditioner", "semantic", "tower")}
  # The workdir of a run tells the sizes where the folder is not.
  folder.rename(tmp_path / "moved")
  (tmp_path / "run/checkpoints/1").mkdir(parents=True)
  assert workdir.open_experiment(config, tmp_path / "run")
  kept = bundle.read_config(tmp_path / "run")
  assert kept["model"]["conditioner"]["semantic"]["sizes"]["hidden_size"] == 24
  with pytest.raises(OSError, match="not found"):
    workdir.open_experiment(config, tmp_path / "another")


def test_a_tower_of_other_sizes_is_refused(tower, scenes, tmp_path):
  _, folder = tower
  config = config_of(scenes, "vit")
  config.model.conditioner.semantic = STREAMS["vit"] | dict(path=str(folder))
  with config.unlocked():
    config.model.conditioner.semantic.sizes.image_mean = (0.4, 0.5, 0.6)
  with pytest.raises(ConfigError, match="sizes.image_mean=.*0.4"):
    Experiment.from_config(config).first_weights()
