"""Layouts of residual codes over decoding steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from v2a_jax.models.pattern import PATTERNS, Pattern


@pytest.mark.parametrize(
  "name, rows",
  [
    ("delay", [[1, 9], [2, 4], [3, 5], [9, 6]]),
    ("parallel", [[1, 4], [2, 5], [3, 6]]),
  ],
)
def test_the_named_patterns_by_hand(name, rows):
  codes = jnp.asarray([[[1, 4], [2, 5], [3, 6]]])
  pattern = Pattern(PATTERNS[name](2))
  laid = pattern.lay_out(codes, 9)
  assert laid[0].tolist() == rows
  assert laid.shape[1] == codes.shape[1] + pattern.extra


@pytest.mark.parametrize(
  "late", [(0,), (0, 0), (0, 1, 2, 3), (2, 0, 5), (1, 0)]
)
@pytest.mark.parametrize("t", [1, 2, 9])
def test_every_code_has_one_place_and_comes_back(late, t):
  pattern = Pattern(late)
  codes = np.arange(2 * t * len(late)).reshape(2, t, len(late))
  laid = np.asarray(pattern.lay_out(jnp.asarray(codes), -1))
  assert laid.shape == (2, t + max(late), len(late))
  for row, column in np.ndindex(2, len(late)):
    steps = laid[row, :, column]
    assert steps[late[column] : late[column] + t].tolist() == (
      codes[row, :, column].tolist()
    )
    assert (steps == -1).sum() == max(late)
  np.testing.assert_array_equal(pattern.collect(jnp.asarray(laid)), codes)


def test_logits_are_collected_from_the_steps_of_their_codes():
  pattern = Pattern((0, 2))
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 2, 11)))
  collected = pattern.collect(logits)
  assert collected.shape == (3, 5, 2, 11)
  np.testing.assert_array_equal(collected[:, 1, 0], logits[:, 1, 0])
  np.testing.assert_array_equal(collected[:, 1, 1], logits[:, 3, 1])
