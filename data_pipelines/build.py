"""Builds data sets: of a folder of clips with captions, or of scenes.

files ─► clips.extract (in the media sandbox) ─┐
                                               ├─► assemble ─► DatasetWriter
seeds ─► data_pipelines.scenes (in processes) ─┘
"""

from collections.abc import Mapping
from concurrent import futures
import dataclasses
import functools
import multiprocessing
import os
import pathlib
from typing import Any

from data_pipelines import captions as captions_lib
from data_pipelines import clips
from data_pipelines.assemble import Log, Made, OutputOptions, Plan, assemble
from data_pipelines.clips import ClipOptions
from data_pipelines.schema import DataError
from data_pipelines.writer import BuildError, Outcome

_MEDIA_SUFFIXES = frozenset(
  ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .3gp .flv .wmv "
  ".ogv .gif .wav .flac .mp3 .ogg .oga .opus .m4a .aac .aif .aiff .wma "
  ".mxf .ivf .caf .amr .au .w64".split()
)


def build_folder(
  directory: str | os.PathLike,
  *,
  out: str | os.PathLike,
  captions_csv: str | os.PathLike | None = None,
  columns: Mapping[str, str] | None = None,
  limit: int | None = None,
  options: ClipOptions = ClipOptions(),  # noqa: B008
  output: OutputOptions = OutputOptions(),  # noqa: B008
  log: Log = print,
) -> dict[str, Any]:
  """Turns a folder of clips into a data set.

  Starting the same build again continues it, or says that it is done.

  Args:
    directory: searched with all its subfolders for media files.
    out: folder of the data set; it appears when the build is complete.
    captions_csv: table of captions; see `captions.read_captions`.
    columns: field -> column of the table, where its name misleads.
    limit: only the first files, to try things out.
    options: how clips are cut, stored and split.
    output: how the data set is written.
    log: takes lines for people.

  Returns:
    The manifest.

  Raises:
    DataError: folder, table or tokenizer cannot be read.
    BuildError: nothing was kept, `out` is taken, or the disk is full.
  """
  directory = pathlib.Path(directory)
  files, others = find_media(directory)
  files = files[:limit]
  log(f"{len(files)} media files in {directory} ({others} others ignored)")
  table = captions_lib.Captions({}, {}, [], [])
  if captions_csv is not None:
    table = captions_lib.read_captions(captions_csv, files, columns=columns)
    log(table.describe())
  plan = Plan(
    keys=files,
    unit="files",
    settings={"kind": "folder", **dataclasses.asdict(options)},
    inputs=[_stats(directory, files), _table_json(table)],
    facts={
      "columns": table.columns,
      "files_ignored": others,
      "rows_unmatched": len(table.unmatched),
    },
    unmatched=table.unmatched,
    description=f"Clips of {directory.resolve().name} with captions.",
  )
  extract = functools.partial(
    clips.extract,
    directory=directory,
    names=clips.clip_names(files),
    rows=table.rows,
    options=options,
  )
  return assemble(
    plan,
    out=out,
    make=extract,
    # Threads: each waits for a media process that may be killed.
    pool=futures.ThreadPoolExecutor,
    output=output,
    log=log,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneOptions:
  """How scenes are rendered.

  Attributes:
    seconds: length of a scene.
    fps: frames a second.
    size: pixels, square.
    sample_rate: Hz.
    held_out: share of the val split, and of the test split.
  """

  seconds: float = 4.0
  fps: float = 25
  size: int = 64
  sample_rate: int = 16_000
  held_out: float = 0.05


def build_scenes(
  num: int,
  seed: int = 0,
  *,
  out: str | os.PathLike,
  options: SceneOptions = SceneOptions(),  # noqa: B008
  output: OutputOptions = OutputOptions(),  # noqa: B008
  log: Log = print,
) -> dict[str, Any]:
  """Renders procedural scenes into a data set.

  Args:
    num: scenes, all splits together.
    seed: of the set; scene i is a function of the seed and i.
    out: folder of the data set; it appears when the build is complete.
    options: how they are rendered.
    output: how the data set is written.
    log: takes lines for people.

  Returns:
    The manifest.

  Raises:
    DataError: the tokenizer cannot be read.
    BuildError: `num` is below 1, `out` is taken, or the disk is full.
  """
  if num < 1:
    raise BuildError(f"num is {num}; render at least one scene")
  log(f"{num} scenes of {options.seconds:g} s, seed {seed}")
  settings = {"kind": "scenes", "num": num, "seed": seed}
  plan = Plan(
    keys=[f"{i:07d}" for i in range(num)],
    unit="scenes",
    settings=settings | dataclasses.asdict(options),
    description=f"{num} procedural scenes with sound, seed {seed}.",
  )
  return assemble(
    plan,
    out=out,
    make=functools.partial(_render, num=num, seed=seed, options=options),
    pool=functools.partial(
      futures.ProcessPoolExecutor,
      mp_context=multiprocessing.get_context("spawn"),
    ),
    output=output,
    log=log,
  )


def find_media(directory: pathlib.Path) -> tuple[list[str], int]:
  """Media files below a folder, sorted, and how many others there are.

  Hidden files and folders count as neither.

  Raises:
    DataError: no such folder, or no media file in it.
  """
  if not directory.is_dir():
    raise DataError(f"no folder {directory}")
  files, others = [], 0
  for root, folders, names in os.walk(directory):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
      if name.startswith("."):
        continue
      path = pathlib.Path(root, name)
      if path.suffix.lower() in _MEDIA_SUFFIXES:
        files.append(path.relative_to(directory).as_posix())
      else:
        others += 1
  if not files:
    raise DataError(
      f"no media file in {directory} ({others} files with other endings)"
    )
  return sorted(files), others


def _stats(directory: pathlib.Path, files: list[str]) -> list:
  """Size and time of each file: whether it changed since the last build."""
  stats = []
  for file in files:
    try:
      stat = (directory / file).stat()
      stats.append([stat.st_size, stat.st_mtime_ns])
    except OSError:  # a broken link; it is dropped with its name later
      stats.append(None)
  return stats


def _table_json(table: captions_lib.Captions) -> dict[str, list]:
  return {
    file: [dataclasses.asdict(row) for row in rows]
    for file, rows in table.rows.items()
  }


def _render(key: str, *, num: int, seed: int, options: SceneOptions) -> Made:
  # pylint: disable=g-import-not-at-top
  from data_pipelines import scenes

  index = int(key)
  (record,) = scenes.iter_records(
    num,
    seed,
    start=index,
    stop=index + 1,
    **dataclasses.asdict(options),
  )
  return Outcome(key=key, clips=[clips.clip_facts(record)]), [record]
