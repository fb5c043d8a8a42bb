"""Embeddings that results keep are read again, and no sound embedded twice."""

from flashes import RATE, Mean, evaluate_quickly, value_of
import numpy as np
import pytest

from v2a_jax.evaluation import embedded
from v2a_jax.evaluation.metrics import base, frechet, kernel


class Counting(Mean):
  """The embedding, and how many windows it was given."""

  windows = 0

  def apply(self, windows):
    Counting.windows += len(windows)
    return super().apply(windows)


class Fad(base.SetMetric):
  """Fréchet distance of levels."""

  id, label, direction, about = "fad_mean", "FAD", "lower", "Of levels."
  embedding = Counting
  needs_reference = True

  def compute(self, features, *, reference, seed=0):
    return frechet.frechet(features, reference, seed=seed)


class Kad(Fad):
  """Kernel distance of levels."""

  id, label = "kad_mean", "KAD"

  def compute(self, features, *, reference, seed=0):
    return kernel.kernel_distance(features, reference)


@pytest.fixture
def first(data, tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  content = evaluate(data, tmp_path / "first", [Fad()])
  assert Counting.windows
  return content, tmp_path / "first"


def evaluate(data, out, metrics, **settings):
  Counting.windows = 0
  return evaluate_quickly(
    data, out, metrics=metrics, num_clips=None, batch_size=2, **settings
  )


def test_another_set_distance_embeds_nothing_again(
  data, tmp_path, first, monkeypatch
):
  content, folder = first
  fresh = evaluate(data, tmp_path / "fresh", [Fad(), Kad()])
  assert Counting.windows
  # Not even the reference, which is elsewhere in the cache, too.
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "other_cache"))
  lines = []
  again = evaluate(
    data,
    tmp_path / "again",
    [Fad(), Kad()],
    reuse=(str(folder),),
    log=lines.append,
  )
  assert Counting.windows == 0
  assert any("not computed again" in line for line in lines)
  for row in ("generated", "noise", "shuffled_video"):
    for metric in ("fad_mean", "kad_mean"):
      wanted = value_of(fresh, row, metric)["value"]
      found = value_of(again, row, metric)["value"]
      assert found == pytest.approx(wanted, rel=5e-3, abs=1e-4)


def test_sounds_that_are_others_are_embedded(data, tmp_path, first):
  other = {"noise_seed": 5, "rows": ("ground_truth", "noise")}
  evaluate(data, tmp_path / "b", [Fad()], **other)
  both = Counting.windows
  evaluate(data, tmp_path / "c", [Fad()], reuse=(str(first[1]),), **other)
  # The noise is drawn anew; the true sounds are the same.
  assert 0 < Counting.windows < both


def test_another_network_or_rate_is_not_the_same(first):
  class Other(Counting):
    sha256 = "1"

  kept = embedded.Kept([str(first[1])])
  key = next(iter(kept._places))
  assert key[0] == embedded.identity(Counting())
  assert key[0] != embedded.identity(Other())
  sound = np.zeros((RATE, 1), np.float32)
  assert embedded.digest(sound, RATE) != embedded.digest(sound, 2 * RATE)
  assert embedded.digest(sound, RATE) != embedded.digest(sound[:-1], RATE)


def test_a_folder_without_embeddings_is_refused(tmp_path):
  (tmp_path / "damaged").mkdir()
  (tmp_path / "damaged" / embedded.FILE).write_bytes(b"PK\3\4 and no more")
  for folder, words in (
    ("none", "no such file"),
    ("damaged", "cannot be used"),
  ):
    with pytest.raises((FileNotFoundError, ValueError), match=words):
      embedded.Kept([str(tmp_path / folder)])
