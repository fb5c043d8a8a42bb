"""Config files on the command line: found, completed, overridden, explained."""

import re
import shutil

import pytest
import yaml

from launch import config as config_lib
from launch.parsing import UsageError
from tests.launch.commands import ROOT, refused, succeeds
from v2a_jax.experiment import sections

FILE = """
from configs import diffusion_tiny

def get_config(size="small"):
  config = diffusion_tiny.get_config()
  config.name = size
  config.model.width = dict(small=32, large=64)[size]
  return config

def sweep_lr():
  for value in (1e-3, 1e-4):
    yield {"optimizer.learning_rate": value}

def sweep_broken():
  yield {"model.depth": 1}
  raise OSError("no table of depths")
"""
AR = "configs/ar_tiny.py"


@pytest.fixture
def file(tmp_path):
  """Writes a config file and returns its path."""

  def write(text=FILE, name="mine.py"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)

  return write


def flat(config, prefix=""):
  """Returns the values of nested dicts by dotted key."""
  leaves = {}
  for key, value in config.items():
    if isinstance(value, dict) and value and key != "partitions":
      leaves |= flat(value, f"{prefix}{key}.")
    else:
      leaves[prefix + key] = value
  return leaves


def test_a_packaged_config_is_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert config_lib.find_config(AR) == str(ROOT / AR)
  assert config_lib.find_config(f"{AR}:x") == f"{ROOT / AR}:x"
  # One's own file goes first.
  (tmp_path / "configs").mkdir()
  shutil.copy(ROOT / "configs" / "codec_tiny.py", tmp_path / AR)
  assert config_lib.find_config(AR) == str(tmp_path / AR)
  assert config_lib.parse(AR).model.name == "codec"


@pytest.mark.parametrize(
  "name,words",
  [
    ("configs/difusion_tiny.py", "did you mean configs/diffusion_tiny.py?"),
    ("configs/ar_tiny", "did you mean configs/ar_tiny.py?"),
    ("zzz", "; there are configs/ar.py, configs/ar_latents.py,"),
    ("", "no config: give --config=configs/diffusion_tiny.py"),
  ],
)
def test_a_missing_file_names_the_nearest(name, words, capsys):
  assert words in refused(capsys, "train", f"--config={name}", "--workdir=x")


def test_the_argument_of_a_file_follows_a_colon(file, capsys):
  path = file()
  for argument, width in (("", 32), (":small", 32), (":large", 64)):
    config = config_lib.parse(path + argument)
    assert config.model.width == width
    assert config.name == (argument[1:] or "small")
  line = refused(capsys, "train", f"--config={path}:huge", "--workdir=x")
  assert line == f"v2a train: {path}:huge: 'huge' [KeyError]\n"
  line = refused(capsys, "train", f"--config={AR}:huge", "--workdir=x")
  assert "ar_tiny.py:huge: get_config() takes 0 positional arguments" in line
  large = succeeds(
    capsys, "train", "--config=configs/ar.py:large", "--print_config"
  )
  assert "name: ar_large\n" in large


@pytest.mark.parametrize(
  "text,words",
  [
    ("x = 1", "defines no get_config()"),
    ("def get_config(:", "invalid syntax"),
    ("import no_such_module", "No module named 'no_such_module'"),
    ("def get_config():\n  return {}['depth']", "'depth' [KeyError]"),
    ("def get_config():\n  return 1 / 0", "[ZeroDivisionError]"),
    ("def get_config():\n  pass", "config.model.name='' is not one of"),
    ("def get_config():\n  return {'model': {'name': 'dti'}}", "did you mean"),
    (
      "def get_config():\n  return dict(model={'name': 'dit'})",
      "config.objective.name='' is not one of",
    ),
  ],
)
def test_a_file_that_fails_is_one_line_with_its_name(text, words, file, capsys):
  path = file(text)
  line = refused(capsys, "train", f"--config={path}", "--print_config")
  assert words in line
  assert path in line or "config." in line


def test_a_config_may_be_plain_dicts(file):
  path = file(
    "def get_config():\n"
    "  return dict(codec='codec_tiny', data=dict(target='latents'),\n"
    "    model=dict(name='dit', depth=3, width=8), sampler=dict(name='ode'),\n"
    "    objective=dict(name='diffusion'))\n"
  )
  config = config_lib.parse(path, ["--config.model.width=96"])
  assert (config.model.depth, config.model.width) == (3, 96)
  assert config.objective.prediction_type == "velocity"


@pytest.mark.parametrize(
  "override,words",
  [
    ("model.deth=3", "'model.deth', did you mean depth?"),
    ("modle.depth=3", "'modle', did you mean model?"),
    ("qqq=3", "'qqq'; there are accumulate, checkpoint_dir, checkpoint_every"),
    ("learning_rate=3", "did you mean optimizer.learning_rate?"),
    ("sampler.guidance.vidoe=3", "'sampler.guidance.vidoe', did you mean"),
    ("model.depth.x=3", "config.model.depth has no keys in it"),
    ("model.depth=many", "config.model.depth is of type int, not 'many'"),
    ("model.depth=2.5", "config.model.depth is of type int, not '2.5'"),
    ("data.shuffle=maybe", "config.data.shuffle is of type bool, not 'maybe'"),
    ("optimizer.learning_rate=x", "learning_rate is of type float, not 'x'"),
    ("model=3", "config.model is a section, not '3'"),
    ("model.name=transformer", "config.model.name='transformer' is not one of"),
    ("objective.name=difusion", "did you mean diffusion?"),
  ],
)
def test_a_wrong_override_is_one_line(override, words, capsys, tmp_path):
  args = ["--config=configs/diffusion_tiny.py", f"--config.{override}"]
  run = tmp_path / "run"
  assert words in refused(capsys, "train", *args, f"--workdir={run}")
  assert words in refused(capsys, "sweep", "plan", *args, "-o", run)
  assert not run.exists()


