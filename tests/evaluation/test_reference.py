"""The cache of the reference's features."""

from flashes import RATE, SECONDS, Mean
import numpy as np

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
