"""Finding, checking and converting weights, with a small set of our own."""

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest
from safetensors import numpy as safetensors

from v2a_jax.basics.files import sha256_of
from v2a_jax.weights import registry as weights


@pytest.fixture
def entry(tmp_path, monkeypatch):
  """A registry with one small entry, an empty cache and no search path."""
  torch = pytest.importorskip("torch")
  published = tmp_path / "published"
  published.mkdir()
  source = published / "tiny.pt"
  state = {"w": torch.arange(6.0).view(2, 3), "steps": torch.tensor(9)}
  torch.save(state, source)
  tiny = weights.Weights(
    name="tiny",
    file="tiny.pt",
    sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
    bytes=source.stat().st_size,
    url="http://127.0.0.1:1/tiny.pt",
    licence="MIT",
    about="six numbers",
  )
  monkeypatch.setitem(weights.WEIGHTS, "tiny", tiny)
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  return tiny, source


def test_a_missing_file_is_named_with_its_source(entry):
  tiny, _ = entry
  with pytest.raises(weights.MissingWeightsError) as caught:
    weights.load("tiny")
  message = str(caught.value)
  assert tiny.url in message and tiny.sha256 in message
  assert "v2a weights fetch tiny" in message and "\n" not in message


def test_wrong_content_names_both_sums(entry, tmp_path):
  tiny, _ = entry
  other = tmp_path / "tiny.pt"
  other.write_bytes(b"something else")
  with pytest.raises(weights.WrongWeightsError) as caught:
    weights.find("tiny", other)
  assert tiny.sha256 in str(caught.value)
  assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)


def test_a_file_named_as_that_of_others_is_refused_so(entry, tmp_path):
  other = tmp_path / weights.get("mn04").file
  other.write_bytes(b"anything")
  with pytest.raises(
    weights.MissingWeightsError, match="the file of 'mn04', not of 'tiny'"
  ):
    weights.find("tiny", other)


def test_unknown_name_lists_the_known(entry):
  with pytest.raises(KeyError, match="mn04"):
    weights.find("mn40")


@pytest.mark.parametrize("form", ["folder", "file", "second of two"])
def test_found_by_search_path(entry, monkeypatch, tmp_path, form):
  _, source = entry
  value = {
    "folder": str(source.parent),
    "file": str(source),
    "second of two": os.pathsep.join([str(tmp_path), str(source.parent)]),
  }[form]
  monkeypatch.setenv(weights.PATH_VARIABLE, value)
  assert weights.find("tiny") == source
  assert weights.listing()[-1]["state"] == "found"


def test_load_converts_once_and_then_needs_no_source(entry):
  tiny, source = entry
  loaded = weights.load("tiny", source)
  np.testing.assert_array_equal(loaded["w"], np.arange(6.0).reshape(2, 3))
  assert list(loaded) == ["w"]
  source.unlink()
  again = weights.load("tiny")
  np.testing.assert_array_equal(again["w"], loaded["w"])
  record = json.loads((weights.cache_dir() / "tiny.json").read_text())
  converted = weights.cache_dir() / tiny.converted
  assert record["sha256"] == sha256_of(converted)
  assert record["source_sha256"] == tiny.sha256
  assert weights.listing()[-1]["state"] == "converted"


def test_damaged_conversion_is_refused(entry):
  tiny, source = entry
  path = weights.convert("tiny", source)
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(bytes(data))
  with pytest.raises(weights.WrongWeightsError, match="tiny.safetensors"):
    weights.load("tiny")


@pytest.fixture
def checkpoint(entry, tmp_path, monkeypatch):
  """Replaces the entry's file by a checkpoint of nested dicts."""
  tiny, source = entry

  def write(tree, **changes):
    torch = pytest.importorskip("torch")
    torch.save(tree, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    changed = dataclasses.replace(tiny, sha256=digest, **changes)
    monkeypatch.setitem(weights.WEIGHTS, "tiny", changed)
    return source

  return write


def test_only_the_named_part_of_a_checkpoint_is_kept(checkpoint):
  torch = pytest.importorskip("torch")
  tree = {
    "generator": {"w": torch.ones(2)},
    "optimizer": {"generator": torch.ones(3)},
    "steps": 9,
  }
  source = checkpoint(tree, part="generator.")
  assert list(weights.load("tiny", source)) == ["generator.w"]
  source = checkpoint({"discriminator": tree["generator"]}, part="generator.")
  with pytest.raises(weights.WrongWeightsError, match=r"tensors generator\.\*"):
    weights.load("tiny", source)


def test_some_arrays_are_read_alone(checkpoint):
  torch = pytest.importorskip("torch")
  source = checkpoint({"a": torch.ones(2), "b": torch.zeros(3)})
  arrays = weights.load("tiny", source, only=("b", "c"))
  assert list(arrays) == ["b"] and not arrays["b"].any()


def test_a_file_of_safetensors_under_its_other_name(entry, monkeypatch):
  tiny, source = entry
  other = source.with_name("other.safetensors")
  changed = dataclasses.replace(tiny, sha256="", also=other.name)
  monkeypatch.setitem(weights.WEIGHTS, "tiny", changed)
  monkeypatch.setenv(weights.PATH_VARIABLE, str(source.parent))
  source.unlink()
  safetensors.save_file({"logit_scale": np.ones(1, np.float32)}, other)
  assert weights.find("tiny") == other
  assert weights.load("tiny")["logit_scale"].shape == (1,)
  other.write_bytes(other.read_bytes()[:-2])
  with pytest.raises(weights.WrongWeightsError, match="other.safetensors"):
    weights.load("tiny", other)


def test_a_cut_checkpoint_is_one_line(checkpoint, monkeypatch):
  torch = pytest.importorskip("torch")
  source = checkpoint({"a": torch.ones(2000)})
  source.write_bytes(source.read_bytes()[:-900])
  changed = dataclasses.replace(weights.get("tiny"), sha256="")
  monkeypatch.setitem(weights.WEIGHTS, "tiny", changed)
  with pytest.raises(
    weights.WrongWeightsError,
    match="tiny.pt: not a readable.* remove the file.*weights fetch tiny",
  ):
    weights.convert("tiny", source)
  assert not list(weights.cache_dir().iterdir())
  # Its tensors alone would be larger: that is seen before anything is read.
  changed = dataclasses.replace(changed, at_least=10**6)
  monkeypatch.setitem(weights.WEIGHTS, "tiny", changed)
  monkeypatch.setenv(weights.PATH_VARIABLE, str(source.parent))
  with pytest.raises(
    weights.WrongWeightsError,
    match="has .* bytes.* 1,000,000.*weights fetch tiny",
  ):
    weights.find("tiny")
  (row,) = [row for row in weights.listing() if row["name"] == "tiny"]
  assert row["state"] == "wrong"
