"""Options: every number has a range, every error names field and value."""

import dataclasses
import json
import math
import typing

import numpy as np
import pytest

from data_pipelines.assemble import OutputOptions
from data_pipelines.build import SceneOptions, build_folder, build_scenes
from data_pipelines.clips import ClipOptions
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.report import write_report
from data_pipelines.window import Window
from launch import cli
from v2a_jax.basics import settings
from v2a_jax.basics.settings import SettingError

WINDOW = {
  "seconds": "(0, inf)",
  "fps": "(0, inf)",
  "frame_size": "[1, inf)",
  "sample_rate": "[1, inf)",
  "channels": "[1, 2]",
  "prompt_length": "[1, inf)",
  "transcript_length": "[1, inf)",
  "features": "[0, inf)",
}
RANGES = {
  ClipOptions: {
    "short_side": "[2, inf)",
    "max_fps": "(0, inf)",
    "max_seconds": "[0, inf)",
    "min_seconds": "[0, inf)",
    "max_sample_rate": "[4_000, inf)",
    "val_fraction": "[0, 1]",
    "test_fraction": "[0, 1]",
    "file_seconds": "(0, inf)",
    "read_limits": "(0, inf)",
  },
  OutputOptions: {
    "vocab_size": "[512, inf)",
    "workers": "[1, inf)",
    "shard_mb": "(0, inf)",
  },
  SceneOptions: {
    "seconds": "[2, inf)",
    "fps": "[1, inf)",
    "size": "[2, inf)",
    "sample_rate": "[4000, 192000]",
    "held_out": "[0, 0.5]",
    "ordered": "[0, 1]",
  },
  Window: WINDOW,
  LoaderConfig: WINDOW
  | {
    "batch_size": "[1, inf)",
    "gain_db": "[0, 60]",
    "seed": "[0, 4294967295]",
    "num_threads": "[-1, inf)",
    "num_workers": "[-1, inf)",
    "cache_mb": "[0, inf)",
    "max_bad_fraction": "[0, 1]",
    "min_confidence": "[0, 1]",
  },
}
# Arguments without a default, and values that go with any other field's.
FIXED = {
  ClipOptions: dict(
    val_fraction=0, test_fraction=0, min_seconds=0, max_seconds=0
  ),
  OutputOptions: {},
  SceneOptions: {},
  Window: dict(
    seconds=1.0,
    fps=10,
    frame_size=(8, 8),
    sample_rate=8000,
    channels=1,
    prompt_length=4,
    transcript_length=4,
    caption_fields=("caption",),
  ),
  LoaderConfig: dict(paths=("somewhere",)),
}
FIELDS = [
  pytest.param(cls, name, interval, id=f"{cls.__name__}.{name}")
  for cls, ranges in RANGES.items()
  for name, interval in ranges.items()
]


def make(cls, **changes):
  return cls(**(FIXED[cls] | changes))


def ends(interval):
  low, high = map(float, interval[1:-1].split(","))
  return low, high


def contains(interval, value):
  low, high = ends(interval)
  after = value > low or (value == low and interval[0] == "[")
  before = value < high or (value == high and interval[-1] == "]")
  return after and before and math.isfinite(value)


@pytest.mark.parametrize("cls", RANGES, ids=lambda cls: cls.__name__)
def test_every_numeric_field_has_a_range(cls):
  types = typing.get_type_hints(cls)
  numeric = {name for name, kind in types.items() if kind in (int, float)}
  tuples = {"frame_size"} & set(types)
  assert numeric | tuples == set(RANGES[cls])


@pytest.mark.parametrize("cls,name,interval", FIELDS)
def test_numbers_outside_are_refused_in_one_line(cls, name, interval):
  low, high = ends(interval)
  bad = [math.nan, math.inf, -math.inf, -1e9, low - 1, low - 1e-3, "2"]
  bad += [low] * (interval[0] == "(") + [high + 1e-3] * math.isfinite(high)
  for value in bad:
    with pytest.raises(SettingError) as error:
      make(cls, **{name: value})
    message = str(error.value)
    assert message.startswith(f"{name}=") and "\n" not in message
    assert repr(value) in message and interval in message


@pytest.mark.parametrize("cls,name,interval", FIELDS)
def test_numbers_inside_are_taken(cls, name, interval):
  low, high = ends(interval)
  rng = np.random.default_rng(len(name))
  whole = typing.get_type_hints(cls)[name] is not float
  top = high if math.isfinite(high) else low + 1e4
  good = [low] * (interval[0] == "[") + [high] * (interval[-1] == "]")
  good += rng.uniform(low, top, 5).tolist()
  for value in good:
    value = 2 * math.ceil(value / 2) if name == "size" else value
    value = math.ceil(value) if whole else value
    assert contains(interval, value)
    taken = getattr(make(cls, **{name: value}), name)
    assert taken in (value, (value, value))


def test_a_frame_size_is_two_numbers_and_one_stands_for_both():
  assert make(LoaderConfig, frame_size=48).frame_size == (48, 48)
  assert make(LoaderConfig, frame_size=[32, 48]).frame_size == (32, 48)
  for size in [(48,), (1, 2, 3), ()]:
    with pytest.raises(SettingError, match=r"frame_size=.*\(height, width\)"):
      make(LoaderConfig, frame_size=size)
  with pytest.raises(SettingError, match=r"frame_size=\(32, 0\) is not in"):
    make(LoaderConfig, frame_size=(32, 0))


def test_fractions_of_two_splits_add_up_to_one_at_most():
  ClipOptions(val_fraction=0.25, test_fraction=0.75)
  with pytest.raises(SettingError, match="val_fraction=0.6.*more than 1"):
    ClipOptions(val_fraction=0.6, test_fraction=0.5)


