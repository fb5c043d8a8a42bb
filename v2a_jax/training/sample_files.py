"""Files that a run shows beside its numbers: `<workdir>/samples/<step>/`."""

from collections.abc import Iterator
import contextlib
import pathlib
import tempfile

from v2a_jax.basics import files
from v2a_jax.basics.paths import PathLike, as_path, is_remote

FOLDER = "samples"
SOUND, VIDEO = ".wav", ".mp4"


def samples_folder(workdir: PathLike, step: int) -> PathLike:
  """Returns the folder of the samples of a step."""
  return as_path(workdir) / FOLDER / str(step)


def sampled_steps(workdir: PathLike) -> list[int]:
  """Returns the steps that have samples."""
  folder = as_path(workdir) / FOLDER
  names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
  return sorted(int(name) for name in names if name.isdecimal())


@contextlib.contextmanager
def local_files(folder: PathLike, suffix: str) -> Iterator[list[pathlib.Path]]:
  """Yields the files of a folder with a suffix, copied here from a store.

  Raises:
    OSError: one is a pipe, socket or device, or cannot be copied.
  """
  folder = as_path(folder)
  there = sorted(folder.iterdir()) if folder.is_dir() else []
  there = [file for file in there if file.name.endswith(suffix)]
  if not is_remote(folder):
    for file in there:
      files.check_regular(file)
    yield there
    return
  with tempfile.TemporaryDirectory() as copies:
    local = [pathlib.Path(copies) / file.name for file in there]
    for file, copy in zip(there, local):
      file.download(copy)
    yield local
