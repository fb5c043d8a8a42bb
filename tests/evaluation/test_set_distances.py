"""Set distances against closed forms and SciPy's matrix square root."""

import numpy as np
import pytest
from scipy import linalg

from v2a_jax.evaluation.metrics import frechet, kernel
from v2a_jax.hearing.embeddings import Features

RNG = np.random.default_rng


def _by_matrix_root(x, y):
  """The textbook computation, for full-rank covariances."""
  s_x, s_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  root = linalg.sqrtm(s_x @ s_y)
  apart = np.square(x.mean(0) - y.mean(0)).sum()
  return apart + np.trace(s_x + s_y - 2 * root.real)


@pytest.mark.parametrize("dim, n, m", [(1, 5, 9), (6, 50, 40), (20, 30, 300)])
def test_agrees_with_the_matrix_root(dim, n, m):
  rng = RNG(dim)
  x = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 1.0
  y = rng.normal(size=(m, dim)) * np.arange(1, dim + 1)
  x, y = x.reshape(n, -1), y.reshape(m, -1)
  if dim == 1:
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
  else:
    expected = _by_matrix_root(x, y)
  assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_fewer_rows_than_dimensions():
  """Against the eigenvalues of a regularised product, which is exact here."""
  rng = RNG(0)
  x, y = rng.normal(size=(8, 30)), rng.normal(size=(11, 30)) + 0.5
  a = (x - x.mean(0)) / np.sqrt(7)
  b = (y - y.mean(0)) / np.sqrt(10)
  eigenvalues = np.linalg.eigvalsh(a @ b.T @ b @ a.T).clip(0)
  spread = (a**2).sum() + (b**2).sum() - 2 * np.sqrt(eigenvalues).sum()
  expected = np.square(x.mean(0) - y.mean(0)).sum() + spread
  assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_same_set_is_at_zero_and_a_shift_at_its_square():
  x = RNG(1).normal(size=(40, 12))
  assert frechet.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)
  assert frechet.frechet_distance(x, x + 2.0) == pytest.approx(12 * 4.0)


@pytest.mark.parametrize("n, m, dim", [(9, 12, 5), (7, 6, 20)])
def test_influence_is_the_derivative_by_a_rows_weight(n, m, dim):
  """Row i is repeated in very many copies of the set, once more than others."""
  rng = RNG(2)
  x, y = rng.normal(size=(n, dim)) + 0.3, rng.normal(size=(m, dim))
  copies = 400
  many = np.repeat(x, copies, axis=0)
  # Copies change n - 1 in the covariance, and with it the scale of the rows.
  base = frechet.frechet_distance(many, np.repeat(y, copies, axis=0))
  _, (own, _) = frechet.with_influence(many, np.repeat(y, copies, axis=0))
  for i in range(n):
    more = np.concatenate([many, np.repeat(x[i : i + 1], 4, axis=0)])
    moved = frechet.frechet_distance(more, np.repeat(y, copies, axis=0)) - base
    assert moved * len(more) / 4 == pytest.approx(
      own[i * copies], rel=0.05, abs=0.05
    )
  assert own.mean() == pytest.approx(0, abs=1e-9)


def test_with_influence_has_the_same_value():
  for n in (8, 60):
    x, y = RNG(n).normal(size=(n, 10)), RNG(1).normal(size=(30, 10))
    value, influences = frechet.with_influence(x, y)
    assert value == pytest.approx(frechet.frechet_distance(x, y))
    assert [len(part) for part in influences] == [n, 30]


@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.full((5, 4), np.nan)])
def test_what_has_no_distance_is_refused(bad):
  with pytest.raises(ValueError, match="Fréchet"):
    frechet.frechet_distance(bad, np.zeros((5, 4)))


def _clips(rng, clips, windows=4, *, shift=0.0):
  """Windows of a clip share a part, as real ones do."""
  shared = rng.normal(size=(clips, 1, 6)) * 0.7
  rows = shared + rng.normal(size=(clips, windows, 6)) * 0.7 + shift
  return _features(rows.reshape(-1, 6), np.repeat(np.arange(clips), windows))


def _features(vectors, clips):
  return Features(vectors, clips, np.zeros((clips.max() + 1, 1)))


def test_extrapolation_removes_the_bias_and_its_interval_covers():
  truth, inside, plug_in, corrected = 6 * 0.2**2, 0, [], []
  for trial in range(40):
    x = _clips(RNG(trial), 48, shift=0.2)
    y = _clips(RNG(1000 + trial), 60)
    estimate = frechet.frechet(x, y)
    inside += estimate.low <= truth <= estimate.high
    plug_in.append(estimate.extras["plug_in"])
    corrected.append(estimate.value)
  assert inside >= 36
  assert abs(np.mean(corrected) - truth) < abs(np.mean(plug_in) - truth) / 4


def test_estimates_repeat_and_say_what_they_rest_on():
  x, y = _clips(RNG(0), 10), _clips(RNG(1), 14)
  for function in (frechet.frechet, kernel.kernel_distance):
    first = function(x, y)
    assert first == function(x, y)
    assert first.n == 10 and first.extras["reference_clips"] == 14
    assert first.parts.shape == (10,)
    assert first.parts.mean() == pytest.approx(first.value)


def test_too_few_clips_have_a_plug_in_value_only():
  estimate = frechet.frechet(_clips(RNG(0), 3), _clips(RNG(1), 14))
  assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
  assert estimate.extras["plug_in"] > 0


def test_few_clips_have_a_value_without_an_interval():
  for clips, own, known in (
    *((47, False, False), (48, False, True)),
    *((127, True, False), (128, True, True)),
  ):
    x = _clips(RNG(0), clips)
    y = _clips(RNG(1), clips if own else 50)
    estimate = frechet.frechet(x, y, own=own)
    assert np.isfinite(estimate.value)
    assert np.isfinite(estimate.low) == np.isfinite(estimate.high) == known


def test_parts_tell_which_clip_is_far():
  x, y = _clips(RNG(0), 12), _clips(RNG(1), 40)
  x.vectors[x.clips == 5] += 3.0
  assert np.argmax(frechet.frechet(x, y).parts) == 5


def test_kadtk_takes_its_bandwidth_from_the_judged_set():
  """kadtk's formula with all pairs, and the lower of two middle distances."""
  rng = RNG(5)
  judged, true = rng.normal(size=(24, 6)) * 2.0, rng.normal(size=(31, 6)) + 0.4
  squares = lambda a, b: np.square(a[:, None] - b[None]).sum(-1)
  upper = np.sqrt(squares(judged, judged)[np.triu_indices(24, 1)])
  bandwidth = np.sort(upper)[(len(upper) - 1) // 2]
  k = lambda a, b: np.exp(-squares(a, b) / (2 * bandwidth**2 + 1e-8))
  expected = (k(judged, judged).sum() - 24) / (24 * 23)
  expected += (k(true, true).sum() - 31) / (31 * 30) - 2 * k(
    judged, true
  ).mean()
  found = kernel.kadtk_distance(judged, true)
  assert found == pytest.approx(100 * expected, rel=1e-9)
  assert found != pytest.approx(kernel.kadtk_distance(true, judged), rel=1e-3)
