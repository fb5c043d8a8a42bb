"""Configs: the swap is configuration; every key is there, and every number checked."""

import copy
import functools
import math
import re

from flax import nnx
import jax
from ml_collections import config_dict
import pytest

from configs import (
  ar,
  ar_latents,
  ar_latents_tiny,
  ar_tiny,
  codec,
  codec_tiny,
  common,
  diffusion,
  diffusion_patches_tiny,
  diffusion_tiny,
  finetune,
  finetune_mmaudio,
  mean_flow_tiny,
  mmaudio,
  sync_tiny,
)
from launch import config as config_lib
from v2a_jax.basics import settings
from v2a_jax.experiment import sections
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.models.mmaudio import VARIANTS

SWAPPED = ("name", "model.", "objective.", "sampler.", "data.target")
SHIPPED = {
  module.__name__.partition(".")[2]: module
  for module in (
    *(ar, ar_latents, ar_latents_tiny, ar_tiny, codec, codec_tiny, diffusion),
    *(diffusion_patches_tiny, diffusion_tiny, finetune, finetune_mmaudio),
    *(mean_flow_tiny, mmaudio, sync_tiny),
  )
}


def flat(config, prefix=""):
  """Leaves of nested mappings by dotted key; an empty mapping is a leaf."""
  rows = {}
  for key, value in config.items():
    nested = isinstance(value, dict | config_dict.ConfigDict) and len(value)
    rows |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
  return rows


def differing(one, other):
  a, b = flat(one.get_config()), flat(other.get_config())
  missing = object()
  return {
    key
    for key in a.keys() | b.keys()
    if a.get(key, missing) != b.get(key, missing)
  }


@pytest.mark.parametrize(
  "one, other",
  [
    (diffusion_tiny, ar_tiny),
    (diffusion, ar),
    (diffusion_tiny, ar_latents_tiny),
    (diffusion, ar_latents),
  ],
)
def test_diffusion_and_autoregression_differ_only_where_they_may(one, other):
  keys = differing(one, other)
  assert all(key.startswith(SWAPPED) for key in keys), keys
  assert {"model.name", "objective.name", "sampler.name"} <= keys
  assert ("data.target" in keys) == (other in (ar, ar_tiny))
  assert not any(key.startswith("model.conditioner") for key in keys)


def test_patches_differ_from_latents_in_codec_and_prediction_only():
  keys = differing(diffusion_tiny, diffusion_patches_tiny)
  assert all(key.startswith(("name", "codec", "objective.")) for key in keys)


def test_both_autoregressive_arms_have_one_transformer():
  a, b = ar_tiny.get_config().model, ar_latents_tiny.get_config().model
  for key in ("width", "num_heads", "depth", "mlp_dim", "modulation_rank"):
    assert a[key] == b[key], key


def parameters(experiment) -> float:
  """Millions of parameters."""
  _, params, _ = experiment.abstract
  return sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6


def test_networks_trained_from_nothing_are_the_published_ones():
  assert mmaudio.SIZES == VARIANTS
  experiment = Experiment.from_config(mmaudio.get_config("small_16k"))
  assert parameters(experiment) == pytest.approx(157, rel=0.01)
  # All that is trained starts fresh, but for the encoding of an empty prompt.
  _, params, _ = experiment.abstract
  names = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(params)]
  read = {n for n in names if not n.startswith(mmaudio.FRESH)}
  assert read == {"conditioner/no_text"}


@pytest.mark.parametrize(
  "size, millions",
  [("small", 157), ("medium", 600), ("large", 1000), ("xl", 5000)]
  + [("small-tile", 157), ("medium-tile", 600), ("large-tile", 1000)],
)
def test_full_sizes_have_the_parameters_of_their_names(size, millions):
  experiment = Experiment.from_config(diffusion.get_config(size))
  assert parameters(experiment) == pytest.approx(millions, rel=0.05)
  if size.endswith("-tile"):
    assert experiment.model.width // experiment.model.num_heads == 128
    assert experiment.model.width % 256 == 0


def test_a_size_that_is_not_there_is_answered_with_those_there_are():
  with pytest.raises(ValueError, match="'huge'.*small, medium, large, xl"):
    diffusion.get_config("huge")
  for name in common.SIZES:
    assert ar.get_config(name).model.width == common.SIZES[name].width
    assert ar_latents.get_config(name).model.depth == common.SIZES[name].depth


