"""Builds data sets from a folder of clips with captions, or from scenes.

files ─► clips.extract (in the media sandbox) ─┐
                                               ├─► assemble ─► DatasetWriter
seeds ─► data_pipelines.scenes (in processes) ─┘
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import functools
import multiprocessing
import os
from typing import Any

from data_pipelines import captions as captions_lib
from data_pipelines import clips
from data_pipelines.archives import read_archive
from data_pipelines.assemble import Item, Log, OutputOptions, Plan, assemble
from data_pipelines.beam import BeamOptions
from data_pipelines.clips import ClipOptions
from data_pipelines.manifest import fingerprint
from data_pipelines.media_files import find_media
from data_pipelines.places import restore, work_place
from data_pipelines.readings import MEDIA, open_readings
from data_pipelines.writer import Outcome
from v2a_jax.basics.parent import end_with_parent
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.settings import SettingError, check, choose


def build_folder(
  directory: str | os.PathLike,
  *,
  out: str | os.PathLike,
  captions_csv: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
  columns: Mapping[str, str] | None = None,
  labels: str | os.PathLike | None = None,
  by: str = "",
  limit: int | None = None,
  options: ClipOptions = ClipOptions(),  # noqa: B008
  output: OutputOptions = OutputOptions(),  # noqa: B008
  beam: BeamOptions = BeamOptions(),  # noqa: B008
  log: Log = print,
) -> dict[str, Any]:
  """Turns a folder of clips into a data set and returns its manifest.

  Starting the same build again continues it, or says that it is done. After
  files or captions have changed it brings the data set up to date and decodes
  only what is new.

  Args:
    directory: folder that is searched, subfolders included, for media files
      and for WebDataset's archives; on an object store too.
    out: folder of the data set; it appears when the build is complete.
    captions_csv: table of captions, or several; see `captions.read_captions`.
      What they say goes before what archives say of their clips.
    columns: column of the table by field, where detection would be wrong.
    labels: names of AudioSet's classes; None to look for them beside its table,
      see `audioset.read_classes`.
    by: where captions and transcripts come from, such as `alt text`, if a table
      has no column of that; "" for the name of each table.
    limit: number of files, the first by name; None for all.
    options: how clips are cut, stored and split.
    output: how the data set is written.
    beam: where it runs, if not on this machine alone.
    log: called with each line of the progress report.

  Raises:
    DataError: folder, archive, table or tokenizer cannot be read.
    StoreError: an object store does not answer; the same build goes on later.
    BuildError: nothing was kept, `out` is taken, or the disk is full.
    SettingError: `limit` is below 1.
  """
  if limit is not None and limit < 1:
    raise SettingError(f"limit={limit} is not in [1, inf)")
  directory = as_path(directory)
  found = find_media(directory, with_archives=True)
  archives = [read_archive(directory, name) for name in found.archives]
  members = {k: v for archive in archives for k, v in archive.members.items()}
  files = sorted([*found.files, *members])[:limit]
  inside = f", with {len(members)} clips in archives" * bool(archives)
  used = f", of which {limit} are used" * bool(limit)
  log(f"{found} in {directory}{inside}{used}")
  table = _captions(captions_csv, files, archives, columns, labels, by)
  if table.columns:
    log(table.describe())
  notes = [note for archive in archives for note in archive.notes]
  for note in [*found.notes, *notes, *table.notes]:
    log(note)
  restore(out)
  rows = {f: list(map(dataclasses.asdict, r)) for f, r in table.rows.items()}
  plan = Plan(
    keys=files,
    unit="files",
    settings={"kind": "folder", **dataclasses.asdict(options)},
    inputs=[_stats(directory, files, members, found.stored), rows],
    facts={
      "columns": table.columns,
      "files_ignored": found.others.total(),
      "endings_ignored": found.others,
      MEDIA: options.of_media,
      "limit": limit,
      "rows_unmatched": len(table.unmatched),
    },
    origin=fingerprint(str(directory.resolve())),
    unmatched=table.unmatched,
    description=f"Clips of {directory.resolve().name} with captions.",
  )
  extract = functools.partial(
    clips.extract,
    directory=directory,
    names=clips.clip_names(files),
    rows=table.rows,
    members={file: members[file] for file in files if file in members},
    options=options,
    earlier=open_readings(out, work_place(out), media=options.of_media),
  )
  return assemble(
    plan,
    out=out,
    make=extract,
    # Threads suffice: each waits for a media process that may be killed.
    pool=futures.ThreadPoolExecutor,
    output=output,
    log=log,
    beam=beam,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneOptions:
  """Options for rendering scenes.

  Attributes:
    seconds: length of a scene in seconds, at least 2.
    fps: frames a second, at least 1.
    size: height and width of the frames in pixels; an even number.
    sample_rate: sample rate in Hz, 4000 to 192000.
    held_out: fraction of the scenes in the val split, and in the test split.
    ordered: share of the scenes in which two things sound out of sight, whose
      order only the captions tell.
    action: what happens in all scenes, such as talk; empty to draw it for each.
  """

  seconds: float = 4.0
  fps: float = 25.0
  size: int = 64
  sample_rate: int = 16_000
  held_out: float = 0.05
  ordered: float = 0.0
  action: str = ""

  def __post_init__(self):
    check(self, seconds="[2, inf)", fps="[1, inf)", size="[2, inf)")
    check(self, sample_rate="[4000, 192000]", held_out="[0, 0.5]")
    check(self, ordered="[0, 1]")
    if self.size % 2:
      raise SettingError(f"size={self.size!r} is odd; video needs an even size")
    if self.action:
      from data_pipelines.scenes import ACTIONS

      choose(self, action=ACTIONS)


def build_scenes(
  num: int,
  seed: int = 0,
  *,
  out: str | os.PathLike,
  options: SceneOptions = SceneOptions(),  # noqa: B008
  output: OutputOptions = OutputOptions(),  # noqa: B008
  log: Log = print,
) -> dict[str, Any]:
  """Renders `num` procedural scenes of all splits; see `build_folder`.

  Raises:
    SettingError: `num` is below 1 or `seed` below 0.
  """
  if num < 1:
    raise SettingError(f"num={num} is not in [1, inf)")
  if seed < 0:
    raise SettingError(f"seed={seed} is not in [0, inf)")
  log(f"{num} scenes of {options.seconds:g} s, seed {seed}")
  settings = {"kind": "scenes", "num": num, "seed": seed}
  settings |= dataclasses.asdict(options)
  if not options.action:
    del settings["action"]  # As in sets that were built before there was one.
  plan = Plan(
    keys=[f"{i:07d}" for i in range(num)],
    unit="scenes",
    settings=settings,
    description=f"{num} procedural scenes with sound, seed {seed}.",
  )
  return assemble(
    plan,
    out=out,
    make=functools.partial(_render, num=num, seed=seed, options=options),
    pool=functools.partial(
      futures.ProcessPoolExecutor,
      mp_context=multiprocessing.get_context("spawn"),
      initializer=end_with_parent,
    ),
    output=output,
    log=log,
  )


def _captions(
  tables, files, archives, columns, labels, by
) -> captions_lib.Captions:
  """Joins what tables and archives say of the files."""
  if isinstance(tables, str | os.PathLike):
    tables = [tables]
  found = {
    str(path): captions_lib.read_captions(
      path, files, columns=columns, labels=labels, by=by
    )
    for path in tables or ()
  }
  used = set(files)
  for archive in archives:
    said = [row for row in archive.rows if row["file"] in used]
    if said:
      found[archive.name] = captions_lib.match_samples(
        archive.name, said, columns=columns
      )
  return captions_lib.combine(found)


def _stats(directory, files: list[str], members, stored) -> list:
  """Returns what tells whether each file has changed; None if unreadable."""

  def stat(file: str):
    if file in stored:
      return stored[file]
    try:
      found = (directory / file).stat()
    except OSError:  # a broken link: `clips.extract` will drop it by name
      return None
    return found.st_size, found.st_mtime_ns

  stats = []
  for file in files:
    if member := members.get(file):
      found = stat(member.archive)
      stats.append(found and [member.size, found[1], member.offset])
    else:
      stats.append(stat(file))
  return stats


def _render(key: str, *, num: int, seed: int, options: SceneOptions) -> Item:
  from data_pipelines import scenes

  index = int(key)
  (record,) = scenes.iter_records(
    num, seed, start=index, stop=index + 1, **dataclasses.asdict(options)
  )
  return Outcome(key=key, clips=[clips.clip_facts(record)]), [record]
