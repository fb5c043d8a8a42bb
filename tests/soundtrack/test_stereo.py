"""Stereo all the way: a codec is trained and exported, a soundtrack delivered.

With shrunken variants of configs/codec.py.
"""

from concurrent import futures
import functools
import json

from flax import nnx
import jax
import numpy as np
import pytest

from configs import codec as codec_configs
from configs import diffusion_tiny
from data_pipelines import schema
from data_pipelines.assemble import OutputOptions, Plan, assemble
from data_pipelines.clips import clip_facts
from data_pipelines.writer import Outcome
from tests import tiny
from v2a_jax import media
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.codec.autoencoder import Codec
from v2a_jax.experiment import export, workdir
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.soundtrack.tracker import Soundtracker
from v2a_jax.training.loop import train
from v2a_jax.weights import bundle

FPS, STEPS = 10, 30


def _shrink(config):
  """As many stages, of few channels, one critic of either kind."""
  stages = len(config.model.strides)
  config.model.update(
    encoder_widths=(8,) * stages,
    decoder_widths=(12,) * stages,
    dilations=((1,), (), (), ()),
    latent_dim=8,
    num_codebooks=2,
    codebook_size=16,
    codebook_dim=4,
  )
  config.model.discriminator.update(periods=(3,), fft_sizes=(512,), widths=(4,))
  return config


def _clip(index, rate):
  """A second of a tone on the left and another, softer, on the right."""
  seconds = np.arange(rate) / rate
  tones = [np.sin(2 * np.pi * hertz * seconds) for hertz in (330, 550)]
  sound = np.stack(tones, axis=1) * [0.4, 0.1]
  frames = np.full((FPS, 16, 16, 3), 20 * index, np.uint8)
  return schema.make_record(
    id=f"clip{index}",
    video=media.encode_video(frames, fps=FPS),
    audio=media.encode_flac(sound.astype(np.float32), rate),
    duration=1.0,
    caption=f"two tones {index}",
    audio_caption="two tones",
  )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """Four clips of 44.1 kHz in a data set."""
  records = {f"clip{i}": _clip(i, 44_100) for i in range(4)}
  out = tmp_path_factory.mktemp("data") / "set"
  assemble(
    Plan(keys=list(records), unit="clips", settings={}, description="tones"),
    out=out,
    make=lambda k: (
      Outcome(key=k, clips=[clip_facts(records[k])]),
      [records[k]],
    ),
    pool=futures.ThreadPoolExecutor,
    output=OutputOptions(),
    log=lambda _: None,
  )
  return out


@functools.partial(jax.jit, static_argnums=0)
def _views(graphdef, state, sound):
  """Latents, and what is decoded from them and from their codes."""
  codec = nnx.merge(graphdef, state)
  latents = codec.encode(sound)
  coded = codec.dequantize(codec.quantize(latents))
  return latents, (codec.decode(latents), codec.decode(coded))


def test_a_stereo_codec_is_trained_and_exported(data, tmp_path):
  """The full-size config's road, critics of both kinds included."""
  config = _shrink(codec_configs.get_config("44k-stereo"))
  config.data.update(paths=(str(data),), seconds=1.0, batch_size=8)
  config.data.num_workers = 0
  config.objective.update(crop=4096, fft_sizes=(256, 1024))
  config.optimizer.update(learning_rate=3e-3, warmup_steps=1)
  config.update(
    num_train_steps=STEPS, log_every=1, eval_every=0, wandb_mode="disabled"
  )
  run = tmp_path / "run"
  train(workdir.open_experiment(config, run), run)
  lines = (run / "metrics.jsonl").read_text().splitlines()
  rows = [row for row in map(json.loads, lines) if "train/mel" in row]
  read = lambda name: np.array([row[f"train/{name}"] for row in rows])
  assert len(rows) == STEPS and np.isfinite(read("loss")).all()
  assert (read("discriminator") > 0).all() and (read("features") > 0).all()
  for name in ("mel", "log_magnitude"):
    assert read(name)[-4:].mean() < 0.8 * read(name)[:4].mean(), name

  export.export(run, tmp_path / "codec")
  codec = frozen_codec.load(str(tmp_path / "codec")).merge()
  assert np.asarray(codec.latent_std[...] != 1).all()
  sound = media.decode_flac(_clip(0, 44_100)["audio"])[0]
  latents, views = _views(*nnx.split(codec), sound[None])
  assert latents.shape == (1, 22, 8)  # 1 s at 21.5 Hz
  for made in views:
    assert made.shape == (1, 22 * 2048, 2) and np.isfinite(made).all()
    assert not np.allclose(made[..., 0], made[..., 1])


def test_a_stereo_soundtrack_is_made_and_delivered(data, tmp_path):
  codec = _shrink(codec_configs.get_config("48k-stereo"))
  stereo = Experiment.from_config(codec)
  model = tiny.drawn(lambda: Codec(stereo.model, rngs=nnx.Rngs(0)))
  bundle.save(
    tmp_path / "codec", nnx.state(model), stereo.config, card="",
    dtype="float32",
  )  # fmt: skip
  config = diffusion_tiny.get_config()
  config.codec = str(tmp_path / "codec")
  config.data.update(seconds=1.0, fps=10.0, frame_size=16)
  config.model.update(width=16, num_heads=2, joint_depth=1, depth=1, mlp_dim=16)
  config.model.conditioner.update(
    spatial_width=8, spatial_heads=2, temporal_depth=1, vocab_size=512
  )
  config.sampler.num_steps = 2
  experiment = Experiment.from_config(config)
  generator = tiny.drawn(lambda: experiment.make_model(nnx.Rngs(0)))
  bundle.save(
    tmp_path / "model", nnx.state(generator), experiment.config, card="",
    tokenizer=(data / "tokenizer.model").read_bytes(),
  )  # fmt: skip
  frames = np.random.default_rng(0).integers(0, 255, (27, 64, 64, 3), np.uint8)
  media.encode_video(frames, fps=FPS, path=tmp_path / "clip.mp4")

  tracker = Soundtracker.load(tmp_path / "model")
  takes = tracker(tmp_path / "clip.mp4", prompt="two tones", num_candidates=2)
  assert takes.best.samples.shape == (129_600, 2)  # 2.7 s of 48 kHz
  left, right = takes.best.samples.T
  assert np.abs(left - right).max() > 1e-4
  done = takes.save(tmp_path / "out")
  for path in (*done.videos, *done.waves):
    info = media.probe(path)
    assert (info.sample_rate, info.channels) == (48_000, 2)
    heard = media.read_audio(path, sample_rate=48_000, channels=2).samples
    assert heard.shape[1] == 2 and abs(len(heard) - 129_600) <= 1
    assert np.abs(heard[:, 0] - heard[:, 1]).max() > 1e-4
