"""The work of an evaluation: clips are read, given sound and scored, in parts.

The clips stand in a circle of random order, and a part is a few that follow
each other, a batch of the model. In the row `shuffled_video` each gets the video
of the clip before it, so every video is used once, and no more than a part and
one clip are in memory. A part depends on nothing but the settings: whoever makes
it, and whenever, it is the same.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from v2a_jax.basics.text import clock
from v2a_jax.evaluation import parts, results, scorer, systems
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation.clips import Clip, Failure, Reader
from v2a_jax.evaluation.formats import Entry, Format
from v2a_jax.evaluation.metrics import onsets
from v2a_jax.evaluation.metrics.base import Metric
from v2a_jax.evaluation.schema import SHUFFLED
from v2a_jax.hearing.embeddings import Embedding

_LOG_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """All that decides what parts hold.

  Attributes:
    system: what is evaluated.
    entries: the chosen clips; a clip's position is its index here.
    reader: decodes them.
    rows: rows to make and score.
    metrics: metrics to compute.
    networks: their networks, by `Embedding.id`.
    settings: how sounds are generated.
    order: positions in a random order, int [clips].
    gallery: clips at the first so many positions get media.
    folder: where media, and sounds that are kept, are written to.
    keep_sounds: whether the system's sounds are kept as FLAC.
  """

  system: systems.System
  entries: Sequence[Entry]
  reader: Reader
  rows: Sequence[str]
  metrics: Sequence[Metric]
  networks: Mapping[str, Embedding]
  settings: rows_lib.Settings
  order: np.ndarray
  gallery: int
  folder: pathlib.Path
  keep_sounds: bool

  @property
  def num_parts(self) -> int:
    """Number of parts."""
    return -(-len(self.order) // self.settings.batch_size)

  @property
  def format(self) -> Format:
    """Format that sounds are judged in."""
    return self.reader.format

  def positions(self, part: int) -> np.ndarray:
    """Returns the positions of the clips of a part."""
    size = self.settings.batch_size
    return self.order[part * size : (part + 1) * size]

  def read(self, position: int) -> Clip | Failure:
    """Reads a clip that the system has a sound for, or says why not."""
    clip = self.reader(self.entries[position].index, position)
    if isinstance(clip, Clip):
      try:
        self.system.check(clip, self.format)
      except (ValueError, OSError) as error:
        return Failure(clip.id, " ".join(str(error).split()))
    return clip


class Worker:
  """Makes parts one after the other."""

  def __init__(self, work: Work, log: Callable[[str], None]):
    """Takes the work; `log` is called with lines."""
    self._work, self._log = work, log
    self._last: tuple[int, Clip] | None = None  # of the part before

  def __call__(self, number: int) -> parts.Part:
    """Makes a part."""
    work = self._work
    read = [work.read(int(p)) for p in work.positions(number)]
    clips = [clip for clip in read if isinstance(clip, Clip)]
    failures = [failure for failure in read if isinstance(failure, Failure)]
    scored = []
    if clips:
      first = self._before(number)
      donors = [first or clips[-1], *clips[:-1]]
      self._last = number, clips[-1]
      clips, sounds, not_finite = self._sounds(clips, donors)
      failures += not_finite
      scored = self._score(clips, sounds)
    for failure in failures:
      self._log(f"not scored: {failure.id}: {failure.reason}")
    return parts.Part(scored, failures)

  def _before(self, number: int) -> Clip | None:
    """Returns the last clip before a part that can be read, in the circle."""
    if SHUFFLED not in self._work.rows:
      return None
    if self._last and self._last[0] == number - 1:
      return self._last[1]
    size, order = self._work.settings.batch_size, self._work.order
    begin = number * size
    for back in range(1, len(order) - len(self._work.positions(number)) + 1):
      clip = self._work.read(int(order[begin - back]))
      if isinstance(clip, Clip):
        return clip
    return None

  def _sounds(self, clips, donors):
    """Makes the sounds of all rows; clips whose are not finite are failures."""
    work, sounds, bad = self._work, {}, {}
    for row in work.rows:
      made, rate = systems.make_row(
        row,
        work.system,
        clips,
        donors=donors,
        settings=work.settings,
        format=work.format,
      )
      for i, sound in enumerate(made):
        if not np.isfinite(sound).all():
          bad.setdefault(i, row)
        elif work.keep_sounds and row in work.system.rows:
          folder = work.folder / "sounds" / row
          id_ = clips[i].id
          results.write_sound(folder, id_, sound, sample_rate=rate)
      sounds[row] = [work.format.convert(sound, rate) for sound in made]
    failures = [
      Failure(clips[i].id, f"the sound of the row {row} is not finite")
      for i, row in sorted(bad.items())
    ]
    keep = lambda items: [x for i, x in enumerate(items) if i not in bad]
    return keep(clips), {row: keep(w) for row, w in sounds.items()}, failures

  def _score(self, clips, sounds) -> list[parts.Scored]:
    if not clips:
      return []
    work = self._work
    judged = scorer.judge(
      clips,
      sounds,
      work.metrics,
      sample_rate=work.format.sample_rate,
      networks=work.networks,
    )
    return [
      parts.Scored(
        clip=clip.light(),
        entry=self._entry(
          clip, of.truth, {row: made[i] for row, made in sounds.items()}
        ),
        sha256=work.entries[clip.position].sha256,
        states=of.states,
        features=of.features,
      )
      for i, (clip, of) in enumerate(zip(clips, judged))
    ]

  def _entry(self, clip: Clip, truth, sounds) -> dict[str, Any]:
    """Describes a clip for results.json; writes its media."""
    work, shown = self._work, {"video": "", "audio": {}}
    if clip.position < work.gallery:
      shown = results.write_media(
        work.folder, clip, sounds, sample_rate=work.format.sample_rate
      )
    events = onsets.reference_onsets(truth)
    moving = None if clip.motion is None else len(clip.motion) / clip.seconds
    return {
      "id": clip.id,
      "caption": clip.caption,
      "transcript": clip.transcript,
      "label": clip.label,
      "duration": clip.seconds,
      "motion_rate": moving and round(moving, 3),
      **shown,
      "events": [round(float(t), 4) for t in events],
    }


def make_parts(
  work: Work,
  folder: pathlib.Path,
  numbers: Sequence[int],
  log: Callable[[str], None],
) -> None:
  """Makes the parts that are not there yet, with progress about every 5 s."""
  missing = [n for n in numbers if not _is_there(parts.path_of(folder, n), log)]
  done = sum(len(work.positions(n)) for n in {*numbers} - {*missing})
  total = sum(len(work.positions(n)) for n in missing)
  if done:
    log(f"{done} clips were scored before; {total} to go")
  worker, count = Worker(work, log), 0
  start = logged = time.monotonic()
  for number in missing:
    parts.write(parts.path_of(folder, number), worker(number))
    count += len(work.positions(number))
    now = time.monotonic()
    if now - logged > _LOG_SECONDS and count < total:
      left = (now - start) / count * (total - count)
      log(f"  {count}/{total} clips, {clock(left)} to go")
      logged = now


def _is_there(path: pathlib.Path, log) -> bool:
  try:
    parts.read(path)
    return True
  except FileNotFoundError:
    return False
  except (OSError, TypeError, *parts.DAMAGE) as error:
    log(f"{path} cannot be read ({error}); its clips are scored again")
    return False
