"""Token streams: interpolation in time, nulls, patches and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax.conditioning import tokens, video

RNG = np.random.default_rng(0)


def test_features_are_read_with_a_normalised_gaussian_over_time():
  at, features = np.sort(RNG.uniform(0, 1, (2, 6))), RNG.normal(size=(2, 6, 3))
  mask = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]], bool)
  times = np.linspace(0, 1, 9)
  out = tokens.read_at(
    *map(jnp.asarray, (times, features, at)), jnp.asarray(mask), width=0.1
  )
  gap = times[None, :, None] - at[:, None, :]
  weight = np.exp(-0.5 * (gap / 0.1) ** 2) * mask[:, None, :]
  expected = weight @ features / weight.sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(out, expected, atol=1e-5)


def test_far_from_every_frame_the_nearest_is_read():
  at, features = jnp.asarray([[0.0, 1.0]]), jnp.asarray([[[3.0], [5.0]]])
  mask = jnp.ones((1, 2), bool)
  out = tokens.read_at(jnp.asarray([-100.0, 100.0]), features, at, mask)
  np.testing.assert_array_equal(out[0, :, 0], [3.0, 5.0])
  out = tokens.read_at(jnp.asarray([100.0]), features, at, mask & (at < 0.5))
  assert out.item() == 3.0


def test_an_absent_condition_is_one_null_token():
  x, null = jnp.asarray(RNG.normal(size=(3, 4, 2))), jnp.asarray([7.0, 8.0])
  mask = jnp.asarray([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], bool)
  out, seen = tokens.or_null(x, mask, null)
  assert seen.tolist() == [
    [True, True, False, False],
    [True, False, False, False],
    [False, False, False, True],
  ]
  np.testing.assert_array_equal(out[1, 0], null)
  np.testing.assert_array_equal(out[jnp.asarray([0, 2])], x[::2])


def test_the_gradient_of_an_absent_condition_goes_to_its_null_alone():
  x, null = jnp.ones((2, 3, 2)), jnp.zeros(2)
  mask = jnp.asarray([[True, False, False], [False] * 3])

  def total(x, null):
    out, seen = tokens.or_null(x, mask, null)
    return (out * seen[..., None]).sum()

  to_x, to_null = jax.grad(total, argnums=(0, 1))(x, null)
  assert to_x[0, 0].tolist() == [1, 1] and not to_x[1].any()
  assert to_null.tolist() == [1, 1]


def test_patches_are_cut_by_rows():
  frames = np.arange(2 * 1 * 4 * 6 * 3).reshape(2, 1, 4, 6, 3)
  patches = video.patchify(jnp.asarray(frames), 2)
  assert patches.shape == (2, 1, 6, 12)
  for row, column in np.ndindex(2, 3):
    rows, columns = (
      slice(2 * row, 2 * row + 2),
      slice(2 * column, 2 * column + 2),
    )
    np.testing.assert_array_equal(
      patches[:, :, 3 * row + column],
      frames[:, :, rows, columns].reshape(2, 1, 12),
    )
  with pytest.raises(ValueError, match="4x6 pixels.*patch_size=4.*frame_size"):
    video.patchify(jnp.asarray(frames), 4)


def test_positions_are_fractions_of_a_frame_of_any_size():
  small, large = (
    video.patch_positions(2, 3, 16),
    video.patch_positions(6, 9, 16),
  )
  assert small.shape == (6, 16)
  # The middle patch of each 3 x 3 block has the centre of the large one.
  centres = large.reshape(6, 9, 16)[1::3, 1::3].reshape(6, 16)
  np.testing.assert_allclose(centres, small, atol=1e-5)
  assert len(np.unique(np.round(large, 5), axis=0)) == 54


def test_differences_to_missing_frames_are_zero():
  x = RNG.normal(size=(1, 4, 2, 3))
  mask = np.array([[True, True, False, True]])
  joined = np.asarray(video.motion(jnp.asarray(x), jnp.asarray(mask)))
  frame, before, after = np.split(joined, 3, axis=-1)
  np.testing.assert_allclose(frame[:, mask[0]], x[:, mask[0]], atol=1e-6)
  change = x[:, 1] - x[:, 0]
  np.testing.assert_allclose(after[:, 0], change, atol=1e-6)
  np.testing.assert_allclose(before[:, 1], change, atol=1e-6)
  assert not before[:, [0, 2, 3]].any() and not after[:, 1:].any()
  assert not frame[:, 2].any()