@pytest.mark.parametrize(
  "variant, hertz, channels, rate, millions",
  [
    ("16k", 16_000, 1, 31.25, 49.6),
    ("44k", 44_100, 1, 43.07, 49.8),
    ("44k-stereo", 44_100, 2, 21.53, 54.8),
    ("48k-stereo", 48_000, 2, 25.0, 53.0),
  ],
)
def test_full_size_codecs(variant, hertz, channels, rate, millions):
  experiment = Experiment.from_config(codec.get_config(variant))
  sizes = experiment.model
  assert (sizes.sample_rate, sizes.channels) == (hertz, channels)
  assert (experiment.data.sample_rate, experiment.data.channels) == (
    (hertz, channels)
  )
  assert sizes.latent_rate == pytest.approx(rate, abs=0.01)
  params = experiment.abstract[1]["codec"]
  count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
  assert count == pytest.approx(millions, abs=0.05)
  # Both kinds of critics, on sound of as many channels; whole latents.
  critics = sizes.discriminator
  assert critics.periods == (2, 3, 5, 7, 11) and len(critics.fft_sizes) == 3
  assert critics.channels == channels
  assert experiment.objective.adversarial
  assert experiment.objective.crop % sizes.hop == 0
  with pytest.raises(ValueError, match="'8k'.*16k, 44k, 44k-stereo"):
    codec.get_config("8k")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_config_has_every_field_of_every_class(name):
  """What can be set on the command line is what the classes have."""
  config = SHIPPED[name].get_config()
  resolved = sections.complete(config)
  classes = sections.classes(sections.names_of(resolved))
  for section, cls in classes.items():
    values = sections.look_up(resolved, section)
    own = {field.name for field in settings.keys(cls)}
    extra = {"name"} if section in sections.NAMED else set()
    if section == "model" and "conditioner" in values:
      extra |= {"conditioner"}
    if section == "":
      extra = set(sections.FIXED) | {s for s in sections.NAMED if s in values}
    assert values.keys() == own | extra, section
    for field in settings.keys(cls):
      nested = settings.class_of(cls, field, values)
      if nested and values[field.name]:
        keys = {f.name for f in settings.keys(nested)}
        assert values[field.name].keys() == keys, f"{section}.{field.name}"
  # And it describes itself: the same experiment comes out of it again.
  experiment = Experiment.from_config(config)
  assert Experiment.from_config(experiment.config).config == experiment.config
  assert flat(resolved).keys() <= flat(experiment.config).keys()


def test_every_key_has_a_description():
  for name, module in SHIPPED.items():
    for key, kind, _, about in sections.help_lines(module.get_config()):
      assert about and kind, f"{name}: {key}"


# Fields for which every finite number makes sense.
UNBOUNDED = {"objective.time_mean", "objective.bias", "objective.gain_db"}


def numeric(config):
  """Yields (dotted key, value) of every number of a resolved config."""
  for key, value in flat(config).items():
    first = value[0] if isinstance(value, tuple) and value else value
    if isinstance(first, int | float) and not isinstance(first, bool):
      yield key, value


def refused(config, key, bad) -> str:
  """The line that refuses a value; "" if it is accepted."""
  config = copy.deepcopy(config)
  *path, name = key.split(".")
  node = functools.reduce(lambda node, part: node[part], path, config)
  old = node[name]
  # A whole number stays one, so that its range is asked and not its type.
  bad = int(bad) if isinstance(old, int) and math.isfinite(bad) else bad
  node[name] = (bad,) * len(old) if isinstance(old, tuple) else bad
  try:
    Experiment.from_config(config)
  except ValueError as error:
    return str(error)
  return ""


def lies_in(number, interval) -> bool:
  low, high = (float(end) for end in interval[1:-1].split(","))
  above = number >= low if interval[0] == "[" else number > low
  below = number <= high if interval[-1] == "]" else number < high
  return above and below


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_is_checked_where_it_is_declared(name):
  """One line with the key, the value and a range that does not hold it."""
  config = sections.complete(SHIPPED[name].get_config())
  keys = [key for key, _ in numeric(config)]
  assert len(keys) > 40
  for key in keys:
    for bad in (math.nan, math.inf, -math.inf, -1e9):
      line = refused(config, key, bad)
      if bad == -1e9 and key in UNBOUNDED:
        assert not line
        continue
      start = (
        rf"config\.{re.escape(key)}=\(?({bad:g}|{bad:.0f}|{bad})\b.* is not "
      )
      said = re.fullmatch(start + r"(of type int|in ([\[(].*[\])]))", line)
      assert said, (key, bad, line)
      if interval := said[3]:
        assert not math.isfinite(bad) or not lies_in(bad, interval), line