@pytest.mark.parametrize(
  "override,words",
  [
    ("checkpoint_every=0", "config.checkpoint_every=0 is not in [1, inf)"),
    ("model.num_heads=3", "config.model.num_heads=3 does not divide width=128"),
    ("data.fps=0.0", "config.data.fps=0.0 is not in (0, inf)"),
    ("optimizer.learning_rate=-1.0", "learning_rate=-1.0 is not in"),
    ("data.split=tset", "config.data.split='tset' is not one of train, val"),
    ("data.target=codes", "does not go with config.model.name='dit'"),
  ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_written(
  override, words, capsys, tmp_path
):
  run = tmp_path / "run"
  args = ["--config=configs/diffusion_tiny.py", f"--config.{override}"]
  assert words in refused(capsys, "train", *args, f"--workdir={run}")
  assert not run.exists()


def test_overrides_are_applied_in_order_to_every_kind_of_key():
  config = config_lib.parse(
    AR,
    [
      "--config.model.depth=7",
      "--config.data.paths=('a', 'b c')",
      "--config.data.frame_size=48",
      "--config.data.shuffle=false",
      "--config.optimizer.betas=(0.5,0.6)",
      "--config.optimizer.learning_rate=1e-3",
      "--config.name=a=b",
      "--config.model.depth=8",
    ],
  )
  assert config.model.depth == 8
  assert config.data.paths == ("a", "b c")
  assert config.data.frame_size == 48 and config.data.shuffle is False
  assert config.optimizer.betas == (0.5, 0.6)
  assert config.optimizer.learning_rate == 1e-3
  assert config.name == "a=b"
  size = config_lib.parse(AR, ["--config.data.frame_size=(32,64)"])
  assert size.data.frame_size == (32, 64)


def test_the_keys_of_a_chosen_class_can_be_set_in_the_same_command():
  config = config_lib.parse(
    "configs/diffusion_tiny.py",
    [
      "--config.objective.instant_rate=0.5",
      "--config.objective.name=mean_flow",
    ],
  )
  assert config.objective.instant_rate == 0.5


def test_the_printed_config_is_that_config(capsys, file):
  args = ["--config.seed=7", "--config.data.frame_size=(32,48)"]
  printed = succeeds(capsys, "train", f"--config={AR}", *args, "--print_config")
  file(printed, "printed.yaml")
  path = file(
    "import pathlib, yaml\n"
    "def get_config():\n"
    "  text = pathlib.Path(__file__).with_name('printed.yaml').read_text()\n"
    "  return yaml.load(text, yaml.UnsafeLoader)\n"
  )
  assert "seed: 7\n" in printed
  assert config_lib.parse(path) == config_lib.parse(AR, args)
  again = succeeds(capsys, "train", f"--config={path}", "--print_config")
  assert yaml.load(again, yaml.UnsafeLoader) == yaml.load(
    printed, yaml.UnsafeLoader
  )


@pytest.mark.parametrize("name", ["ar_tiny", "codec_tiny", "finetune"])
def test_every_key_in_the_help_can_be_typed(name, capsys):
  """The help of the keys, typed back as overrides, changes nothing."""
  path = f"configs/{name}.py"
  page = succeeds(capsys, "train", f"--config={path}", "--help_config")
  rows = re.findall(
    r"^config\.([\w.]+)  (.+?) = (.*)\n((?:    .*\n?)+)", page, re.M
  )
  config = config_lib.parse(path)
  leaves = flat(config.to_dict())
  assert {row[0] for row in rows} == set(leaves)
  for key, _, value, about in rows:
    assert value == repr(leaves[key])
    assert about.strip(), key
  typed = [
    config_lib.override(key, value)
    for key, value in leaves.items()
    if not isinstance(value, dict) and value != ()
  ]
  assert config_lib.parse(path, typed) == config


def test_a_fingerprint_is_of_the_resolved_config_alone(file):
  one = config_lib.fingerprint(config_lib.parse(AR))
  depth = config_lib.parse(AR).model.depth
  same = config_lib.parse(AR, [f"--config.model.depth={depth}"])
  copy = file((ROOT / AR).read_text(), "copy.py")
  other = config_lib.parse(AR, [f"--config.model.depth={depth + 1}"])
  assert config_lib.fingerprint(same) == one
  assert config_lib.fingerprint(config_lib.parse(copy)) == one
  assert config_lib.fingerprint(other) != one
  assert re.fullmatch("[0-9a-f]{6}", one)


def test_sweeps_are_listed_and_a_broken_one_names_itself(file):
  path = file(FILE.replace('raise OSError("no table of depths")', "pass"))
  assert config_lib.sweeps(path) == {
    "lr": [
      {"optimizer.learning_rate": 1e-3},
      {"optimizer.learning_rate": 1e-4},
    ],
    "broken": [{"model.depth": 1}],
  }
  path = file()
  with pytest.raises(UsageError, match="sweep_broken: no table of depths"):
    config_lib.sweeps(path)


def test_what_needs_no_codec_is_checked_without_one():
  config = config_lib.parse(AR, ["--config.codec=no/such/codec"])
  config_lib.check(config)
  for override, words in [
    ("seed=-1", "config.seed=-1 is not in"),
    ("data.batch_size=0", "config.data.batch_size=0 is not in"),
    ("sampler.temperature=0.0", "config.sampler.temperature=0.0 is not in"),
    ("mesh.fsdp=-3", "config.mesh.fsdp=-3 is not in"),
  ]:
    config = config_lib.parse(AR, [f"--config.{override}"])
    with pytest.raises(sections.ConfigError, match=re.escape(words)):
      config_lib.check(config)
