"""Which other clips are the reference, and the cache of their features."""

import hashlib

from conftest import build
from flashes import RATE, SECONDS, Mean, make_record
import numpy as np
import pytest

from v2a_jax.evaluation import clips, reference
from v2a_jax.evaluation.formats import Format

FORMAT = Format(sample_rate=RATE, channels=1, seconds=SECONDS)
ABOUT = "true sounds of other clips: 3 of val, seed 0"


def test_a_damaged_reference_cache_is_made_anew(data, tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  log = []

  def load():
    draw = reference.Draw(
      truth=clips.open_truth(data), judged=range(6), sounds=(), num=3, seed=0
    )
    loaded = reference.load({"mean": Mean()}, draw, FORMAT, log=log.append)
    return loaded["mean"]

  first = load()
  (cache,) = tmp_path.glob("evaluation/*.npz")
  whole = cache.read_bytes()
  assert first.about == ABOUT and not log
  for damage in (
    whole[: len(whole) // 2],
    b"",
    whole[:100] + b"?" + whole[101:],
  ):
    cache.write_bytes(damage)
    again = load()
    np.testing.assert_array_equal(
      again.features.vectors, first.features.vectors
    )
    assert again.about == first.about and cache.read_bytes() == whole
    assert len(log) == 1 and "cannot be read" in log.pop()


@pytest.fixture
def draw(data, tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))

  def load(
    folder=data, *, judged=range(6), sounds=(), num=9, seed=0, split="test"
  ):
    truth = clips.open_truth(folder, split)
    draw = reference.Draw(
      truth=truth, judged=judged, sounds=sounds, num=num, seed=seed
    )
    return reference.load({"mean": Mean()}, draw, FORMAT)["mean"]

  return load


def test_other_clips_are_drawn_by_a_seed(draw):
  digests = {draw(num=2, seed=seed).digest for seed in range(8)}
  assert len(digests) > 2  # Not the first in the order of the file.
  assert draw(num=2, seed=3).digest == draw(num=2, seed=3).digest


def test_a_sound_that_is_judged_is_no_reference(draw):
  digest = hashlib.sha256(make_record(10, "val")["audio"]).hexdigest()
  assert "3 of val" in draw(sounds=[digest]).about
  assert "2 of test, 4 of val" in draw(judged=range(3)).about


def test_training_clips_are_no_reference_unless_they_are_judged(draw, tmp_path):
  records = [make_record(i, "train") for i in range(4)]
  records += [make_record(10 + i, "test") for i in range(3)]
  folder = build(records, tmp_path / "set")
  alone = draw(folder, judged=range(3))
  assert alone.features is None and "no two other clips" in alone.about
  judged = draw(folder, judged=[0], split="train")
  assert " of train, " in judged.about