@pytest.mark.parametrize(
  "key, bad, said",
  [
    ("checkpoint_every", 0, "checkpoint_every=0 is not in [1, inf)"),
    ("log_every", 0, "log_every=0 is not in [1, inf)"),
    ("keep", 0, "keep=0 is not in [1, inf)"),
    ("ema_decay", 2.0, "ema_decay=2.0 is not in [0, 1)"),
    ("seed", -1, "seed=-1 is not in [0, 4294967295]"),
    ("seed", 2**32, "seed=4294967296 is not in [0, 4294967295]"),
    ("sampler.num_steps", 0, "sampler.num_steps=0 is not in [1, inf)"),
    ("data.fps", 0.0, "data.fps=0.0 is not in (0, inf)"),
    ("data.seconds", -1.0, "data.seconds=-1.0 is not in (0, inf)"),
    ("model.num_heads", 3, "model.num_heads=3 does not divide width=128"),
    ("model.width", 130, "model.num_heads=4 does not divide width=130"),
    ("model.depth", -1, "model.depth=-1 is not in [0, inf)"),
    (
      "model.remat",
      "all",
      "model.remat='all' is not one of none, attention, full",
    ),
    ("objective.cond_drop_rate", 1.5, "cond_drop_rate=1.5 is not in [0, 1]"),
    ("optimizer.learning_rate", -1.0, "learning_rate=-1.0 is not in [0, inf)"),
    ("optimizer.learning_rate", 0.0, "no partition has another: nothing would"),
    ("model.depth", 2.5, "model.depth=2.5 is not of type int"),
    ("profile", (3,), "profile=(3,) is not (first step, number of steps)"),
    ("compute_dtype", "float8", "compute_dtype='float8' is not one of"),
  ],
)
def test_a_number_out_of_range_is_refused_in_one_line(key, bad, said):
  config = sections.complete(diffusion_tiny.get_config())
  node = config
  *path, name = key.split(".")
  for part in path:
    node = node[part]
  node[name] = bad
  with pytest.raises(ConfigError) as error:
    Experiment.from_config(config)
  assert said in str(error.value) and str(error.value).startswith("config.")


@pytest.mark.parametrize(
  "section, key, message",
  [
    ("objective", "cond_drop_rat", "cond_drop_rat: no such key, did you mean"),
    ("sampler", "num_stepss", "num_stepss: no such key, did you mean num_step"),
    ("data", "sample_rate", "sample_rate: cannot be set; it is taken from"),
    ("model", "channels", "channels: cannot be set; it is taken from codec"),
  ],
)
def test_a_stray_key_is_refused_by_name(section, key, message):
  config = diffusion_tiny.get_config()
  config[section][key] = 1
  with pytest.raises(ConfigError, match=f"config.{section}.{message}"):
    Experiment.from_config(config)


def test_average_steps_need_a_model_of_averages():
  config = diffusion_tiny.get_config()
  experiment = Experiment.from_config(config)
  with pytest.raises(ConfigError, match="config.model.average"):
    experiment.sampler_with({"solver": "average"})
  config = mean_flow_tiny.get_config()
  experiment = Experiment.from_config(config)
  assert experiment.sampler_with({"solver": "average"}).solver == "average"
  config.model.average = False
  with pytest.raises(ConfigError, match="mean_flow.*config.model.average"):
    Experiment.from_config(config)


def test_samplers_take_other_values_for_some_fields():
  experiment = Experiment.from_config(diffusion_tiny.get_config())
  sampler = experiment.sampler_with(
    {"num_steps": 5, "guidance": {"video": 3.0}}
  )
  assert sampler.num_steps == 5 and sampler.guidance.video == 3.0
  assert sampler.guidance.prompt == experiment.sampler.guidance.prompt
  with pytest.raises(ConfigError, match="config.sampler.steps: no such key"):
    experiment.sampler_with({"steps": 5})


def test_an_unknown_name_is_answered_with_those_there_are():
  config = diffusion_tiny.get_config()
  config.objective.name = "flow"
  with pytest.raises(ConfigError, match="'flow' is not one of .*mean_flow"):
    Experiment.from_config(config)


