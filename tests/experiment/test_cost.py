"""The cost of an experiment, against what is really built from it."""

import functools
import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import (
  ar_latents_tiny,
  ar_tiny,
  codec_tiny,
  diffusion_patches_tiny,
  diffusion_tiny,
)
from tests.pretrained.test_mn04 import WEIGHTS
from v2a_jax.codec import frozen as frozen_codec
from v2a_jax.experiment import cost
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.parallel import mesh as mesh_lib
from v2a_jax.training.program import make_program
from v2a_jax.weights import registry as weights

SMALL = {
  "data.batch_size": 8,
  "data.seconds": 2.0,
  "data.frame_size": 16,
  "data.fps": 10.0,
  "model.width": 32,
  "model.num_heads": 2,
  "model.mlp_dim": 48,
}


def config_of(module, **changes):
  config = module.get_config()
  config.data.paths = ("no/such/data",)
  config.update_from_flattened_dict(changes)
  return config


def small(module=diffusion_tiny, **changes):
  return config_of(module, **(SMALL | changes))


def inspect(config, **options):
  return cost.inspect(Experiment.from_config(config), **options)


@functools.cache
def inspected(module=diffusion_tiny):
  return inspect(small(module))


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny])
def test_parameters_are_those_of_the_model_that_is_built(module):
  found = inspected(module)["parameters"]
  codec = frozen_codec.load("codec_tiny")
  experiment = Experiment.from_config(small(module))
  model = nnx.eval_shape(lambda: experiment.make_model(nnx.Rngs(0)))
  count = lambda x: sum(a.size for a in jax.tree.leaves(nnx.state(x)))
  assert found["total"] == count(model)
  parts = found["parts"]
  assert parts["conditioner"] == count(model.conditioner)
  assert parts["conditioner/video"] == count(model.conditioner.video)
  assert parts["backbone"] + parts["conditioner"] == found["total"]
  assert found["frozen_codec"] == count(codec.merge())
  assert found["layers"]["conditioner/video/temporal"] == 2


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny, ar_latents_tiny])
def test_flops_of_a_generator(module):
  flops = inspected(module)["flops"]
  assert flops["forward"] == flops["conditioner"] + flops["backbone"]
  step = flops["training"] - flops["target"]
  # The gradient to the inputs of the first layers is not needed.
  assert 2.4 * flops["forward"] < step <= 3 * flops["forward"]
  assert flops["recomputed"] == 0


def test_streams_share_what_the_encoder_costs():
  flops, encoder = inspected()["flops"], inspected()["encoder"]
  assert encoder.keys() == {"video", "text", "aligner"}
  parts = sum(stream["flops"] for stream in encoder.values())
  assert 0.9 * flops["conditioner"] < parts <= flops["conditioner"]
  changes = {"model.conditioner.tune": "frozen", "init_from": "diffusion_tiny"}
  frozen = inspect(small(**changes))
  video, before = frozen["encoder"]["video"], encoder["video"]
  assert video["flops"] == before["flops"]
  # Nothing goes back through the frame part; the blocks along time do train.
  assert video["training"] < 0.7 * before["training"]
  assert frozen["flops"]["training"] < flops["training"]


def test_a_teacher_is_counted_with_what_it_asks_for(monkeypatch):
  if not WEIGHTS.is_file():
    pytest.skip("../shared/weights is not here")
  monkeypatch.setenv(weights.PATH_VARIABLE, str(WEIGHTS.parent))
  changes = {
    "objective.teacher": "mn04",
    "objective.representation_weight": 0.5,
  }
  found, plain = inspect(small(**changes)), inspected()
  flops = found["flops"]
  assert flops["forward"] > plain["flops"]["forward"]
  assert flops["target"] > plain["flops"]["target"]
  b, t, _ = found["shapes"]["prediction"]["shape"]
  assert found["shapes"]["representation"]["shape"] == [b, t, 384]


def test_shapes_follow_the_data_from_the_loader_to_the_waveform():
  def shapes(module):
    rows = inspected(module)["shapes"]
    return {name: tuple(row["shape"]) for name, row in rows.items()}

  found = shapes(diffusion_tiny)
  assert found["audio"] == (8, 32_000, 1)
  assert found["frames"] == (8, 20, 16, 16, 3)
  assert found["latents"] == found["prediction"] == (8, 63, 32)
  assert found["video condition"] == (8, 20, 32)
  found = shapes(ar_tiny)
  books = ar_tiny.get_config().model.num_codebooks
  assert found["codes"] == (8, 63, books)
  assert found["prediction"] == (8, 63, books, 1024)
  assert found["waveform"] == (8, 63 * 512, 1)
  found = shapes(ar_latents_tiny)
  assert found["latents"] == (8, 63, 32)
  assert found["prediction"] == (8, 63, 4, 32)


def test_patches_of_the_waveform_need_no_codec():
  found = inspected(diffusion_patches_tiny)
  assert found["parameters"]["frozen_codec"] == found["flops"]["target"] == 0
  assert found["shapes"]["latents"]["shape"] == [8, 63, 512]
  assert found["shapes"]["waveform"]["shape"] == [8, 63 * 512, 1]


