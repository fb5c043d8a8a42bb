"""The pipeline that users call, with untrained tiny weights on real files."""

import json

from flax import nnx
import numpy as np
import pytest

from configs import (
  ar_latents_tiny,
  ar_tiny,
  diffusion_patches_tiny,
  diffusion_tiny,
)
from data_pipelines import tokenizer
from tests import tiny
from v2a_jax import media, watermark
from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.soundtrack.tracker import Soundtracker
from v2a_jax.weights import bundle

FPS, SIZE, RATE = 10, 64, 16_000


def _shrink(config, codec):
  if config.codec == "codec_tiny":
    config.codec = str(codec)
  config.data.update(seconds=1.0, fps=10.0, frame_size=16)
  config.model.update(width=16, num_heads=2, depth=1, mlp_dim=16)
  config.model.conditioner.update(
    spatial_width=8, spatial_heads=2, temporal_depth=1, vocab_size=512
  )
  if "joint_depth" in config.model:
    config.model.joint_depth = 1
  if "head_width" in config.model:
    config.model.update(head_width=16, head_depth=1)
  if "num_steps" in config.sampler:
    config.sampler.num_steps = 2
  return config


ARMS = [diffusion_tiny, ar_tiny, ar_latents_tiny]


@pytest.fixture(scope="module", params=ARMS, ids=lambda m: m.__name__[8:])
def tracker(request, tmp_path_factory):
  return _tracker(request.param, tmp_path_factory.mktemp("bundles"))


def _tracker(module, folder):
  """A tracker loaded from a bundle, as a user would."""
  model = dict(
    sample_rate=RATE, strides=(64, 8), encoder_widths=(8, 8),
    decoder_widths=(8, 8), dilations=((1,), (1,)), latent_dim=4,
    num_codebooks=2, codebook_size=16, codebook_dim=4, channels=1,
  )  # fmt: skip
  codec = Codec(CodecConfig(**model), rngs=nnx.Rngs(0))
  bundle.save(
    folder / "codec", nnx.state(codec), {"model": model}, card="",
    dtype="float32",
  )  # fmt: skip
  config = _shrink(module.get_config(), folder / "codec")
  experiment = Experiment.from_config(config)
  generator = experiment.make_model(nnx.Rngs(1))
  # Fresh weights predict zeros, and patches of zeros are silence.
  generator = tiny.wake(generator, 1, scale=0.05)
  words = tokenizer.train(["a hammer hits wood", "rain"], vocab_size=512)
  bundle.save(
    folder / "model", nnx.state(generator), experiment.config, card="",
    tokenizer=words,
  )  # fmt: skip
  return Soundtracker.load(folder / "model")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  """2.7 s: neither a whole window nor a whole number of latents."""
  path = tmp_path_factory.mktemp("videos") / "clip.mp4"
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 255, (27, SIZE, SIZE, 3), dtype=np.uint8)
  media.encode_video(frames, fps=FPS, path=path)
  return path


def test_other_data_is_read_in_the_words_of_the_model(tracker):
  """For evaluation, where the data that it was trained on is not there."""
  own = tracker.loader_config.load_tokenizer()
  assert own.model == tracker.encoder.tokenizer.model


def test_sound_is_as_long_as_the_picture(tracker, video):
  takes = tracker(video, prompt="rain", num_candidates=2, seed=7)
  assert [t.samples.shape for t in takes.candidates] == [(43200, 1)] * 2
  assert {t.seed for t in takes.candidates} == {7, 8}
  scores = [t.score for t in takes.candidates]
  assert scores == sorted(scores, reverse=True)


def test_a_request_gives_the_same_sound_again(tracker, video):
  ask = dict(prompt="rain", negative_prompt="a hammer", transcript="two words")
  first = tracker(video, num_candidates=2, seed=3, **ask)
  again = tracker(video, num_candidates=2, seed=3, **ask)
  other = tracker(video, num_candidates=2, seed=30, **ask)
  for a, b in zip(first.candidates, again.candidates):
    np.testing.assert_array_equal(a.samples, b.samples)
  assert np.abs(first.best.samples - other.best.samples).max() > 1e-6