@pytest.mark.parametrize(
  "key,value,said",
  [
    ("objective.infill_rate", 0.2, "infill_rate=0.2.*model.infill"),
    ("objective.teacher", "mn04", "representation_weight=0.0 with teacher"),
    ("objective.name", "next_token", "does not go with.*'diffusion' or 'mean"),
    ("sampler.name", "tokens", "sampler.name='tokens' does not go with.*'ode'"),
    ("data.target", "codes", "data.target='codes' does not go.*'latents'"),
  ],
)
def test_settings_that_do_not_go_together_are_refused(key, value, said):
  config = sections.complete(diffusion_tiny.get_config())
  section, _, name = key.partition(".")
  if name == "name":
    config[section] = {"name": value}
  else:
    config[section][name] = value
  with pytest.raises(ConfigError, match=said):
    Experiment.from_config(config)


def test_tokens_need_a_codec_with_as_many_codebooks():
  config = ar_tiny.get_config()
  config.model.num_codebooks = 9
  with pytest.raises(ConfigError, match=r"num_codebooks=9 is not in \[0, 8\]"):
    Experiment.from_config(config)
  config.model.num_codebooks = 0  # all
  assert Experiment.from_config(config).model.num_codebooks == 8
  config.codec = "patches:16000:512:1"
  with pytest.raises(ConfigError, match="generates codes.*has none"):
    Experiment.from_config(config)


@pytest.mark.parametrize("module", [diffusion_tiny, ar_tiny, ar_latents_tiny])
def test_sweeps_name_keys_of_the_config(module):
  known = flat(sections.complete(module.get_config()))
  sweeps = [v for k, v in vars(module).items() if k.startswith("sweep_")]
  assert sweeps
  for sweep in sweeps:
    for point in sweep():
      assert set(point) <= set(known)


def parse(*overrides, file="diffusion_tiny"):
  return config_lib.parse(f"configs/{file}.py", overrides)


@pytest.mark.parametrize(
  "override",
  [
    "objective.prediction_type=x",
    "objective.path=cosine",
    "objective.weighting=min_snr",
    "objective.gamma=3",
    "objective.infill_rate=0.2",
    "model.infill=True",
    "model.average=True",
    "model.conditioner.semantic.name=pixels",
    "lora.rank=8",
    "data.gain_db=3.0",
    "data.caption_fields=('caption',)",
    "data.max_bad_fraction=0.01",
    "data.random_caption=False",
    "data.frame_size=(32,64)",
    "optimizer.eps=1e-6",
    "optimizer.schedule=rsqrt",
    "compute_dtype=bfloat16",
    "keep_period=5000",
    "max_skipped_steps=3",
    "profile=(10,5)",
    "eval_every=7",
  ],
)
def test_every_option_can_be_set_on_the_command_line(override):
  """Those that answered "unknown config key" before all keys were filled in."""
  key, _, value = override.partition("=")
  node = parse(f"--config.{override}", "--config.model.infill=True")
  for part in key.split("."):
    node = node[part]
  try:
    wanted = eval(value)  # A literal of this file.
  except NameError:
    wanted = value
  assert node == wanted


def test_required_keys_can_be_set_on_the_command_line(tmp_path):
  file = tmp_path / "bare.py"
  file.write_text(
    "def get_config():\n"
    "  return {'codec': 'codec_tiny', 'data': {'target': 'latents'},"
    " 'model': {'name': 'dit'}, 'objective': {'name': 'diffusion'},"
    " 'sampler': {'name': 'ode'}}\n"
  )
  text = config_lib.help_text(config_lib.parse(str(file)))
  required = re.findall(r"config\.([\w.]+)  int = required", text)
  assert "model.width" in required
  given = {key: 2 for key in required} | {"model.width": 16}
  given |= {"data.paths": "('somewhere',)"}
  overrides = [config_lib.override(*item) for item in given.items()]
  config = config_lib.parse(str(file), overrides)
  assert Experiment.from_config(config).model.width == 16
  with pytest.raises(
    ConfigError, match="config.model.depth is missing: set it"
  ):
    Experiment.from_config(
      config_lib.parse(
        str(file), [arg for arg in overrides if "model.depth" not in arg]
      )
    )


def test_choosing_another_class_brings_its_keys():
  config = parse(
    "--config.objective.name=mean_flow",
    "--config.objective.instant_rate=0.25",
    "--config.model.average=True",
  )
  assert Experiment.from_config(config).objective.instant_rate == 0.25


def test_help_lists_every_key_with_type_default_and_meaning():
  text = config_lib.help_text(config_lib.parse("configs/ar_tiny.py"))
  assert "config.model.pattern  str = 'delay'\n    order in which" in text
  resolved = flat(sections.complete(ar_tiny.get_config()))
  listed = {line.split()[0] for line in text.splitlines() if line[0] != " "}
  assert listed == {f"config.{key}" for key in resolved}
