"""A clip's picture is decoded once for the model, motion and all metrics."""

import collections
import dataclasses

from flashes import RATE, SECONDS, Follower, evaluate_quickly, make_record
import numpy as np
import pytest

from data_pipelines.loader import make_decoder
from v2a_jax import media
from v2a_jax.evaluation import clips, formats, motion
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.media import frames, sandbox

LOOKING = ("av_align", "judged_sync", "judged_offset", "onset_f1_50ms")
ANY = [m for m in METRICS if m.id in LOOKING]


@pytest.fixture
def decodes(monkeypatch):
  """Counts reads of pictures by the size of the file, here and in children."""
  counts = collections.Counter()

  def counted(function, *args, **settings):
    inner = getattr(function, "func", function)
    if inner.__name__ in ("read_video", "read_videos", "decode_clip"):
      counts[len(args[0])] += 1
    return run(function, *args, **settings)

  def decoded(source, *args, **settings):
    counts[len(source)] += 1
    return decode(source, *args, **settings)

  run, decode = sandbox.run_limited, frames._decode_video
  monkeypatch.setattr(sandbox, "run_limited", counted)
  monkeypatch.setattr(frames, "_decode_video", decoded)
  return counts


def test_each_picture_is_decoded_once(data, tmp_path, monkeypatch, decodes):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  content = evaluate_quickly(
    data,
    tmp_path / "out",
    metrics=ANY,
    num_clips=None,
    batch_size=4,
    rows=("generated", "ground_truth", "noise"),
  )
  assert {*LOOKING} <= content["metrics"].keys()
  assert sum(decodes.values()) == content["set"]["n"] > 4


def test_what_is_seen_is_what_each_would_have_decoded(data):
  record = make_record(3, "test")
  config = Follower(data).loader_config
  format = formats.Format(sample_rate=RATE, channels=1, seconds=SECONDS)
  (judge,) = (m for m in ANY if m.id == "judged_sync")
  reader = clips.Reader(
    [record], format, config, looks=lambda clip: [judge.look]
  )
  clip = reader(0, 0)
  wanted = make_decoder(config)(clips.without_word_times(record), index=0)
  assert clip.example.keys() == wanted.keys()
  for key, value in wanted.items():
    np.testing.assert_array_equal(clip.example[key], value)
  np.testing.assert_array_equal(
    clip.motion, motion.detect(record["video"], seconds=SECONDS)
  )
  assert clip.seen.keys() == {judge.look.name}
  alone = dataclasses.replace(clip, seen={}).look(judge.look)
  both = (vars(seen).values() for seen in (*clip.seen.values(), alone))
  for one, other in zip(*both, strict=True):
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


SOUND = media.encode_flac(np.zeros((RATE, 1), np.float32), RATE)


@pytest.mark.parametrize("video", [b"no video at all", SOUND])
def test_a_picture_that_is_damaged_or_missing_is_a_failure(video):
  record = make_record(3, "test") | {"video": video}
  format = formats.Format(sample_rate=RATE, channels=1, seconds=SECONDS)
  failure = clips.Reader([record], format)(0, 0)
  assert isinstance(failure, clips.Failure) and "\n" not in failure.reason


def test_several_reads_at_once_are_those_of_each(tmp_path):
  rng = np.random.default_rng(0)
  shown = rng.integers(0, 255, (40, 48, 64, 3), np.uint8)
  times = np.cumsum(rng.uniform(0.01, 0.09, 40))  # of no steady rate
  path = media.encode_video(shown, times, path=tmp_path / "a.mp4")
  requests = [
    dict(duration=1.0, max_fps=50.0, size=(24, 32)),
    dict(duration=0.3, max_fps=12.5, grid=0.0, size=(10, 10)),
    dict(start=0.5, max_fps=None, size=None),
  ]
  found = media.read_videos(
    path, requests=[media.base.ReadOptions(**r) for r in requests]
  )
  for request, video in zip(requests, found, strict=True):
    alone = media.read_video(path, **request)
    assert len(alone.times) > 2
    np.testing.assert_array_equal(video.times, alone.times)
    np.testing.assert_array_equal(video.frames, alone.frames)