def test_delivery_copies_the_picture_and_marks_the_sound(
  tracker, video, tmp_path
):
  takes = tracker(video, num_candidates=2, seed=0)
  done = takes.save(tmp_path, key="a key of mine")
  assert len(done.videos) == len(done.waves) == 2
  for path in done.videos:
    info = media.probe(path)
    assert info.has_audio and info.sample_rate == 48_000
    same = media.video_packets_digest(path)
    assert same == media.video_packets_digest(video)
    heard = media.read_audio(path, sample_rate=RATE).samples
    assert abs(len(heard) - 43200) <= 1
    assert watermark.detect(heard, RATE, key="a key of mine").found
    assert not watermark.detect(heard, RATE, key="another key").found
  sidecar = json.loads(done.sidecar.read_text())
  assert sidecar["request"]["seed"] == 0
  assert (
    sidecar["model"]["sampler"]["name"] == tracker.experiment.names["sampler"]
  )
  assert [row["rank"] for row in sidecar["candidates"]] == [1, 2]


def test_duration_scores_only_the_beginning(tracker, video):
  takes = tracker(video, num_candidates=1, duration=1.25)
  assert takes.best.samples.shape == (20_000, 1)


def test_a_sound_that_is_too_short_is_extended(tracker, video, tmp_path):
  rng = np.random.default_rng(0)
  media.write_wav(tmp_path / "a.wav", rng.uniform(-0.3, 0.3, (16_000, 1)), RATE)
  given = media.read_audio(tmp_path / "a.wav", sample_rate=RATE).samples
  takes = tracker(video, num_candidates=2, audio=str(tmp_path / "a.wav"))
  first, second = (take.samples for take in takes.candidates)
  assert first.shape == (43_200, 1)
  np.testing.assert_array_equal(first[:16_000], given)
  np.testing.assert_array_equal(second[:16_000], given)
  assert np.abs(first[20_000:]).max() > 0
  assert not np.array_equal(first[20_000:], second[20_000:])


def test_patches_of_the_waveform_need_no_codec(video, tmp_path):
  tracker = _tracker(diffusion_patches_tiny, tmp_path)
  rng = np.random.default_rng(0)
  given = rng.uniform(-1, 1, (1, 43_200, 1)).astype(np.float32)
  np.testing.assert_allclose(tracker.reconstruct(given), given, atol=1e-6)
  media.write_wav(tmp_path / "a.wav", given[0, :16_000], RATE)
  heard = media.read_audio(tmp_path / "a.wav", sample_rate=RATE).samples
  takes = tracker(video, num_candidates=2, audio=str(tmp_path / "a.wav"))
  first, second = (take.samples for take in takes.candidates)
  assert first.shape == (43_200, 1)
  np.testing.assert_array_equal(first[:16_000], heard)
  assert np.abs(first[20_000:]).max() > 0
  assert not np.array_equal(first[20_000:], second[20_000:])


def test_a_selection_is_made_anew_and_the_rest_stays(tracker, video, tmp_path):
  rng = np.random.default_rng(0)
  media.write_wav(tmp_path / "a.wav", rng.uniform(-0.3, 0.3, (43_200, 1)), RATE)
  given = media.read_audio(tmp_path / "a.wav", sample_rate=RATE).samples
  spans = ((0.5, 1.0), (2.0, 2.25))
  take = tracker(
    video, num_candidates=1, audio=str(tmp_path / "a.wav"), regenerate=spans
  ).best
  changed = (take.samples != given)[:, 0]
  inside = np.zeros(43_200, bool)
  inside[8_000:16_000] = inside[32_000:36_000] = True
  assert not changed[~inside].any()
  assert changed[inside].mean() > 0.98
  # From kept to new there is no step: 1 ms in, most of the old is still heard.
  np.testing.assert_allclose(
    take.samples[8_000:8_016], given[8_000:8_016], atol=0.1
  )


@pytest.mark.parametrize(
  "request_, message",
  [
    ({"regenerate": [(0, 1)]}, "needs the sound"),
    (
      {"regenerate": [(1, 0.5)], "audio": "a.wav"},
      "regenerate=1-0.5 is not a span",
    ),
    (
      {"regenerate": [(0, 1), (3, 4)], "audio": "a.wav"},
      "regenerate=3-4 begins after the end of the sound, at 2.7 s",
    ),
    ({"num_candidates": 0}, "num_candidates=0 is not in"),
    ({"duration": -1.0}, "duration=-1.0 is not in"),
    ({"sampler": {"stepz": 3}}, "sampler.stepz: no such key"),
  ],
)
def test_bad_requests_are_refused(tracker, video, request_, message):
  with pytest.raises(ValueError, match=message):
    tracker(video, **request_)


def test_a_broken_video_is_named(tracker, tmp_path):
  path = tmp_path / "broken.mp4"
  path.write_bytes(b"nothing like a video")
  with pytest.raises(media.MediaError, match="broken.mp4"):
    tracker(path)
