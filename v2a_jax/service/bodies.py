"""Bodies of requests and answers, with the names of the command line.

Fields are those of `Request` and `DeliveryOptions`, with their types, defaults
and descriptions, so the API, the command and Python have one vocabulary.
"""

import dataclasses
import functools
from typing import Any

import pydantic

from v2a_jax.basics.settings import describe
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request

# Files of this machine, which clients name by ids.
_FILES = ("audio", "like", "clap")
_TYPES: dict[str, Any] = {
  "words": list[dict[str, Any]],
  "prompts": list[tuple[float, float, str]],
  "layers": list[tuple[str, str]],
  "regenerate": list[tuple[float, float]],
  "sampler": dict[str, Any],
  "rank_by": list[str],
  "timeline": list[str],
}


class _Strict(pydantic.BaseModel):
  model_config = pydantic.ConfigDict(extra="forbid")


def _model(name: str, cls: type, skip=()) -> type[pydantic.BaseModel]:
  """Makes a model with the fields of a settings class."""
  about, fields = describe(cls), {}
  for field in dataclasses.fields(cls):
    if field.name in skip:
      continue
    kind = _TYPES.get(field.name, field.type)
    how: dict[str, Any] = {"description": about[field.name]}
    if field.name in _TYPES:
      default = getattr(cls(), field.name)
      listed = dict if isinstance(default, dict) else list
      how["default_factory"] = functools.partial(listed, default)
    else:
      how["default"] = field.default
    if kind is str:
      how["max_length"] = 20_000
    fields[field.name] = (kind, pydantic.Field(**how))
  return pydantic.create_model(name, __base__=_Strict, **fields)


RequestBody = _model("Request", Request, skip=_FILES)
DeliveryBody = _model(
  "Delivery", DeliveryOptions, skip=("keep", "zip", "payload")
)


class TakeName(_Strict):
  """A take: the id of its job, and its seed."""

  job: str
  seed: int


class JobBody(_Strict):
  """What is wanted.

  `video`, `audio` and `like` are ids of uploads. `audio` is the sound to keep,
  as in `v2a generate --audio`: the spans in `request.regenerate`, and what comes
  after its end, are made. `base` is a take in its place; without either,
  `request.regenerate` is of the video's own sound.
  """

  video: str
  request: RequestBody = pydantic.Field(default_factory=RequestBody)
  delivery: DeliveryBody = pydantic.Field(default_factory=DeliveryBody)
  audio: str = ""
  like: str = ""
  base: TakeName | None = None


class ExportBody(_Strict):
  """Takes, of any jobs, and how they are delivered."""

  takes: list[TakeName] = pydantic.Field(min_length=1, max_length=64)
  delivery: DeliveryBody = pydantic.Field(default_factory=DeliveryBody)


class KeepBody(_Strict):
  """Whether a take is kept."""

  kept: bool
