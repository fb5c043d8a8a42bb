"""Settings classes check, build, complete and describe themselves."""

import dataclasses
import math
from typing import Any

import pytest

from v2a_jax.basics import settings
from v2a_jax.basics.settings import SettingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
  """Settings of a part.

  Attributes:
    depth: number of blocks.
  """

  depth: int = 2

  def __post_init__(self):
    settings.check(self, depth="[1, 8)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other:
  """Settings of another part."""

  rate: float = 0.5


PARTS = {"inner": Inner, "other": Other}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
  """Settings.

  Attributes:
    width: number of features,
      on two lines.
    scale: first meaning.
  """

  width: int
  scale: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Base):
  """More settings; see also `Base`.

  Attributes:
    scale: second meaning.
    sizes: a pair.
    inner: a nested section.
    name: which part.
    part: its settings.
    channels: taken from the codec.
  """

  sizes: tuple[int, ...] = (1, 2)
  inner: Inner = Inner()
  name: str = ""
  part: Any = settings.named(PARTS)
  channels: int = settings.derived("codec.latent_dim", default=0)

  def __post_init__(self):
    settings.check(self, width="[1, inf)", scale="(0, 1]", sizes="[0, 9]")
    settings.choose(self, name=("", *PARTS))


def build(**values) -> Outer:
  return settings.build(Outer, {"width": 4} | values)


@pytest.mark.parametrize("scale", [1e-300, 0.5, 1, 1.0])
def test_the_ends_of_an_interval_count_where_the_bracket_is_square(scale):
  assert build(scale=scale).scale == scale


@pytest.mark.parametrize("scale", [0.0, 1.0000001, -1, math.nan, math.inf])
def test_a_number_outside_of_its_interval_is_refused(scale):
  with pytest.raises(SettingError) as error:
    build(scale=scale)
  assert str(error.value) == f"scale={scale!r} is not in (0, 1]"


@pytest.mark.parametrize(
  "values, said",
  [
    (dict(width=2.0), "width=2.0 is not of type int"),
    (dict(width=True), "width=True is not of type int"),
    (dict(scale="1"), "scale='1' is not of type float"),
    (dict(name=3), "name=3 is not of type str"),
    (dict(sizes=(3, 10)), r"sizes=\(3, 10\) is not in \[0, 9\]"),
    (dict(sizes=(3, 1.5)), r"sizes=\(3, 1.5\) is not a whole number"),
    (dict(inner=dict(depth=8)), r"inner.depth=8 is not in \[1, 8\)"),
    (dict(inner=dict(dept=3)), "inner.dept: no such key, did you mean depth"),
    (dict(name="inne"), "name='inne' is not one of '', inner, other"),
    (dict(channels=3), "channels: cannot be set; it is taken from codec"),
    (dict(width=None), "width is missing: set it"),
  ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(values, said):
  with pytest.raises(SettingError, match=said):
    build(**values)


def test_a_derived_field_comes_from_its_source():
  sources = {"codec": {"latent_dim": 7}}
  made = settings.build(Outer, {"width": 1}, sources=sources)
  assert made.channels == 7 and build().channels == 0
  assert "channels" not in settings.as_dict(made)


def test_a_name_chooses_the_class_of_the_section_beside_it():
  assert build(name="inner", part={"depth": 3}).part == Inner(depth=3)
  assert build(name="other", part={"rate": 0.25}).part == Other(rate=0.25)
  assert build(name="other", part={}).part is None


def test_lists_of_a_json_file_become_tuples():
  assert build(sizes=[3, 4]).sizes == (3, 4)


def test_completing_adds_every_default_and_keeps_what_is_unknown():
  values = settings.complete(Outer, {"inner": {}, "nmae": "inner"})
  assert values == {
    **{"width": None, "scale": 1.0, "sizes": (1, 2), "inner": {"depth": 2}},
    **{"name": "", "part": {}, "nmae": "inner"},
  }
  named = settings.complete(Outer, {"name": "other", "part": {"rate": 1.0}})
  assert named["part"] == {"rate": 1.0}


def test_what_is_built_from_its_own_values_is_the_same():
  made = build(name="inner", part={"depth": 5}, sizes=[0], scale=0.125)
  assert settings.build(Outer, settings.as_dict(made)) == made


def test_docstrings_of_a_class_and_its_bases_describe_the_fields():
  about = settings.describe(Outer)
  assert about["width"] == "number of features, on two lines."
  assert about["scale"] == "second meaning."
  assert set(about) == {field.name for field in dataclasses.fields(Outer)}
