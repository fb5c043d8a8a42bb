"""Digests of a checkpoint's files, which show damage before it is restored.

A checkpoint's folder is named by its step and holds a folder for each of its
items (`weights`, `state`, `data`, `meta`); the sha256 of each of their files stands in
`sha256.json`, which is written last.

Each process hashes the files that it wrote itself. Until process 0 gathers
them, its digests stand in `<item>/sha256.process_<index>.json`.

Folders may be on object stores: gs:// or s3://.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import concurrent.futures
import json

from etils import epath

from v2a_jax.basics.files import check_regular, read_json, sha256_of

DIGESTS = "sha256.json"
_PART = "sha256.process_"
_THREADS = 8


def is_remote(path: epath.PathLike) -> bool:
  """Says whether a path is on an object store."""
  return "://" in str(path)


def list_steps(root: epath.PathLike) -> list[int]:
  """Returns the completely saved steps, newest first.

  A local folder gets its final name when all is written. An object store has
  no such names: there a checkpoint is complete when it has its digests.
  """
  root = epath.Path(root)
  steps = sorted(
    (int(n) for n in list_names(root) if n.isdigit()), reverse=True
  )
  if not is_remote(root):
    return steps
  return [step for step in steps if (root / str(step) / DIGESTS).exists()]


def list_names(folder: epath.Path) -> list[str]:
  """Returns the names in a folder; none if there is no such folder."""
  return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def list_files(folder: epath.Path) -> Iterator[str]:
  """Yields the paths of all files in a folder, relative to it."""
  for path in sorted(folder.iterdir()):
    if path.is_dir():
      yield from (f"{path.name}/{name}" for name in list_files(path))
    else:
      yield path.name


def check_files(folder: epath.Path) -> None:
  """Refuses pipes, sockets and devices, which Orbax would wait for.

  Args:
    folder: checkpoint, or folder of checkpoints. Object stores have none.

  Raises:
    OSError: names the first.
  """
  if not is_remote(folder):
    for name in list_files(folder):
      check_regular(folder / name)


def digest_files(folder: epath.Path, names: Iterable[str]) -> dict[str, str]:
  """Returns {name: sha256} of files in a folder.

  Raises:
    OSError: one of them is missing or cannot be read.
  """
  names = list(names)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    paths = [folder / name for name in names]
    return dict(zip(names, pool.map(sha256_of, paths)))


def write_part(item: epath.Path, index: int) -> None:
  """Writes the digests of what process `index` wrote of one item."""
  own = {f"ocdbt.process_{index}", f"process_{index}"}
  names = [name for name in list_files(item) if own & set(name.split("/"))]
  write(item / f"{_PART}{index}.json", digest_files(item, names))


def write_digests(folder: epath.Path, *, processes: int = 1) -> None:
  """Gathers what all processes hashed, hashes the rest, writes `sha256.json`.

  The folder is not yet a checkpoint, so nobody reads a half-written file.
  """
  names = [name for name in list_files(folder) if "/" in name]
  parts = {name for name in names if name.split("/")[1].startswith(_PART)}
  files = {}
  for part in sorted(parts):
    item = part.split("/")[0]
    listed = read(folder / part)
    files |= {f"{item}/{name}": digest for name, digest in listed.items()}
  files |= digest_files(folder, set(names) - parts - files.keys())
  write(folder / DIGESTS, files, processes=processes)
  for part in parts:
    (folder / part).unlink()


def write(
  path: epath.Path, files: Mapping[str, str], *, processes: int = 1
) -> None:
  """Writes {name: sha256}, and how many processes saved the checkpoint."""
  value = {"files": dict(sorted(files.items())), "processes": processes}
  path.write_text(json.dumps(value, indent=1) + "\n")


def read(path: epath.Path) -> dict[str, str]:
  """Reads {name: sha256}.

  Raises:
    OSError, ValueError: the file is missing or damaged.
  """
  try:
    files = read_json(path)["files"]
    return {str(name): str(digest) for name, digest in files.items()}
  except FileNotFoundError:
    raise FileNotFoundError(f"{path.name} is missing") from None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{path.name} is damaged: {error}") from None


def read_digests(folder: epath.Path) -> dict[str, str]:
  """Reads {name: sha256} of a checkpoint's files; see `read`.

  Raises:
    OSError, ValueError: the file is missing or damaged, or names no file.
  """
  files = read(folder / DIGESTS)
  if not files:
    raise ValueError(f"{DIGESTS} is damaged: it names no file")
  return files


def count_processes(folder: epath.Path) -> int:
  """Returns how many processes saved a sound checkpoint."""
  return read_json(folder / DIGESTS).get("processes", 1)


def identity(folder: epath.Path) -> str:
  """Returns one sha256 that names all of a checkpoint: that of its digests."""
  return sha256_of(folder / DIGESTS)


def find_damage(
  folder: epath.Path,
  *,
  items: Collection[str] | None = None,
  index: int = 0,
  count: int = 1,
) -> str | None:
  """Returns what is wrong with a checkpoint's files, or None.

  Args:
    folder: folder of the checkpoint.
    items: items to look at; None for all.
    index: which share of the files to look at, from 0.
    count: number of shares; together they hold every file.
  """
  folder = epath.Path(folder)
  try:
    expected = read_digests(folder)
    check_files(folder)
    names = sorted(
      name for name in expected if not items or name.split("/")[0] in items
    )[index::count]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      faults = pool.map(
        lambda name: _fault(folder, name, expected[name]), names
      )
      return next(filter(None, faults), None)
  except (OSError, ValueError) as error:
    return str(error)[:200]


def _fault(folder: epath.Path, name: str, digest: str) -> str | None:
  try:
    found = sha256_of(folder / name)
  except FileNotFoundError:
    return f"{name} is missing"
  except OSError as error:
    return f"{name} cannot be read ({error})"
  return None if found == digest else f"{name} does not have its sha256"
