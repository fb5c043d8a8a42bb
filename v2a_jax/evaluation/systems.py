"""What is evaluated: a model of ours, or a folder of sounds of any system."""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any, ClassVar, Protocol

import numpy as np

from data_pipelines.loader_config import LoaderConfig
from v2a_jax.basics.files import sha256_of
from v2a_jax.evaluation import folders, takes
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.formats import Format
from v2a_jax.evaluation.schema import GENERATED, SHUFFLED
from v2a_jax.soundtrack import ranking


class System(Protocol):
  """A system under evaluation.

  Attributes:
    rows: rows that it can make and that need nothing else.
    loader_config: of the examples that it takes; None for none.
    seconds: longest sound that it makes; None for any.
    see: encodes a video's bytes, for the examples; None where it does not.
    chosen_by: scores (`soundtrack.scoring`) by which sounds were chosen.
    shuffles_sounds: whether its row of shuffled videos has the sounds of its own
      row, each for another clip.
    size: `parameters` and `precision` of a model; {} where the sounds are there.
  """

  rows: Sequence[str]
  loader_config: LoaderConfig | None
  seconds: float | None
  see: Callable[[bytes], np.ndarray] | None
  chosen_by: Collection[str]
  shuffles_sounds: bool
  size: Mapping[str, Any]

  def describe(self) -> dict[str, Any]:
    """Returns `kind`, `name`, `checkpoint`, `config`, `sampler`."""

  def check(self, clip: Clip, format: Format) -> None:
    """Raises a ValueError if it has no sound for a clip that can be used."""

  def make(
    self,
    row: str,
    clips: Sequence[Clip],
    *,
    donors: Sequence[Clip],
    settings: rows_lib.Settings,
    format: Format,
  ) -> tuple[list[np.ndarray], int]:
    """Returns sounds [samples, channels] of a row of its own; their rate."""


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained model.

  Attributes:
    tracker: the model.
    overrides: other values for fields of its sampler.
    name: what it is called in results; "" for its experiment's name.
    best_of: number of takes of a clip, of which the best is judged.
  """

  tracker: rows_lib.Tracker
  overrides: Mapping[str, Any] | None = None
  name: str = ""
  best_of: int = 1

  shuffles_sounds = False

  @property
  def rows(self) -> tuple[str, ...]:
    """Rows of a model; what sees the footage is shown no other frames."""
    worse = (*rows_lib.DEGRADED, rows_lib.NO_VIDEO) if self.see else ()
    return tuple(row for row in rows_lib.MODEL_ROWS if row not in worse)

  @property
  def see(self) -> Callable[[bytes], np.ndarray] | None:
    return self.tracker.see

  @property
  def chosen_by(self) -> Collection[str]:
    return (ranking.NAME,) if self.best_of > 1 else ()

  @property
  def size(self) -> Mapping[str, Any]:
    return self.tracker.size

  @property
  def loader_config(self) -> LoaderConfig:
    return self.tracker.loader_config

  @property
  def seconds(self) -> float:
    return self.loader_config.seconds

  def describe(self) -> dict[str, Any]:
    about = self.tracker.describe()
    sampler = _overridden(about["sampler"], self.overrides or {})
    sampler["best_of"] = self.best_of
    name = self.name or about["name"]
    return {"kind": "model", **about, "name": name, "sampler": sampler}

  def check(self, clip: Clip, format: Format) -> None:
    """Accepts every clip."""

  def make(self, row, clips, *, donors, settings, format):
    settings = dataclasses.replace(
      settings, sampler=self.overrides, best_of=self.best_of
    )
    sounds = rows_lib.make(
      row, self.tracker, clips, settings=settings, donors=donors
    )
    rate = self.tracker.sample_rate
    # As long as the clip, as `v2a generate` delivers them.
    return [s[: round(c.seconds * rate)] for s, c in zip(sounds, clips)], rate


def _overridden(settings, overrides) -> dict[str, Any]:
  """Returns settings with overrides; sections such as guidance are merged."""
  changed = dict(settings)
  for key, value in overrides.items():
    section = isinstance(changed.get(key), dict)
    changed[key] = changed[key] | dict(value) if section else value
  return changed


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Sounds of any system, one file for a clip.

  Attributes:
    name: what reports call the system.
    folder: its sounds.
    files: name in the folder by id of the clip.
  """

  name: str
  folder: folders.Folder
  files: Mapping[str, str]

  rows = (GENERATED, SHUFFLED)
  shuffles_sounds = True
  size: ClassVar[Mapping[str, Any]] = {}
  loader_config = None
  seconds = see = None

  @functools.cached_property
  def chosen_by(self) -> Collection[str]:
    """What the sidecars of takes of `v2a generate` say."""
    sidecars = {
      takes.sidecar_of(self.folder.sound(name)) for name in self.files.values()
    }
    return frozenset().union(*map(takes.chosen_by, sidecars - {None}))

  def describe(self) -> dict[str, Any]:
    return self._about

  @functools.cached_property
  def _about(self) -> dict[str, Any]:
    digests = {
      id_: sha256_of(self.folder.sound(name))
      for id_, name in sorted(self.files.items())
    }
    digest = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    checkpoint = {"path": str(self.folder.path), "step": None, "sha256": digest}
    checkpoint |= {"train_seconds": None, "clips_seen": None}
    return {
      "kind": "outputs",
      "name": self.name,
      "checkpoint": checkpoint,
      "config": {},
      "sampler": {},
    }

  def check(self, clip: Clip, format: Format) -> None:
    if not len(self._read(clip, format)):
      raise ValueError(f"{self._file(clip)}: is empty")

  def make(self, row, clips, *, donors, settings, format):
    if row == SHUFFLED:
      clips = donors
    return [self._read(clip, format) for clip in clips], format.sample_rate

  def _file(self, clip: Clip) -> pathlib.Path:
    return self.folder.sound(self.files[clip.id])

  def _read(self, clip: Clip, format: Format) -> np.ndarray:
    return _read(self._file(clip), format)


# A sound is asked for when it is checked, judged, and given to another clip.
@functools.lru_cache(maxsize=32)
def _read(file: pathlib.Path, format: Format) -> np.ndarray:
  return format.read(file)


@dataclasses.dataclass(frozen=True)
class _TrueSounds:
  """Stands for a model in rows that only need the rate of the true sounds."""

  sample_rate: int


def make_row(
  row: str,
  system: System,
  clips: Sequence[Clip],
  *,
  donors: Sequence[Clip],
  settings: rows_lib.Settings,
  format: Format,
) -> tuple[list[np.ndarray], int]:
  """Returns sounds [samples, channels] of any row, and their rate."""
  if row in system.rows:
    return system.make(
      row, clips, donors=donors, settings=settings, format=format
    )
  rate = format.sample_rate
  stand_in = _TrueSounds(rate)
  return rows_lib.make(row, stand_in, clips, settings=settings), rate
