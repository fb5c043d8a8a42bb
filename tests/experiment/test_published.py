"""A published system comes in by one door: a module, named in `PUBLISHED`."""

import json
import types

from flax import nnx
import numpy as np
import pytest

from launch import cli
from tests.soundtrack import mmaudio_tiny
from v2a_jax.experiment import card, export, init_weights, load, published
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.weights import bundle, catalog, names

pytest.importorskip("tokenizers", reason="prompts are byte pairs")
NAME = "theirs:tiny"


@pytest.fixture
def theirs(tmp_path, monkeypatch):
  """Files and module of a system from outside of the package."""
  (tmp_path / "weights").mkdir()
  own = mmaudio_tiny.save(tmp_path / "weights")
  monkeypatch.setenv("V2A_WEIGHTS", str(own))
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  entry = catalog.Weights(
    name="theirs_tiny",
    file=bundle.WEIGHTS,
    url="https://example.org/tiny",
    licence="CC-BY-NC-4.0",
    about="tiny",
  )
  monkeypatch.setitem(catalog.WEIGHTS, entry.name, entry)
  monkeypatch.setitem(catalog.SETS, NAME, (entry.name,))
  system = types.SimpleNamespace(
    recognises=lambda name: str(name) == NAME,
    config=lambda name: mmaudio_tiny.config(own / bundle.PROMPT_TOKENIZER),
    read=lambda name, model, conditioner: bundle.read_arrays(own),
    tokenizers=lambda name: {
      "prompt_tokenizer": str(own / bundle.PROMPT_TOKENIZER)
    },
    file_of=lambda name: entry.name,
    card=lambda name: f"# {name}\n\nLicence: {entry.licence}.\n",
  )
  monkeypatch.setattr(published, "PUBLISHED", [*published.PUBLISHED, system])
  return own


def test_it_is_loaded_begun_from_and_described(theirs):
  trained, ours = load.load(NAME), load.load(theirs)
  assert trained.source["path"] == NAME and trained.source["sha256"]
  equal_weights(trained.model, ours.model)
  assert load.read_experiment(NAME).model == ours.experiment.model
  config = mmaudio_tiny.config(theirs / bundle.PROMPT_TOKENIZER)
  begun = Experiment.from_config(config | {"init_from": NAME})
  same_arrays(begun.first_weights(), names.flatten(nnx.state(ours.model)))
  assert init_weights.source_tokenizers(NAME) == trained.tokenizer_files
  assert "CC-BY-NC-4.0" in card.served(NAME, trained.source)


def test_a_bundle_is_made_of_it_and_keeps_its_licence(theirs, tmp_path, capsys):
  out = tmp_path / "ours"
  argv = ["weights", "export", NAME, "-o", str(out), "--dtype", "float32"]
  assert cli.main(argv) == 0
  assert capsys.readouterr().out.strip() == str(out)
  again = load.load(out)
  equal_weights(again.model, load.load(NAME).model)
  assert list(again.tokenizers) == ["prompt_tokenizer"]
  config = json.loads((out / bundle.CONFIG).read_text())
  assert config["model"]["width"] == again.experiment.model.width
  text = (out / bundle.CARD).read_text()
  assert text.startswith(f"# {NAME}\n\nLicence: CC-BY-NC-4.0.\n")
  assert f"--checkpoint {out}" in text


def test_a_published_generator_has_no_steps(theirs, tmp_path):
  with pytest.raises(ConfigError, match="theirs:tiny has no steps"):
    load.load(NAME, step=3)
  with pytest.raises(ConfigError, match="theirs:tiny is no run"):
    export.export(NAME, tmp_path / "x", average_length=0.07)


def equal_weights(ours, theirs):
  same_arrays(*(names.flatten(nnx.state(model)) for model in (ours, theirs)))


def same_arrays(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(array, theirs[name], err_msg=str(name))
