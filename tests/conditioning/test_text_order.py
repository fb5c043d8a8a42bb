"""The order of a prompt's words reaches the model."""

from flax import nnx
import numpy as np

from tests import tiny
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig


def test_a_prompt_and_its_words_in_another_order_are_told_apart():
  config = ConditionerConfig(
    width=tiny.WIDTH, num_heads=tiny.HEADS, vocab_size=tiny.VOCAB, patch_size=8,
    spatial_width=8, spatial_heads=2, pool_queries=2, temporal_depth=1,
  )  # fmt: skip
  encode = nnx.jit(Conditioner(config, rngs=nnx.Rngs(0)))
  cond = tiny.conditioning(1, words=6)
  order = np.array([3, 1, 2, 0, 4, 5])  # a dog, then a car: a car, then a dog
  other = cond.replace(prompt=cond.prompt[:, order])
  first, second = (np.asarray(encode(c).text)[0, :6] for c in (cond, other))
  # As sets of tokens, whatever the places: the attention that reads them has no
  # other sign of order.
  apart = np.abs(first[order] - second).max()
  assert apart > 0.05 * np.abs(first).max()