def test_a_codec_is_described_over_the_crop_that_it_trains_on():
  config = config_of(codec_tiny, **{"objective.crop": 4000})
  found = inspect(config)
  b = config.data.batch_size
  assert found["shapes"]["crop"]["shape"] == [b, 4000, 1]
  assert found["shapes"]["latents"]["shape"] == [b, 8, 32]
  parts = found["parameters"]["parts"]
  assert {"codec/encoder", "codec/decoder", "codec/quantizer"} <= parts.keys()
  assert found["parameters"]["frozen_codec"] == 0
  flops = found["flops"]
  codec = flops["encode"] + flops["decode"]
  assert codec < flops["forward"] < flops["training"]


@pytest.mark.parametrize("axes", [(2, 2, 1, 2), (1, 8, 1, 1), (2, 1, 4, 1)])
def test_state_on_a_device_is_what_a_real_mesh_puts_there(axes):
  sizes = dict(zip(mesh_lib.AXES, axes))
  config = small(**{f"mesh.{axis}": size for axis, size in sizes.items()})
  experiment = Experiment.from_config(config)
  memory = inspect(config, devices=8)["memory"]
  mesh = mesh_lib.make_mesh(experiment.mesh)
  assert tuple(mesh.shape.values()) == axes
  program = make_program(experiment, mesh)
  zeros = lambda x, layout: jax.device_put(np.zeros(x.shape, x.dtype), layout)
  state = jax.tree.map(zeros, program.state, program.shardings)
  for name, part in (
    ("parameters", state.params),
    ("optimizer", state.opt_state),
    ("average", state.ema),
  ):
    held = [x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(part)]
    assert memory[name] == sum(held), name


def test_memory_falls_with_the_mesh():
  one = inspected()["memory"]
  assert one["optimizer"] == pytest.approx(2 * one["parameters"], rel=0.01)
  assert one["average"] == one["gradients"] == one["parameters"]
  found = inspect(
    small(**{"mesh.fsdp": 4, "model.remat": "full", "accumulate": 2}), devices=4
  )
  assert found["mesh"] == {"data": 1, "fsdp": 4, "context": 1, "tensor": 1}
  many = found["memory"]
  assert (one["clips"], many["clips"]) == (8, 1)
  assert many["parameters"] < one["parameters"] / 3
  assert many["gradients"] == 2 * many["parameters"]
  assert found["flops"]["training"] == inspected()["flops"]["training"]
  assert found["flops"]["recomputed"] > 0.2 * found["flops"]["forward"]


def test_the_optimizer_is_the_one_that_the_config_names():
  found = inspect(small(**{"optimizer.name": "adafactor", "model.width": 256}))
  assert found["memory"]["optimizer"] < found["memory"]["parameters"]


def test_a_model_that_fits_on_no_machine_here_is_described():
  config = config_of(
    diffusion_tiny,
    **{
      "model.width": 16_384,
      "model.num_heads": 128,
      "model.mlp_dim": 65_536,
      "model.depth": 96,
      "model.remat": "full",
      "model.unroll": 1,
      "mesh.fsdp": 1024,
      "data.batch_size": 1024,
    },
  )
  found = inspect(config)
  assert found["parameters"]["total"] > 8e11
  assert found["memory"]["parameters"] < 6e9
  assert found["memory"]["clips"] == 1


def test_weights_of_a_frozen_codec_are_not_read(tmp_path):
  (tmp_path / "model.safetensors").touch()
  (tmp_path / "calibration.safetensors").touch()
  settings = dict(
    model_type="dac",
    sampling_rate=44_100,
    downsampling_ratios=[2, 4, 8, 8],
    encoder_hidden_size=64,
    decoder_hidden_size=1536,
    n_codebooks=9,
    codebook_size=1024,
    codebook_dim=8,
  )
  (tmp_path / "config.json").write_text(json.dumps(settings))
  experiment = Experiment.from_config(small(codec=str(tmp_path)))
  batch = experiment.abstract_batch(2)
  assert batch.audio.shape == (2, 88_200, 1)
  assert batch.target.shape == (2, 173, 1024)
  assert cost.count_parameters(experiment)["frozen_codec"] > 70e6


@pytest.mark.parametrize(
  "changes,said",
  [
    ({"mesh.data": 3}, "batch_size=8 does not divide"),
    ({"data.batch_size": 0}, "config.data.batch_size=0 is not in"),
    ({"accumulate": 3}, "accumulate=3"),
    ({"model.num_heads": 0}, "config.model.num_heads=0 is not in"),
    ({"data.frame_size": 30}, "patch_size=8"),
    ({"data.target": "latent"}, "config.data.target='latent'"),
    ({"codec": "no/such"}, "bundled here: codec_tiny"),
    ({"sampler.solver": "eulr"}, "eulr"),
    ({"optimizer.name": "sgd"}, "config.optimizer.name='sgd'"),
  ],
)
def test_a_config_that_cannot_be_trained_is_refused_in_one_line(changes, said):
  with pytest.raises(ValueError, match=said) as refused:
    inspect(small(**changes))
  assert "\n" not in str(refused.value)


def test_a_mesh_that_does_not_cover_the_devices_is_refused():
  with pytest.raises(ValueError, match="does not cover 6 devices"):
    inspect(small(**{"mesh.fsdp": 4}), devices=6)


def test_everything_is_ready_for_json():
  assert json.loads(json.dumps(inspected())) == inspected()
  assert jnp.dtype(inspected()["shapes"]["frames"]["dtype"]) == jnp.uint8
