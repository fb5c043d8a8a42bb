"""Cached targets: the latents or codes of a frozen codec for a record's sound.

They are those of the window at the record's start, since a codec sees beyond
the edges of what it encodes. Beside Features (features.py) they are arrays of
the npz file in a record's `features` field: `target` [t c] or [t q],
`target_std` of a codec that gives a deviation, and `heard`, the seconds of the
window that have sound. The manifest's entry (`TargetFacts`) identifies the codec.
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import numpy as np

from data_pipelines import features, schema
from data_pipelines.manifest import read_manifest

KEY = "target"  # the manifest's entry
_MAKE = "`v2a data precompute --add target`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetFacts:
  """What the targets of a data set are; the manifest's entry.

  Attributes:
    kind: `latents` or `codes`.
    codec: digest of the codec's weights and sizes.
    seconds: length of the window in seconds.
    shape: (steps, channels or codebooks).
    dtype: type of the numbers.
    std: whether each has a deviation.
  """

  kind: str
  codec: str
  seconds: float
  shape: tuple[int, int]
  dtype: str
  std: bool


def check(
  path: str | os.PathLike, *, kind: str, codec: str, seconds: float
) -> TargetFacts:
  """Checks that the cached targets of a data set are the wanted ones.

  Args:
    path: folder of the data set.
    kind: see `TargetFacts`.
    codec: digest of the codec; empty for any.
    seconds: length of the window.

  Raises:
    DataError: it has none, or those of another codec or window.
  """
  entry = read_manifest(path).get(KEY)
  if not entry:
    raise schema.DataError(
      f"{path} has no cached latents or codes; make them with {_MAKE}"
    )
  facts = TargetFacts(**entry | {"shape": tuple(entry["shape"])})
  wanted = {"kind": kind, "codec": codec, "seconds": seconds}
  for name, own in wanted.items():
    if own and getattr(facts, name) != own:
      raise schema.DataError(
        f"{path}: its cached {facts.kind} are of"
        f" {name}={getattr(facts, name)!s:.12}, this run has {own!s:.12}; make"
        f" them with {_MAKE} again"
      )
  return facts


def arrays_of(target, std, heard: float) -> dict[str, np.ndarray]:
  """Returns the arrays that are kept of one record; `std` may be None."""
  arrays = {"target": np.asarray(target), "heard": np.float32(heard)}
  return arrays if std is None else arrays | {"target_std": np.asarray(std)}


def read(
  record: Mapping[str, Any], facts: TargetFacts
) -> dict[str, np.ndarray]:
  """Returns `target`, `target_std` and `duration` of a record's example.

  Raises:
    DataError: they are missing, damaged or of another shape.
  """
  names = ["target", "heard"] + ["target_std"] * facts.std
  arrays = features.unpack_arrays(record["features"], names)
  if arrays["target"].shape != facts.shape:
    raise schema.DataError(
      f"its cached {facts.kind} have the shape {arrays['target'].shape}, should"
      f" have {facts.shape}; make them with {_MAKE} again"
    )
  return arrays | {"duration": np.float32(arrays.pop("heard"))}


def blank(facts: TargetFacts) -> dict[str, np.ndarray]:
  """Returns the same of a record that cannot be read."""
  zeros = np.zeros(facts.shape, facts.dtype)
  arrays = {"target": zeros, "duration": np.float32(0.0)}
  return arrays | ({"target_std": zeros} if facts.std else {})
