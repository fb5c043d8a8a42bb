"""Copies of a data set for faster reading: the same training, or a refusal."""

import json

from flax import nnx
import jax
import numpy as np
import pytest

from configs import ar_tiny, diffusion_tiny
from data_pipelines.assemble import OutputOptions
from data_pipelines.derive import copy_with
from data_pipelines.schema import DataError
from data_pipelines.source import open_source
from launch import cli
from tests import small_runs, tiny
from v2a_jax import media
from v2a_jax.basics.settings import SettingError
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError

ARMS = {"latents": diffusion_tiny, "codes": ar_tiny}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
  """Three scenes, twice as long as a window."""
  return small_runs.render_scenes(tmp_path_factory.mktemp("data"))


def config_of(path, arm="latents", **changes):
  changes = {"data.crop": "start"} | changes
  return small_runs.config_of(ARMS[arm], path, **changes)


def experiment_of(path, arm="latents", **changes):
  return Experiment.from_config(config_of(path, arm, **changes))


def precompute(source, out, *flags, arm="latents", **changes):
  """Runs the command on the config of an arm; returns the copy's path."""
  config = config_of(source, arm, **changes)
  file = out.with_suffix(".py")
  file.write_text(
    "from ml_collections import config_dict\n"
    f"def get_config():\n  return config_dict.ConfigDict({config.to_dict()})"
  )
  command = ["data", "precompute", source, *flags, f"--config={file}"]
  assert cli.main([*command, "-o", str(out)]) == 0
  return str(out)


def batches(experiment, steps=3):
  with experiment.open_loader("train") as loader:
    return [experiment.make_batch(next(loader)) for _ in range(steps)]


