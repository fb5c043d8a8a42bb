"""Starting from someone's weights, with the bundled model and a real config."""

from flax import nnx
import jax
import numpy as np
import pytest

from configs import codec_tiny, finetune, mean_flow_tiny
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.experiment import build, workdir
from v2a_jax.experiment import init_weights as initial
from v2a_jax.experiment import load as trained
from v2a_jax.training.state import abstract_model
from v2a_jax.weights import bundle, names
from v2a_jax.weights.names import CheckpointError


def _make(config):
  codec = frozen_codec.describe(config.codec).config
  return lambda rngs: build.make_generator(config, codec, rngs=rngs)


def test_fine_tuning_starts_from_the_bundle_and_its_words(mesh, tmp_path):
  config = finetune.get_config()
  # As the loop reads them: with the mesh set.
  with jax.set_mesh(mesh):
    found = initial.initial_weights(config, _make(config))()
  wanted = nnx.state(trained.load("diffusion_tiny").model, nnx.Param)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_array_equal(a, b)
  taken = workdir.inherited_tokenizers(config, tmp_path)["tokenizer"]
  assert taken == str(bundle.find("diffusion_tiny"))
  config.data.tokenizer = "mine.model"
  assert workdir.inherited_tokenizers(config, tmp_path) == {}


def test_low_rank_adaptation_starts_from_the_plain_weights():
  config = finetune.get_config()
  config.lora.rank = 4
  make = _make(config)
  found = initial.initial_weights(config, make)()
  fresh = nnx.split(jax.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)
  params, frozen = (names.flatten(part) for part in fresh[1:])
  assert {name[-1] for name in params} == {"lora_a", "lora_b"}
  assert frozen.keys() == found.keys()


def test_parts_that_the_source_lacks_start_fresh_where_that_is_said():
  config = mean_flow_tiny.get_config()
  found = initial.initial_weights(config, _make(config))()
  wanted = names.flatten(nnx.state(trained.load("diffusion_tiny").model))
  parts = {("backbone", "time"), ("backbone", "interval")}
  assert found.keys() == {name for name in wanted if name[:2] not in parts}
  _, params, _ = abstract_model(_make(config))
  new = names.flatten(params).keys() - found.keys()
  assert {name[:2] for name in new} == parts
  config.init_fresh = ("backbone/intervals",)
  with pytest.raises(
    build.ConfigError, match="nothing at 'backbone/intervals'.*backbone/out"
  ):
    initial.initial_weights(config, _make(config))()
  config.init_fresh = ()
  with pytest.raises(CheckpointError, match="backbone/interval/kernel"):
    initial.initial_weights(config, _make(config))()


def test_every_tensor_that_does_not_fit_is_named():
  config = finetune.get_config()
  config.model.modulation_rank = 0
  config.model.infill = True
  with pytest.raises(CheckpointError) as caught:
    initial.initial_weights(config, _make(config))()
  said = str(caught.value)
  assert "diffusion_tiny: " in said and "\n" not in said
  assert "backbone/embed/kernel is (96, 128), the model has (" in said
  assert "backbone/audio/blocks/modulation/down/kernel is extra" in said
  assert "backbone/final/up/kernel is (" in said


def test_a_run_goes_on_when_what_it_started_from_is_gone(tmp_path):
  (tmp_path / "checkpoints" / "5").mkdir(parents=True)
  (tmp_path / bundle.CONFIG).write_text("{}")
  config = finetune.get_config()
  config.init_from = "no/such/run"
  taken = workdir.inherited_tokenizers(config, tmp_path)
  assert taken == {"tokenizer": str(tmp_path)}
  assert initial.with_sizes(config, tmp_path).to_dict() == config.to_dict()


def test_nothing_to_start_from_and_a_codec_are_refused(tmp_path):
  config = finetune.get_config()
  config.init_from = "no/such/run"
  with pytest.raises(bundle.BundleError, match="no/such/run"):
    workdir.inherited_tokenizers(config, tmp_path)
  config = codec_tiny.get_config()
  config.init_from = "diffusion_tiny"
  with pytest.raises(build.ConfigError, match="only a generator"):
    workdir.inherited_tokenizers(config, tmp_path)