def test_settings_that_do_not_go_together_are_refused():
  with pytest.raises(
    SettingError, match="max_seconds=0.5 is below min_seconds"
  ):
    ClipOptions(max_seconds=0.5, min_seconds=0.6)
  assert ClipOptions(max_seconds=0, min_seconds=0.6).max_seconds == 0
  with pytest.raises(SettingError, match="size=33 is odd"):
    SceneOptions(size=33)
  with pytest.raises(SettingError, match="action='sing' is not one of.* talk"):
    SceneOptions(action="sing")


@pytest.mark.parametrize(
  "name,value,words",
  [
    ("split", "tset", "is not one of train, val, test, all"),
    ("split", "", "is not one of"),
    ("crop", "middle", "is not one of random, start"),
    ("caption_fields", ("captoin",), "did you mean caption?"),
    ("caption_fields", ("words",), "is not one of id, caption"),
  ],
)
def test_an_unknown_choice_is_answered_with_the_known_ones(name, value, words):
  with pytest.raises(SettingError) as error:
    make(LoaderConfig, **{name: value})
  assert str(error.value).startswith(f"{name}={value!r}")
  assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("paths", [(), "", [""], ("data", "")], ids=str)
def test_no_data_set_says_where_one_comes_from(paths):
  with pytest.raises(SettingError, match="^paths=.*v2a data scenes"):
    LoaderConfig(paths=paths)


def test_a_loader_config_is_a_section_of_a_config_file():
  """What is set by hand has a default that JSON holds, and is documented."""
  fields = settings.keys(LoaderConfig)
  texts = settings.describe(LoaderConfig)
  for field in fields:
    assert field.default is not dataclasses.MISSING, field.name
    assert not isinstance(field.default, type(None)), field.name
    json.dumps(field.default)
    assert len(texts[field.name]) > 20, field.name
  others = {f.name for f in dataclasses.fields(LoaderConfig)} - {
    f.name for f in fields
  }
  of_run = {"sample_rate", "channels", "seed", "encoder", "codec", "frames"}
  assert others == of_run
  section = settings.complete(LoaderConfig, {"paths": ["a"], "fps": 8.0})
  again = json.loads(json.dumps(section))
  config = settings.build(LoaderConfig, again)
  assert config == LoaderConfig(paths=("a",), fps=8.0)
  assert settings.as_dict(config) == section | dict(
    paths=("a",), frame_size=(64, 64)
  )


def test_what_belongs_to_others_is_taken_from_them():
  sources = {
    "codec": dict(sample_rate=44_100, channels=2),
    "seed": 7,
    "features": dict(encoder="abc", decode_frames=False),
  }
  config = settings.build(LoaderConfig, {"paths": ["a"]}, sources=sources)
  assert (config.sample_rate, config.channels, config.seed) == (44_100, 2, 7)
  assert config.encoder == "abc" and config.frames is False
  assert config.window.channels == 2 and not config.window.frames
  plain = settings.build(LoaderConfig, {"paths": ["a"]})
  assert (plain.sample_rate, plain.channels, plain.seed) == (16_000, 1, 0)
  with pytest.raises(SettingError, match="seed: cannot be set.*from seed"):
    settings.build(LoaderConfig, {"paths": ["a"], "seed": 1})
  # From Python, they are plain arguments.
  assert LoaderConfig(paths="a", channels=2, seed=3, sample_rate=8000).seed == 3


@pytest.mark.parametrize("cls", RANGES, ids=lambda cls: cls.__name__)
def test_every_field_is_documented(cls):
  texts = settings.describe(cls)
  assert set(texts) == {field.name for field in dataclasses.fields(cls)}
  assert all(text[0].islower() or text[0] in "(H" for text in texts.values())


@pytest.mark.parametrize(
  "arguments,words",
  [
    (
      ["build", ".", "--val_fraction", "2"],
      "val_fraction=2.0 is not in [0, 1]",
    ),
    (["build", ".", "--max_fps", "0"], "max_fps=0.0 is not in (0, inf)"),
    (["build", ".", "--workers", "0"], "workers=0 is not in [1, inf)"),
    (["build", ".", "--limit", "0"], "limit=0 is not in [1, inf)"),
    (["scenes", "--held_out", "nan"], "held_out=nan is not in [0, 0.5]"),
    (["scenes", "--fps", "-12.5"], "fps=-12.5 is not in [1, inf)"),
    (["scenes", "--seconds", "1"], "seconds=1.0 is not in [2, inf)"),
    (["scenes", "--num", "0"], "num=0 is not in [1, inf)"),
    (["scenes", "--vocab_size", "9"], "vocab_size=9 is not in [512, inf)"),
  ],
  ids=lambda value: value[1:] and value[-2] if isinstance(value, list) else "",
)
def test_the_command_refuses_a_number_before_it_works(
  arguments, words, tmp_path, capsys
):
  out = tmp_path / "ds"
  assert cli.main(["data", *arguments, "-o", str(out)]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line == f"v2a data: {words}"
  assert list(tmp_path.iterdir()) == []


def test_python_arguments_have_ranges_too(tmp_path):
  with pytest.raises(SettingError, match=r"limit=-1 is not in \[1, inf\)"):
    build_folder(tmp_path, out=tmp_path / "ds", limit=-1)
  with pytest.raises(SettingError, match=r"num=-3 is not in \[1, inf\)"):
    build_scenes(-3, out=tmp_path / "ds")
  with pytest.raises(SettingError, match=r"num=-1 is not in \[0, inf\)"):
    write_report(tmp_path, num=-1)
