"""Bundles: what is saved is what is loaded, or it is refused by name."""

from flax import nnx
import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests import tiny
from v2a_jax.weights import bundle
from v2a_jax.weights.names import flatten


def _state():
  return nnx.state(tiny.diffusion())


def test_weights_come_back(tmp_path):
  state = _state()
  bundle.save(tmp_path, state, {"a": 1}, card="# x", dtype="float32")
  again = bundle.load_state(tmp_path, nnx.state(tiny.diffusion(seed=5)))
  for name, leaf in flatten(state).items():
    np.testing.assert_array_equal(leaf, flatten(again)[name])
  assert bundle.read_config(bundle.find(tmp_path)) == {"a": 1}
  assert len(bundle.digest(tmp_path)) == 64


def test_half_precision_is_close_and_loads_as_float32(tmp_path):
  state = _state()
  bundle.save(tmp_path, state, {}, card="")
  again = flatten(bundle.load_state(tmp_path, state))
  for name, leaf in flatten(state).items():
    assert again[name].dtype == leaf.dtype
    np.testing.assert_allclose(again[name], leaf, atol=2e-3)


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path):
  state = _state()
  bundle.save(tmp_path, state, {}, card="")
  path = tmp_path / bundle.WEIGHTS
  arrays = safetensors.load_file(path)
  names = sorted(arrays)
  arrays["stray"] = arrays.pop(names[0])
  arrays[names[1]] = np.zeros((1, 2, 3), np.float32)
  safetensors.save_file(arrays, path)
  with pytest.raises(bundle.BundleError) as error:
    bundle.load_state(tmp_path, state)
  message = str(error.value)
  assert f"{names[0]} is missing" in message and "stray is extra" in message
  assert f"{names[1]} is (1, 2, 3)" in message


def test_a_truncated_file_is_one_line(tmp_path):
  bundle.save(tmp_path, _state(), {}, card="")
  path = tmp_path / bundle.WEIGHTS
  path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(bundle.BundleError, match="cannot read .*safetensors"):
    bundle.load_state(tmp_path, _state())


def test_a_name_that_is_not_there_lists_those_that_are():
  with pytest.raises(bundle.BundleError, match="no bundle 'nothing'"):
    bundle.find("nothing")
