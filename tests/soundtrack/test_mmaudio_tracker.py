"""MMAudio's kind of generator, from footage and words to sound."""

import dataclasses
import json

from flax import nnx
import jax
import numpy as np
import pytest
import soundfile

from data_pipelines import footage, schema
from tests.data_pipelines.samples import write
from tests.soundtrack import mmaudio_tiny
from v2a_jax import media
from v2a_jax.basics.settings import SettingError
from v2a_jax.evaluation import runner
from v2a_jax.evaluation.metrics import silent
from v2a_jax.experiment import mmaudio
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.soundtrack.tracker import Soundtracker
from v2a_jax.weights.registry import MissingWeightsError

METRICS = [silent.SilentClips()]
pytest.importorskip("tokenizers", reason="prompts are byte pairs")


def video(path, *, fps, seconds, size=(40, 56), seed=0):
  """A video of noise that is smooth enough to survive its codec."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 255, (round(fps * seconds), 5, 7, 3))
  frames = small.repeat(size[0] // 5, axis=1).repeat(size[1] // 7, axis=2)
  media.encode_video(frames.astype(np.uint8), fps=fps, path=path)
  return path


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
  bundle = mmaudio_tiny.save(tmp_path_factory.mktemp("bundle"))
  return Soundtracker.load(bundle)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp("clips") / "clip.mp4"
  return video(path, fps=25.0, seconds=3.0)


def sound(tracker, clip, **request):
  takes = tracker(clip, num_candidates=1, seed=3, **request)
  return takes.best.samples


def test_a_clip_gets_sound_of_its_length(tracker, clip):
  assert sound(tracker, clip).shape == (3 * 16_000, 1)


def test_picture_prompt_and_negative_prompt_are_heard(tracker, clip, tmp_path):
  plain = sound(tracker, clip)
  other = video(tmp_path / "other.mp4", fps=25.0, seconds=3.0, seed=1)
  others = [
    sound(tracker, other),
    sound(tracker, clip, prompt="rain"),
    sound(tracker, clip, negative_prompt="rain"),
    sound(tracker, clip, sampler={"guidance": {"joint": 1.0}}),
  ]
  for i, changed in enumerate(others):
    assert np.abs(changed - plain).max() > 1e-4, i
  np.testing.assert_array_equal(sound(tracker, clip), plain)


def test_an_evaluation_hears_what_a_user_gets(tracker, tmp_path):
  """Frames of a data set are too few and small for its towers."""
  seconds = 0.9 * mmaudio_tiny.SECONDS  # one window
  clips = {
    name: video(tmp_path / f"{name}.mp4", fps=25.0, seconds=seconds, seed=seed)
    for seed, name in enumerate(("one", "two"))
  }
  count = round(seconds * 16_000)
  noise = np.random.default_rng(0).normal(size=(count, 1)) / 9
  records = [
    schema.make_record(
      id=name,
      video=path.read_bytes(),
      audio=media.encode_flac(noise.astype(np.float32), 16_000),
      duration=seconds,
      caption="rain",
      split="test",
    )
    for name, path in clips.items()
  ]
  data, out = tmp_path / "data", tmp_path / "out"
  write(data, records)
  options = runner.Options(
    num_clips=None,
    rows=("generated", "shuffled_video"),
    keep_sounds=True,
    rate=16_000,
  )
  runner.evaluate(tracker, data=data, out=out, options=options, metrics=METRICS)
  heard = {
    (row, name): soundfile.read(out / f"sounds/{row}/{name}.flac")[0]
    for row in options.rows
    for name in ("one", "two")
  }
  for seed, (name, path) in enumerate(clips.items()):
    takes = tracker(path, prompt="rain", num_candidates=1, seed=seed)
    ours = heard["generated", name]
    assert len(ours) > 0.95 * count
    assert np.abs(ours - takes.best.samples[: len(ours), 0]).max() < 1e-4
    swapped = heard["shuffled_video", name] - heard["generated", name]
    assert np.abs(swapped).max() > 1e-3
  with pytest.raises(ValueError, match="rows film_video"):
    options = dataclasses.replace(options, rows=("film_video",))
    runner.evaluate(tracker, data=data, out=tmp_path / "x", options=options)


def test_a_transcript_is_refused(tracker, clip):
  with pytest.raises(SettingError, match="tiny speaks no given words"):
    sound(tracker, clip, transcript="hello")


@pytest.mark.parametrize("fps", [5.0, 12.0, 25.0, 50.0])
def test_frames_stand_at_even_instants_and_the_last_one_stays(tmp_path, fps):
  path = video(tmp_path / "clip.mp4", fps=fps, seconds=1.5)
  every = media.read_video(path).frames
  found = footage.read_at(path, fps=8.0, seconds=2.0, pixels=40)
  assert found.shape == (16, *every.shape[1:])
  wanted = np.ceil(np.arange(16) / 8 * fps - 1e-6).astype(int)
  inside = wanted < len(every)
  wanted[~inside] = wanted[inside][-1]
  np.testing.assert_array_equal(found, every[wanted])


def test_large_frames_are_read_at_no_less_than_twice_the_size(tmp_path):
  path = video(tmp_path / "clip.mp4", fps=8.0, seconds=1.0, size=(120, 168))
  read = lambda pixels: footage.read_at(
    path, fps=8.0, seconds=1.0, pixels=pixels
  )
  assert read(32).shape[1:3] == (64, 90)
  assert read(60).shape[1:3] == read(100).shape[1:3] == (120, 168)


def test_footage_without_a_frame_is_refused_in_one_line(tmp_path):
  path = video(tmp_path / "clip.mp4", fps=8.0, seconds=1.0)
  with pytest.raises(media.MediaError, match="has no frame from 5 s on"):
    footage.read_at(path, fps=8.0, seconds=1.0, pixels=32, start=5.0)


def test_what_is_kept_with_a_data_set_is_read_as_it_was_computed(tracker):
  model = nnx.merge(tracker._graphdef, tracker._params)
  encoder = model.conditioner
  rng = np.random.default_rng(0)
  clip, sync = rng.normal(size=(16, 10)), rng.normal(size=(32, 8))
  packed = encoder.pack({"clip": clip, "sync": sync})
  assert packed.shape == (16, 26)
  got = encoder._features(packed[None])
  np.testing.assert_allclose(got[0][0], clip, rtol=1e-6)
  np.testing.assert_allclose(got[1][0], sync, rtol=1e-6)


def test_clip_features_have_length_1_and_follow_the_frames(tracker):
  model = nnx.merge(tracker._graphdef, tracker._params)
  shape = (16, 40, 56, 3)
  frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  embed = jax.jit(lambda x: model.conditioner.embed("clip", x))
  features = np.asarray(embed(frames))
  assert features.shape == (16, 10) and features.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, rtol=1e-5)
  np.testing.assert_allclose(embed(frames[::-1])[::-1], features, atol=1e-5)


def test_missing_files_are_all_named_in_one_line(tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("V2A_WEIGHTS", "")
  with pytest.raises(MissingWeightsError) as caught:
    Soundtracker.load("mmaudio:small_16k")
  message = str(caught.value)
  assert (
    "\n" not in message and "v2a weights fetch mmaudio:small_16k" in message
  )
  for file in (
    "mmaudio_small_16k.pth",
    "v1-16.pth",
    "best_netG.pt",
    "open_clip_pytorch_model.bin",
    "open_clip_config.json",
    "tokenizer.json",
    "synchformer_state_dict.pth",
  ):
    assert file in message


def test_clip_sees_whole_frames_as_the_networks_were_trained_on(
  tmp_path, monkeypatch
):
  """Whatever open_clip would do with pictures for the same tower."""
  described = {
    "model_cfg": {
      "embed_dim": 1024,
      "quick_gelu": True,
      "vision_cfg": dict(image_size=378, layers=32, width=1280, patch_size=14),
      "text_cfg": dict(
        **dict(context_length=77, vocab_size=49408, width=1024),
        **dict(heads=16, layers=24),
      ),
    },
    "preprocess_cfg": dict(
      mean=[0.5] * 3, std=[0.5] * 3, resize_mode="shortest"
    ),
  }
  (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
  (tmp_path / "tokenizer.json").write_text("{}")
  monkeypatch.setenv("V2A_WEIGHTS", str(tmp_path))
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  conditioner = mmaudio.config("mmaudio:small_16k")["model"]["conditioner"]
  clip = conditioner["clip"]["sizes"]
  assert clip["image_size"] == 384 and not clip["do_center_crop"]
  assert clip["image_mean"] == pytest.approx([0.481, 0.458, 0.408], abs=1e-3)
  assert clip["image_std"] == pytest.approx([0.269, 0.261, 0.276], abs=1e-3)


def test_an_unknown_network_is_refused_with_those_there_are():
  with pytest.raises(ConfigError, match="'tiny_8k'.*small_16k"):
    mmaudio.config("mmaudio:tiny_8k")