@pytest.mark.parametrize("crop", ["start", "random"])
def test_raw_frames_are_those_of_the_source_bit_for_bit(scenes, tmp_path, crop):
  raw = precompute(scenes, tmp_path / "raw", "--media=raw")
  changes = {"data.crop": crop}
  for a, b in zip(
    batches(experiment_of(scenes, **changes)),
    batches(experiment_of(raw, **changes)),
  ):
    np.testing.assert_array_equal(a.cond.frames, b.cond.frames)
    np.testing.assert_allclose(
      a.cond.frame_times, b.cond.frame_times, rtol=0, atol=1e-6
    )
    assert a.cond.frame_mask.all() and a.cond.frames.any()
    np.testing.assert_allclose(a.audio, b.audio, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(a.duration, b.duration)


def test_small_h264_is_the_picture_at_the_models_size(scenes, tmp_path):
  small = precompute(scenes, tmp_path / "small", "--media=h264")
  info = media.probe(open_source(small)[0]["video"])
  assert (info.video_codec, info.height, info.width) == ("h264", 16, 16)
  assert info.fps == pytest.approx(8, abs=0.3)
  (a,), (b,) = (batches(experiment_of(path), 1) for path in (scenes, small))
  difference = np.abs(a.cond.frames.astype(int) - b.cond.frames.astype(int))
  assert difference.mean() < 6


@pytest.mark.parametrize("arm", ARMS)
def test_cached_targets_train_as_the_codec_in_the_step_does(
  scenes, tmp_path, arm
):
  fast = precompute(scenes, tmp_path / "fast", "--add", "target", arm=arm)
  plain = experiment_of(scenes, arm)
  quick = experiment_of(fast, arm, **{"data.cached_target": True})
  model = tiny.drawn(lambda: plain.make_model(nnx.Rngs(0)))

  def losses(experiment, found):
    @jax.jit
    def run(frozen, batch):
      batch = experiment.target(frozen, batch)
      return experiment.objective.loss(
        model, batch, key=jax.random.key(0), train=True
      )[0]

    return [run(experiment.frozen(), batch) for batch in found]

  given, cached = batches(plain, 2), batches(quick, 2)
  assert cached[0].audio is None and cached[0].target.any()
  np.testing.assert_allclose(
    losses(quick, cached), losses(plain, given), rtol=1e-4, atol=1e-5
  )
  for a, b in zip(given, cached):
    np.testing.assert_array_equal(a.duration, b.duration)
  shapes = quick.abstract_batch(2)
  assert shapes.target.shape == cached[0].target.shape


def refused(path, **changes):
  with pytest.raises((DataError, ConfigError, SettingError)) as error:
    with experiment_of(path, **changes).open_loader("train") as loader:
      next(loader)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_latents_of_another_codec_or_window_are_refused(scenes, tmp_path):
  fast = precompute(scenes, tmp_path / "fast", "--add", "target")
  cached = {"data.cached_target": True}
  assert "latents are of codec=" in refused(
    fast, codec="patches:16000:128:1", **cached
  )
  line = refused(fast, **cached, **{"data.seconds": 0.5})
  assert "of seconds=1.0, this run has 0.5" in line
  assert "no cached latents or codes" in refused(scenes, **cached)
  line = refused(fast, **cached, **{"data.crop": "random"})
  assert "set data.crop='start'" in line
  assert "gain_db=3" in refused(fast, **cached, **{"data.gain_db": 3.0})
  taught = {"objective.teacher": "mn04", "objective.representation_weight": 1.0}
  line = refused(fast, **cached, **taught)
  assert "config.objective.teacher='mn04' hears the sound" in line


def test_media_that_were_left_out_or_made_small_are_missed(scenes, tmp_path):
  bare = precompute(
    scenes, tmp_path / "bare", "--add", "target", "--media=none"
  )
  assert "has no pictures" in refused(bare, **{"data.cached_target": True})
  raw = precompute(scenes, tmp_path / "raw", "--media=raw")
  assert "frame_size=(16, 16), this run reads (32, 32)" in refused(
    raw, **{"data.frame_size": 32}
  )
  assert "fps=8.0, this run reads 12.0" in refused(raw, **{"data.fps": 12.0})
  assert experiment_of(raw, **{"data.fps": 4.0}).open_loader("train")


def test_a_second_copy_keeps_what_the_first_has(scenes, tmp_path):
  fast = precompute(scenes, tmp_path / "fast", "--add", "target")
  both = precompute(fast, tmp_path / "both", "--media=raw")
  manifest = json.loads((tmp_path / "both/manifest.json").read_text())
  assert manifest["target"]["kind"] == "latents"
  assert manifest["stored"]["form"] == "raw"
  (a,), (b,) = (
    batches(experiment_of(path, **{"data.cached_target": True}), 1)
    for path in (fast, both)
  )
  np.testing.assert_array_equal(a.target, b.target)
  np.testing.assert_array_equal(a.cond.frames, b.cond.frames)


def test_a_clip_without_readable_latents_is_an_empty_example(scenes, tmp_path):
  """It counts as bad; its row has no latents and no weight."""
  fast = precompute(scenes, tmp_path / "fast", "--add", "target")
  first = open_source(fast)[0]["id"]

  def spoil(record):
    return record | ({"features": b"?"} if record["id"] == first else {})

  spoilt = str(tmp_path / "spoilt")
  copy_with(
    fast, out=spoilt, change=spoil, facts={}, output=OutputOptions(), log=str
  )
  experiment = experiment_of(spoilt, **{"data.cached_target": True})
  with experiment.open_loader("train") as loader:
    found = [next(loader) for _ in range(3)]
  assert len(loader.bad) == 1
  durations = np.concatenate([batch["duration"] for batch in found])
  targets = np.concatenate([batch["target"] for batch in found])
  empty = durations == 0
  assert empty.sum() == 2 and not targets[empty].any()
  assert targets[~empty].any(axis=(1, 2)).all()


@pytest.mark.parametrize(
  "flags,said",
  [
    ([], "name what to compute"),
    (["--add", "latent"], "not one of features, target"),
    (["--media=yuv"], "media='yuv' is not one of"),
  ],
)
def test_what_cannot_be_computed_is_refused(flags, said, scenes, capsys):
  file = "configs/diffusion_tiny.py"
  command = ["data", "precompute", scenes, *flags, f"--config={file}"]
  assert cli.main([*command, "-o", "unused"]) != 0
  line = capsys.readouterr().err.strip()
  assert said in line and "\n" not in line
