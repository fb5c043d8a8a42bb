"""The cache of the reference's features."""

from flashes import Follower, Mean
import numpy as np

from v2a_jax.evaluation import reference


def test_a_damaged_reference_cache_is_made_anew(data, tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  log = []

  def load():
    return reference.load(
      *(Mean(), data, "test"),
      exclude=range(6),
      num=3,
      config=Follower(data).loader_config,
      log=log.append,
    )

  first = load()
  (cache,) = tmp_path.glob("evaluation/*.npz")
  whole = cache.read_bytes()
  assert first.about == "true sounds of other clips: 3 of val" and not log
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
