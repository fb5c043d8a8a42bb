"""Sounds that a run makes of validation clips while it trains."""

from flax import nnx
import jax
import numpy as np
import pytest
import soundfile

from configs import diffusion_tiny
from data_pipelines.build import SceneOptions, build_scenes
from tests import small_runs
from tests.launch.commands import refused
from v2a_jax import media
from v2a_jax.batch import Batch
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.load import Trained
from v2a_jax.parallel import sharding
from v2a_jax.soundtrack.samples import Samples
from v2a_jax.soundtrack.tracker import Soundtracker

CLIPS = 3  # What a mesh of two by two does not divide.


@pytest.fixture(scope="module")
def made(tmp_path_factory, mesh):
  """What a run on eight devices writes, and the same weights on one."""
  folder = tmp_path_factory.mktemp("samples")
  options = SceneOptions(seconds=2.0, fps=8, size=16, held_out=0.5)
  build_scenes(6, out=folder / "scenes", options=options, log=lambda _: None)
  config = small_runs.config_of(
    diffusion_tiny,
    folder / "scenes",
    **{"eval_samples": CLIPS, "sampler.num_steps": 2, "model.joint_depth": 1},
  )
  experiment = Experiment.from_config(config)
  model = experiment.make_model(nnx.Rngs(0))
  graphdef, params, buffers = nnx.split(model, nnx.Param, ...)
  # Fresh weights say nothing: their last layer is zero.
  shake = lambda x: x + 0.1 * np.random.default_rng(x.size).normal(size=x.shape)
  params = jax.tree.map(lambda x: shake(x).astype(x.dtype), params)
  with jax.set_mesh(mesh):
    layouts = sharding.state_shardings(jax.eval_shape(lambda: params), mesh)
    split = jax.device_put(params, layouts)
    Samples(experiment)(split, buffers, mesh=mesh, folder=folder / "7")
  assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(split))
  tokenizer = {"tokenizer": str(folder / "scenes" / "tokenizer.model")}
  trained = Trained(
    experiment, nnx.merge(graphdef, params, buffers), tokenizer, {}
  )
  return folder / "7", Soundtracker(trained)


def test_they_are_what_the_weights_say_of_the_first_clips(made):
  """In parts over a mesh the weights make the sounds that they make whole."""
  folder, tracker = made
  loader = tracker.experiment.open_loader("val")
  arrays = [next(loader), next(loader)]
  loader.close()
  clips = jax.tree.map(lambda *x: np.concatenate(x)[:CLIPS], *arrays)
  expected = tracker.sample(
    Batch.from_arrays(clips).cond, seed=0, seconds=clips["duration"]
  )
  for i, wanted in enumerate(expected):
    sound, rate = soundfile.read(folder / f"clip_{i}.wav", always_2d=True)
    assert rate == tracker.sample_rate and abs(len(sound) / rate - 1) < 0.02
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(sound, np.clip(wanted, -1, 1), atol=2e-3)


def test_a_video_has_the_frames_and_the_sound(made):
  folder, _ = made
  assert len(list(folder.iterdir())) == 2 * CLIPS
  for i in range(CLIPS):
    info = media.probe(folder / f"clip_{i}.mp4")
    assert info.has_audio and float(info.duration) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
  "config,flags,words",
  [
    ("diffusion_tiny", ["--config.eval_every=0"], "set eval_every"),
    ("codec_tiny", [], "only a generator makes sound"),
  ],
)
def test_a_run_that_cannot_make_them_is_refused(
  config, flags, words, tmp_path, capsys
):
  line = refused(
    *(capsys, "train", f"--config=configs/{config}.py"),
    *("--config.eval_samples=2", f"--workdir={tmp_path}", *flags),
  )
  assert words in line
