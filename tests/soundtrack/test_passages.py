"""Long videos are made passage by passage, and shots apart."""

import pathlib

import numpy as np
import pytest

from tests.soundtrack.test_tracker import FPS, SIZE, tracker  # noqa: F401
from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.soundtrack import passages, reel

CLIPS = pathlib.Path(__file__).parents[2] / "../shared/clips/av"


@pytest.mark.parametrize("total", [1, 9, 31, 400])
@pytest.mark.parametrize("cuts", [(), (7, 150), (0, 400, 3, 30)])
def test_passages_cover_every_latent_once_and_none_reaches_over_a_cut(
  total, cuts
):
  found, next_one = list(passages.plan(total, length=8, cuts=cuts)), 0
  for passage in found:
    assert passage.begin + passage.prefix == next_one
    assert passage.windows.count <= passages.MAX_WINDOWS
    assert not any(passage.begin < cut < passage.end for cut in cuts)
    next_one = passage.end
  assert next_one == total


def test_half_of_what_a_passage_continues_is_let_go_of_step_by_step():
  first, second, *_ = passages.plan(400, length=16)
  assert first.prefix == 0 and not first.held_until.any()
  assert (second.prefix, second.settled) == (8, 4)
  held = second.held_until
  assert (held[:4] == 1).all() and not held[8:].any()
  assert (np.diff(held[3:9]) < 0).all()
  _, second, *_ = passages.plan(400, length=16, diffusion=False)
  assert second.held_until.tolist() == [1] * 8 + [0] * (
    second.windows.total - 8
  )


@pytest.fixture(scope="module")
def two_shots(tmp_path_factory):
  """1.5 s of dark noise, 2 s of bright noise, in frames of 0.1 s."""
  path = tmp_path_factory.mktemp("videos") / "two.mp4"
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 60, (35, SIZE, SIZE, 3), dtype=np.uint8)
  frames[15:] += 180
  return media.encode_video(frames, fps=FPS, path=path)


def test_a_long_video_is_continued_in_pieces(tracker, two_shots, monkeypatch):  # noqa: F811
  monkeypatch.setattr(passages, "MAX_WINDOWS", 2)
  whole = tracker(two_shots, num_candidates=2, seed=3)
  assert whole.best.samples.shape == (56000, 1)
  assert np.abs(whole.best.samples[-16000:]).max() > 0
  monkeypatch.setattr(reel, "PIECE", 0.7)
  pieces = tracker(two_shots, num_candidates=2, seed=3)
  np.testing.assert_array_equal(pieces.best.samples, whole.best.samples)
  assert pieces.best.score == whole.best.score


def test_work_is_told_passage_by_passage_and_ends_where_it_is_told_to(
  tracker,  # noqa: F811
  two_shots,
  monkeypatch,
):
  monkeypatch.setattr(passages, "MAX_WINDOWS", 2)
  shares = []
  made = tracker(two_shots, num_candidates=1, on_passage=shares.append)
  count = len(shares)
  assert count > 1
  np.testing.assert_allclose(shares, np.arange(1, count + 1) / count)
  shares.clear()
  layers = (("effects", ""), ("music", ""))
  list(
    tracker.stream(
      two_shots, num_candidates=1, layers=layers, on_passage=shares.append
    )
  )
  np.testing.assert_allclose(shares, np.arange(1, 2 * count + 1) / 2 / count)

  class Enough(Exception):
    pass

  def once(share):
    shares.append(share)
    raise Enough

  shares.clear()
  with pytest.raises(Enough):
    tracker(two_shots, num_candidates=1, on_passage=once)
  assert shares == [1 / count]
  again = tracker(two_shots, num_candidates=1)
  np.testing.assert_array_equal(again.best.samples, made.best.samples)


def test_no_window_sees_past_a_cut(tracker, two_shots, tmp_path, monkeypatch):  # noqa: F811
  seen, sets = [], tracker.encoder.sets

  def watched(path, picture, *args, **named):
    seen.append(picture.times)
    return sets(path, picture, *args, **named)

  monkeypatch.setattr(tracker.encoder, "sets", watched)
  tracker(two_shots, num_candidates=1)
  assert len(seen) == 1
  seen.clear()
  takes = tracker(two_shots, shots=True, num_candidates=1)
  first, second = seen
  assert first.max() < 1.5 <= second.min() and len(first) + len(second) == 35
  found = takes.save(tmp_path, timeline=("edl",))
  assert files.read_json(found.sidecar)["picture"]["cuts"] == [1.5]
  edl = found.sidecar.with_suffix(".edl").read_text()
  assert "V     C        00:00:01:05 00:00:03:05 00:00:01:05 00:00:03:05" in edl


@pytest.mark.skipif(not CLIPS.exists(), reason="needs ../shared/clips")
def test_cuts_between_real_clips_are_found(tmp_path):
  names = ("cav_chopping", "vas_dog_02677", "gh_door", "vll_boat", "vr_face1")
  names += ("spec_7fRaV39Y_2o", "vas_fireworks_02997", "dec_pancake")
  parts, planted, seconds = [], [], 0.0
  for name in names:
    clip = media.read_video(
      CLIPS / f"{name}.mp4", duration=2.0, max_fps=25, size=(64, 64)
    )
    parts.append(clip.frames)
    seconds += len(clip.frames) / 25
    planted.append(seconds)
  path = tmp_path / "joined.mp4"
  media.encode_video(np.concatenate(parts), fps=25, path=path)
  found = reel.Reel(path, seconds, fps=25, size=(32, 32)).cuts
  hit = lambda time: any(abs(time - x) < 0.05 for x in found)
  recall = sum(hit(time) for time in planted[:-1])
  assert recall >= len(planted) - 2
  assert len(found) <= recall + 1
