"""Cached features: what a frozen encoder gives for the frames of each record.

A record's `features` are an npz file of `times` [n], `values` [n f] and `whole`
(see `Features`). The frames are those that the loader would decode from the
record's start at `fps` and `frame_size`. Where the encoder sees each frame
alone, the whole record is encoded and any window can be cut out. Where it also
sees the neighbours, features are those of one window, at the record's start,
whose edges have no neighbours outside.

The manifest's `features` entry (`FeatureFacts`) says whose they are. They are
made by featurize.py and read by example.py.
"""

import dataclasses
import io
import os
import zipfile

import numpy as np

from data_pipelines import schema
from data_pipelines.manifest import read_manifest

KEY = "features"  # of the manifest
_AGAIN = "; run `v2a data features` again"


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of frames.

  Attributes:
    times: float64 [n], seconds into the record.
    values: float32 [n f].
    whole: whether all frames of the record have one.
  """

  times: np.ndarray
  values: np.ndarray
  whole: bool = True

  @property
  def nbytes(self) -> int:
    return self.times.nbytes + self.values.nbytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureFacts:
  """Whose features they are; the manifest's entry.

  Attributes:
    encoder: digest of its weights and settings.
    dim: of a feature.
    fps: at most this many frames a second were shown to it.
    frame_size: (height, width) of the frames.
    seconds: of the window that was encoded; 0 for the whole record.
  """

  encoder: str
  dim: int
  fps: float
  frame_size: tuple[int, int]
  seconds: float = 0.0


def pack(features: Features) -> bytes:
  """The bytes of a record's field."""
  file = io.BytesIO()
  np.savez(file, **dataclasses.asdict(features))
  return file.getvalue()


def unpack(data: bytes, dim: int) -> Features:
  """Reads a record's field; empty bytes are no frames.

  Raises:
    DataError: they are damaged, or not `dim` numbers a frame.
  """
  if not data:
    return Features(np.zeros(0), np.zeros((0, dim), np.float32))
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      found = Features(file["times"], file["values"], bool(file["whole"]))
  except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
    raise schema.DataError(
      f"its cached features are damaged ({error}){_AGAIN}"
    ) from None
  if found.values.shape != (len(found.times), dim):
    raise schema.DataError(
      f"its cached features are {found.values.shape[-1]} numbers a frame, should"
      f" be {dim}{_AGAIN}"
    )
  return found


def check(path: str | os.PathLike, wanted: FeatureFacts) -> None:
  """Refuses a data set whose features are not those that are wanted.

  Raises:
    DataError: it has none, or they are of another encoder or of other frames.
  """
  found = read_manifest(path).get(KEY)
  again = "; make them with `v2a data features`"
  if not found:
    raise schema.DataError(f"{path} has no cached features{again}")
  for field in dataclasses.fields(FeatureFacts):
    old, new = found[field.name], getattr(wanted, field.name)
    old = tuple(old) if isinstance(old, list) else old
    whole = field.name == "seconds" and not old
    if old != new and not whole and not (field.name == "encoder" and not new):
      raise schema.DataError(
        f"{path}: its cached features are of {field.name}={_short(old)}, this"
        f" run has {_short(new)}{again} again"
      )


def _short(value) -> str:
  return value[:12] if isinstance(value, str) else str(value)
