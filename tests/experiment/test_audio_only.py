"""Sounds without pictures, as of Clotho, from their files to a training step."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import diffusion_tiny
from data_pipelines.build import build_folder
from data_pipelines.clips import ClipOptions
from tests import small_runs, tiny
from tests.data_pipelines.samples import click, clip_record, write, write_clip
from v2a_jax import media
from v2a_jax.experiment.experiment import Experiment


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  """Two sounds of five captions each, and a film."""
  folder = tmp_path_factory.mktemp("mixed")
  rng = np.random.default_rng(0)
  for name in ("Rain.wav", "Wind.wav"):
    noise = rng.uniform(-0.5, 0.5, (16_000, 1)).astype(np.float32)
    media.write_wav(folder / name, noise, 16_000)
  write_clip(folder / "film.mp4", size=(16, 16), audio=click(1.0, 0.5))
  (folder / "table.csv").write_text(
    "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    "Rain.wav,Rain falls,Drops,It rains,Wet,Water\n"
    "Wind.wav,Wind blows,Gusts,A storm,Air,Blowing\n"
    "film.mp4,A flash and a click,,,,\n"
  )
  build_folder(
    folder,
    out=folder / "ds",
    captions_csv=folder / "table.csv",
    options=ClipOptions(allow_audio_only=True, val_fraction=0, test_fraction=0),
    log=lambda _: None,
  )
  return folder / "ds"


def learning(experiment):
  """`learn(frozen, batch)`: losses [row], and the gradients of each row."""
  model = tiny.drawn(lambda: experiment.make_model(nnx.Rngs(0)))
  graphdef, params = nnx.split(model)

  def losses(params, frozen, batch):
    return experiment.objective.loss(
      nnx.merge(graphdef, params),
      experiment.target(frozen, batch),
      key=jax.random.key(0),
      train=True,
    )[0]

  @jax.jit
  def learn(params, frozen, batch):
    whole, pull = jax.vjp(lambda p: losses(p, frozen, batch), params)
    return whole, jax.vmap(pull)(jnp.eye(len(whole)))[0]

  return functools.partial(learn, params)


def test_a_step_learns_from_sounds_and_films_together(mixed):
  config = small_runs.config_of(
    diffusion_tiny, mixed, **{"data.batch_size": 3, "data.shuffle": False}
  )
  experiment = Experiment.from_config(config)
  with experiment.open_loader("train") as loader:
    arrays = [next(loader) for _ in range(8)]
  batch = experiment.make_batch(arrays[0])
  silent = ~np.asarray(batch.cond.frame_mask).any(axis=1)
  assert silent.tolist() == [True, True, False]
  assert not np.asarray(batch.cond.frames)[silent].any()
  assert (np.asarray(batch.duration) > 0.9).all()
  assert np.asarray(batch.audio)[silent].std() > 0.1
  # Each epoch draws one of the five captions.
  prompts = {rows["prompt"][0].tobytes() for rows in arrays}
  assert len(prompts) > 1

  learn = learning(experiment)
  frozen = experiment.frozen()
  whole, gradients = learn(frozen, batch)
  assert np.isfinite(whole).all() and (np.asarray(whole) > 0).all()
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradients)]
  assert all(np.isfinite(leaf).all() for leaf in leaves)
  for row in range(3):  # Each row alone has a say in the weights.
    assert max(np.abs(leaf[row]).max() for leaf in leaves) > 0

  # What stands in the frames of a row without a picture has no effect.
  noise = np.where(silent[:, None, None, None, None], 200, batch.cond.frames)
  cond = batch.cond.replace(frames=noise.astype(np.uint8))
  changed, _ = learn(frozen, batch.replace(cond=cond))
  np.testing.assert_allclose(changed, whole, rtol=1e-6)


def test_a_film_without_sound_teaches_nothing_and_disturbs_no_other(tmp_path):
  records = [clip_record(0, audio=b"", split="train")]
  records += [clip_record(i, split="train") for i in (1, 2)]
  write(tmp_path / "ds", records)
  config = small_runs.config_of(
    diffusion_tiny,
    tmp_path / "ds",
    **{"data.batch_size": 3, "data.shuffle": False},
  )
  experiment = Experiment.from_config(config)
  with experiment.open_loader("train") as loader:
    batch = experiment.make_batch(next(loader))
  silent = np.asarray(batch.duration) == 0
  assert silent.tolist() == [True, False, False]
  learn, frozen = learning(experiment), experiment.frozen()
  whole, gradients = learn(frozen, batch)
  np.testing.assert_array_equal(np.asarray(whole) > 0, ~silent)
  for leaf in jax.tree.leaves(gradients):
    assert np.isfinite(leaf).all() and not np.asarray(leaf)[silent].any()
  frames = np.array(batch.cond.frames)
  frames[silent] = 200
  cond = batch.cond.replace(frames=frames)
  audio = np.array(batch.audio)
  audio[silent] = 0.5
  changed, _ = learn(frozen, batch.replace(cond=cond, audio=audio))
  np.testing.assert_allclose(changed, whole, rtol=1e-6)
