"""The work of an evaluation: clips are read, given sound and scored, in parts.

The clips stand in a circle of random order, and a part is a few that follow
each other, a batch of the model. In the row `shuffled_video` each gets the video
of the clip before it, so every video is used once, and no more than a part and
one clip are in memory. A part depends on nothing but the settings: whoever makes
it, and whenever, it is the same.

What a report lets hear is chosen by the scores of all clips, so the sounds of
the system are kept as FLAC until all are scored.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
import time
from typing import Any

import numpy as np

from v2a_jax.basics.text import clock
from v2a_jax.evaluation import parts, results, scorer, selection, systems
from v2a_jax.evaluation import rows as rows_lib
from v2a_jax.evaluation.clips import Clip, Failure, Reader
from v2a_jax.evaluation.embedded import Kept
from v2a_jax.evaluation.formats import Entry, Format
from v2a_jax.evaluation.metrics import onsets
from v2a_jax.evaluation.metrics.base import Metric
from v2a_jax.evaluation.schema import GENERATED
from v2a_jax.hearing import unwanted
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
    kept: embeddings that need not be computed again.
    settings: how sounds are generated.
    order: positions in a random order, int [clips].
    gallery: number of clips that get media.
    folder: where media, and sounds that are kept, are written to.
    working: folder of the parts, removed in the end.
    keep_sounds: whether the system's sounds are kept as FLAC in the end.
  """

  system: systems.System
  entries: Sequence[Entry]
  reader: Reader
  rows: Sequence[str]
  metrics: Sequence[Metric]
  networks: Mapping[str, Embedding]
  kept: Kept
  settings: rows_lib.Settings
  order: np.ndarray
  gallery: int
  folder: pathlib.Path
  working: pathlib.Path
  keep_sounds: bool

  @property
  def sounds(self) -> pathlib.Path:
    """Folder of the system's sounds, a folder for each row."""
    return (self.folder if self.keep_sounds else self.working) / "sounds"

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
    scored, seconds = [], None
    if clips:
      first = self._before(number)
      donors = [first or clips[-1], *clips[:-1]]
      self._last = number, clips[-1]
      clips, sounds, not_finite, seconds = self._sounds(clips, donors)
      failures += not_finite
      scored = self._score(clips, sounds)
    for failure in failures:
      self._log(f"not scored: {failure.id}: {failure.reason}")
    return parts.Part(scored, failures, seconds)

  def _before(self, number: int) -> Clip | None:
    """Returns the last clip before a part that can be read, in the circle."""
    if not {*rows_lib.SWAPPED} & {*self._work.rows}:
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
    """Makes the sounds of all rows; clips whose are not finite are failures.

    Also returns the seconds that a sound of the row `generated` took, from the
    encoding of the picture on; None without that row.
    """
    work, sounds, bad, seconds = self._work, {}, {}, None
    for row in work.rows:
      start = time.monotonic()
      made, rate = systems.make_row(
        row,
        work.system,
        clips,
        donors=donors,
        settings=work.settings,
        format=work.format,
      )
      if row == GENERATED:
        seconds = (time.monotonic() - start) / work.settings.batch_size
        seconds += float(np.median([clip.see_seconds for clip in clips]))
      for i, sound in enumerate(made):
        if not np.isfinite(sound).all():
          bad.setdefault(i, row)
        elif row in work.system.rows and (work.keep_sounds or work.gallery):
          path = results.sound_path(work.sounds / row, clips[i].id)
          results.write_sound(path, sound, sample_rate=rate)
      sounds[row] = [work.format.convert(sound, rate) for sound in made]
    failures = [
      Failure(clips[i].id, f"the sound of the row {row} is not finite")
      for i, row in sorted(bad.items())
    ]
    keep = lambda items: [x for i, x in enumerate(items) if i not in bad]
    sounds = {row: keep(made) for row, made in sounds.items()}
    return keep(clips), sounds, failures, seconds

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
      kept=work.kept,
    )
    return [
      parts.Scored(
        clip=clip.light(),
        entry=_entry(clip, of.truth),
        sha256=work.entries[clip.position].sha256,
        states=of.states,
        features=of.features,
        sounds=of.sounds,
      )
      for clip, of in zip(clips, judged)
    ]


def _entry(clip: Clip, truth) -> dict[str, Any]:
  """Describes a clip for results.json."""
  events = onsets.reference_onsets(truth)
  moving = None if clip.motion is None else len(clip.motion) / clip.seconds
  seen = None if clip.events is None else len(clip.events)
  return {
    "id": clip.id,
    "caption": clip.caption,
    "transcript": clip.transcript,
    "label": clip.label,
    "duration": clip.seconds,
    "motion_rate": moving and round(moving, 3),
    "on_screen": seen,
    "off_screen": None if seen is None else len(clip.off_screen),
    "heard": unwanted.heard(truth.features),
    "video": "",
    "audio": {},
    "events": [round(float(t), 4) for t in events],
  }


def write_gallery(
  work: Work, content: Mapping[str, Any], clips: Sequence[Clip]
) -> None:
  """Writes the media of chosen clips, and their paths into the results.

  Args:
    work: what was done.
    content: content of results.json.
    clips: the scored clips, without media, in the same order.
  """
  chosen = {*selection.choose(content, work.gallery)} if work.gallery else ()
  # What a model would be given, and what metrics see, is not needed.
  reader = Reader(work.reader.records, work.format)
  rate = work.format.sample_rate
  for entry, light in zip(content["clips"], clips, strict=True):
    if entry["id"] not in chosen:
      continue
    clip = reader(work.entries[light.position].index, light.position)
    if isinstance(clip, Failure):
      continue
    sounds = {row: _sound(work, row, clip) for row in work.rows}
    entry |= results.write_media(work.folder, clip, sounds, sample_rate=rate)


def _sound(work: Work, row: str, clip: Clip) -> np.ndarray:
  """Reads a sound of the system; makes any other one again."""
  if row in work.system.rows:
    return work.format.read(results.sound_path(work.sounds / row, clip.id))
  (sound,), rate = systems.make_row(
    row,
    work.system,
    [clip],
    donors=(),
    settings=work.settings,
    format=work.format,
  )
  return work.format.convert(sound, rate)


def make_parts(
  work: Work,
  numbers: Sequence[int],
  log: Callable[[str], None],
) -> None:
  """Makes the parts that are not there yet, with progress about every 5 s."""
  folder = work.working
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
