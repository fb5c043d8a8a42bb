"""Cached features: the outputs of a frozen encoder for each record's frames.

A record's `features` field is an npz file of `times` [n], `values` [n f] and
`whole` (see `Features`), and of what targets.py describes. The frames are those
that the loader decodes from the record's start at `fps` and `frame_size`. If the
encoder sees each frame alone, the whole record is encoded and any window can be
cut out of it. If it also sees neighbouring frames, only the window at the
record's start is encoded, because the frames at a window's edges have no
neighbours outside.

The manifest's `features` entry (`FeatureFacts`) identifies the encoder and the
frames. derive.py writes features, example.py reads them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import io
import os
from typing import Any
import zipfile

import numpy as np

from data_pipelines import schema
from data_pipelines.manifest import read_manifest

KEY = "features"  # the manifest's entry
_AGAIN = "; run `v2a data precompute` again"


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of a record's frames.

  Attributes:
    times: times of the frames, float64 [n], seconds into the record.
    values: features, float32 [n f].
    whole: whether every frame of the record has features.
  """

  times: np.ndarray
  values: np.ndarray
  whole: bool = True

  @property
  def nbytes(self) -> int:
    """Bytes of memory."""
    return self.times.nbytes + self.values.nbytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureFacts:
  """The encoder and the frames of cached features; the manifest's entry.

  Attributes:
    encoder: digest of the encoder's weights and settings.
    dim: size of a frame's feature.
    fps: most frames a second that were encoded.
    frame_size: (height, width) of the frames in pixels.
    seconds: length of the window that was encoded; 0 for the whole record.
  """

  encoder: str
  dim: int
  fps: float
  frame_size: tuple[int, int]
  seconds: float = 0.0


def pack(features: Features) -> bytes:
  """Encodes features as the bytes of a record's `features` field."""
  return pack_arrays(dataclasses.asdict(features))


def pack_arrays(arrays: Mapping[str, Any], onto: bytes = b"") -> bytes:
  """Encodes arrays, beside those of other names in the bytes `onto`."""
  file = io.BytesIO()
  np.savez(file, **(unpack_arrays(onto) if onto else {}) | dict(arrays))
  return file.getvalue()


def unpack_arrays(
  data: bytes, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
  """Decodes arrays by their names, or all.

  Raises:
    DataError: the bytes are damaged, or lack a name.
  """
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      return {name: file[name] for name in (names or file.files)}
  except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise schema.DataError(
      f"its cached features are damaged ({error}){_AGAIN}"
    ) from None


def unpack(data: bytes, dim: int) -> Features:
  """Decodes a record's `features` field; empty bytes are no frames.

  Raises:
    DataError: the bytes are damaged, or of features of another size than `dim`.
  """
  if not data:
    return Features(np.zeros(0), np.zeros((0, dim), np.float32))
  arrays = unpack_arrays(data, ("times", "values", "whole"))
  values = arrays["values"]
  if values.shape != (len(arrays["times"]), dim):
    raise schema.DataError(
      f"its cached features are {values.shape[-1]} numbers a frame, should be"
      f" {dim}{_AGAIN}"
    )
  return Features(arrays["times"], values, bool(arrays["whole"]))


def check(path: str | os.PathLike, wanted: FeatureFacts) -> None:
  """Checks that the cached features of a data set are the wanted ones.

  An empty `wanted.encoder` fits any.

  Raises:
    DataError: the data set has no features, or those of another encoder or of
      other frames.
  """
  entry = read_manifest(path).get(KEY)
  again = "; make them with `v2a data precompute --add features`"
  if not entry:
    raise schema.DataError(f"{path} has no cached features{again}")
  for field in dataclasses.fields(FeatureFacts):
    cached, own = entry[field.name], getattr(wanted, field.name)
    cached = tuple(cached) if isinstance(cached, list) else cached
    any_window = field.name == "seconds" and not cached
    any_encoder = field.name == "encoder" and not own
    if cached != own and not any_window and not any_encoder:
      raise schema.DataError(
        f"{path}: its cached features are of {field.name}={cached!s:.12},"
        f" this run has {own!s:.12}{again} again"
      )
