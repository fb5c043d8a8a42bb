"""Reads sidecars, which anybody may have edited, and checks what is followed."""

import dataclasses
import pathlib
from typing import Any, TypeVar

from v2a_jax.basics import files
from v2a_jax.basics.settings import SettingError, build, check
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """Where the weights are from: folder or bundle, and training step."""

  path: str
  step: int | str | None = None

  def __post_init__(self):
    if self.step != "best":
      check(self, step="[0, inf)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery(DeliveryOptions):
  """How soundtracks were written.

  Attributes:
    key_digest: digest of the watermark's key (`watermark.key_digest`); "" for no
      watermark.
  """

  key_digest: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
  """A soundtrack that was written."""

  seed: int
  sha256_samples: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sidecar:
  """What made the soundtracks beside a sidecar."""

  video: str
  checkpoint: Checkpoint
  request: Request
  delivery: Delivery
  candidates: tuple[Candidate, ...]


def read(path: pathlib.Path) -> Sidecar:
  """Reads a sidecar.

  Raises:
    SettingError: a part is missing or of another type, a value is out of range,
      or a key is unknown; the message begins with the place.
    OSError, ValueError, RecursionError: the file cannot be read, or is no JSON.
  """
  found = files.read_json(path)
  video, model, rows = (found.get(k) for k in ("video", "model", "candidates"))
  if not isinstance(video, str):
    raise SettingError(f"video={video!r} is not a path")
  checkpoint = model.get("checkpoint") if isinstance(model, dict) else None
  if not isinstance(rows, list):
    raise SettingError("candidates is not a list")
  return Sidecar(
    video=video,
    checkpoint=_part(Checkpoint, "model.checkpoint", checkpoint, skip=True),
    request=_part(Request, "request", found.get("request")),
    delivery=_part(Delivery, "delivery", found.get("delivery")),
    candidates=tuple(
      _part(Candidate, f"candidates[{place}]", row, skip=True)
      for place, row in enumerate(rows)
    ),
  )


def _part(cls: type[_T], place: str, values: Any, *, skip: bool = False) -> _T:
  """Makes a part of a sidecar; `skip` passes keys over that it does not have."""
  if not isinstance(values, dict):
    raise SettingError(f"{place} is not an object")
  try:
    return build(cls, values, skip=values if skip else ())
  except SettingError as error:
    raise SettingError(f"{place}.{error}") from None
