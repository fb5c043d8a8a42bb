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
  bundle.write_digests(tmp_path)
  with pytest.raises(bundle.BundleError) as error:
    bundle.load_state(tmp_path, state)
  message = str(error.value)
  assert f"{names[0]} is missing" in message and "stray is extra" in message
  assert f"{names[1]} is (1, 2, 3)" in message


def _flip_a_bit(path, place):
  data = bytearray(path.read_bytes())
  data[place] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize("place", [0, 9, -1])
@pytest.mark.parametrize(
  "name", [bundle.WEIGHTS, bundle.CONFIG, bundle.TOKENIZER, bundle.DIGESTS]
)
def test_a_flipped_bit_is_refused(tmp_path, name, place):
  bundle.save(tmp_path, _state(), {"a": 1}, card="", tokenizer=b"0123456789")

  def read():
    bundle.read_config(tmp_path)
    bundle.read_arrays(tmp_path)
    bundle.tokenizers(tmp_path)

  read()
  if (name, place) == (bundle.DIGESTS, -1):
    place = -20  # in a digest; the last byte is a newline
  _flip_a_bit(tmp_path / name, place)
  with pytest.raises(bundle.BundleError, match=f"{name}.*copy the bundle ag"):
    read()


def test_a_bundle_without_digests_loads_and_a_new_one_replaces_them(tmp_path):
  bundle.save(tmp_path, _state(), {"a": 1}, card="")
  (tmp_path / bundle.DIGESTS).unlink()
  bundle.load_state(tmp_path, _state())
  bundle.save(tmp_path, _state(), {"a": 2}, card="")
  assert bundle.read_config(tmp_path) == {"a": 2}


@pytest.mark.parametrize("name", ["codec_tiny", "diffusion_tiny"])
def test_bundles_that_ship_have_digests(name):
  folder = bundle.find(name)
  assert (folder / bundle.DIGESTS).is_file()
  for file in folder.iterdir():
    if file.name not in (bundle.CARD, bundle.DIGESTS):
      bundle.check_digest(folder, file.name)


def test_a_truncated_file_is_one_line(tmp_path):
  bundle.save(tmp_path, _state(), {}, card="")
  path = tmp_path / bundle.WEIGHTS
  path.write_bytes(path.read_bytes()[:1000])
  (tmp_path / bundle.DIGESTS).unlink()  # as in older bundles
  with pytest.raises(bundle.BundleError, match="cannot read .*safetensors"):
    bundle.load_state(tmp_path, _state())


def test_a_name_that_is_not_there_lists_those_that_are():
  with pytest.raises(bundle.BundleError, match="no bundle 'nothing'"):
    bundle.find("nothing")
