"""Arrays by name: a tree is flattened, compared and filled in one way."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from v2a_jax.weights import names


class Model(nnx.Module):
  def __init__(self):
    self.layers = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0))])
    self.scale = nnx.Param(jnp.ones(3))


LAYER = ("layers", "0")


def test_a_variable_and_the_array_in_it_share_a_name():
  state = nnx.state(Model())
  leaves = names.flatten(state)
  assert leaves.keys() == {(*LAYER, "kernel"), (*LAYER, "bias"), ("scale",)}
  plain = nnx.to_pure_dict(state)
  assert names.flatten(plain).keys() == leaves.keys()
  np.testing.assert_array_equal(
    leaves[*LAYER, "kernel"], Model().layers[0].kernel[...]
  )


def test_moments_of_an_optimizer_have_their_parameters_names():
  state = nnx.state(Model())
  moments = names.flatten(optax.adam(1e-3).init(state))
  assert {("0", "mu", *name) for name in names.flatten(state)} <= moments.keys()


def test_names_survive_being_joined_even_with_slashes_in_them():
  tree = {"a/b": {"c": 1}, "a": {"b": {"c": 2}}}
  leaves = names.flatten(tree)
  assert len(leaves) == 2
  assert names.split(names.joined(leaves)) == leaves


def test_two_leaves_of_one_name_are_refused():
  with pytest.raises(ValueError, match="two leaves are named a:b"):
    names.flatten({"a/b": 1, "a:b": 2})


def test_all_that_does_not_fit_is_listed():
  wanted = {("a", "b"): jnp.ones((2, 3)), ("c",): jnp.ones(4), ("d",): ()}
  assert names.compare(wanted, wanted) == ""
  have = {("a", "b"): (3, 2), ("d",): jnp.ones(()), ("z",): np.ones(1)}
  assert names.compare(have, wanted) == (
    "c is missing; z is extra; a/b is (3, 2), the model has (2, 3)"
  )
  assert names.compare({"c": (1,)}, {"c": (2,)}) == (
    "c is (1,), the model has (2,)"
  )


def test_fill_replaces_the_named_leaves_and_keeps_the_others():
  state = nnx.state(Model())
  bias = (*LAYER, "bias")
  new = names.fill(state, {bias: np.arange(3.0), ("stray",): np.ones(1)})
  filled, before = names.flatten(new), names.flatten(state)
  np.testing.assert_array_equal(filled.pop(bias), np.arange(3.0))
  before.pop(bias)
  assert filled.keys() == before.keys()
  assert all(filled[name] is leaf for name, leaf in before.items())
  assert jax.tree.structure(new) == jax.tree.structure(state)
  model = Model()
  nnx.update(model, new)
  np.testing.assert_array_equal(model.layers[0].bias[...], np.arange(3.0))


def test_fill_makes_leaves_by_a_function():
  shapes = jax.eval_shape(lambda: nnx.state(Model()))
  arrays = {
    name: np.full(leaf.shape, 0.1)
    for name, leaf in names.flatten(shapes).items()
  }
  cast = lambda array, leaf: jnp.asarray(array, leaf.dtype)
  new = names.flatten(names.fill(shapes, arrays, cast))
  assert {leaf.dtype for leaf in new.values()} == {jnp.dtype("float32")}
  assert new.keys() == arrays.keys()
