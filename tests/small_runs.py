"""Data sets and configs of runs that take seconds, for tests of several rooms."""

from ml_collections import config_dict

from data_pipelines.build import SceneOptions, build_scenes
from v2a_jax.experiment import sections

# What makes the full config of an arm small: a model of a few thousand numbers
# on two windows of a second.
SMALL = {
  "data.batch_size": 2,
  "data.seconds": 1.0,
  "data.fps": 8.0,
  "data.frame_size": 16,
  "data.cache_mb": 0.0,
  "model.width": 16,
  "model.num_heads": 2,
  "model.mlp_dim": 24,
  "model.depth": 1,
  "model.conditioner.spatial_width": 8,
  "model.conditioner.temporal_depth": 1,
  "wandb_mode": "disabled",
}


def render_scenes(folder, num=3):
  """Writes scenes of two seconds, twice as long as a window; returns the path."""
  out = folder / "scenes"
  options = SceneOptions(seconds=2.0, fps=12, size=32, held_out=0.0)
  build_scenes(num, out=out, options=options, log=lambda _: None)
  return str(out)


def config_of(arm, path, **changes):
  """Config of an arm, such as the module `configs.ar_tiny`, on a data set."""
  changes = SMALL | {"data.paths": (str(path),)} | changes
  completed = sections.complete(arm.get_config())
  # A number for both sides, or a pair: a ConfigDict would keep to one kind.
  completed["data"]["frame_size"] = changes.pop("data.frame_size")
  config = config_dict.ConfigDict(completed)
  config.update_from_flattened_dict(changes)
  return config


def as_flags(settings):
  """The same settings as arguments of a command."""
  return [f"--config.{key}={value}" for key, value in settings.items()]
