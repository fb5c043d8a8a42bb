"""Reads files of published weights, in a process of its own with limits.

Readers run nothing that a file says, but a forged one could still ask for all
memory or time. So they run in a process whose memory, time and output are
limited, and only safetensors come back.

  python -m v2a_jax.weights.reading SOURCE TARGET MEMBER PART
"""

import io
import os
import pathlib
import resource
import sys
import zipfile

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from v2a_jax.basics import parent
from v2a_jax.weights import tflite_file, torch_file

_SECONDS = 900  # of processor time
_MEMORY = 4 << 30  # bytes beside a multiple of the file
_MULTIPLE = 8
_REFUSED = 3
ERRORS = (
  torch_file.TorchFileError,
  tflite_file.TFLiteFileError,
  SafetensorError,
)


class UnreadableError(ValueError):
  """A weight file is damaged, or asks for more than it may."""


def has_member(path: pathlib.Path, member: str) -> bool:
  """Returns whether a file is an archive with such a member."""
  if not member or not zipfile.is_zipfile(path):
    return False
  with zipfile.ZipFile(path) as archive:
    return member in archive.namelist()


def to_safetensors(
  source: pathlib.Path,
  target: pathlib.Path,
  *,
  member: str = "",
  part: str = "",
) -> None:
  """Writes the floating-point tensors of a file as safetensors.

  Args:
    source: a checkpoint of PyTorch, a model of TensorFlow Lite, or safetensors.
    target: path to write to.
    member: name of the checkpoint where `source` is an archive that has it.
    part: how the names of the tensors begin that are written.

  Raises:
    UnreadableError: the file cannot be read; one line that says why.
  """
  command = [sys.executable, "-m", __name__, source, target, member, part]
  path = os.pathsep.join(filter(None, sys.path))
  done = parent.run(
    [*map(os.fspath, command)],
    env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
  )
  if done.returncode == _REFUSED:
    raise UnreadableError(done.stderr.strip().splitlines()[-1])
  if done.returncode:
    raise UnreadableError(
      f"{source}: its reader ended with status {done.returncode}: too large,"
      " or damaged"
    )


def read(
  path: pathlib.Path, *, member: str = "", part: str = ""
) -> dict[str, np.ndarray]:
  """Reads floating-point tensors only: the others count training batches.

  Args:
    path: the file.
    member: name of the checkpoint where the file is an archive that has it.
    part: how the names of the tensors begin that are returned.

  Raises:
    UnreadableError: there is no such tensor; or as the readers do.
  """
  if has_member(path, member):
    with zipfile.ZipFile(path) as archive:
      data = archive.read(member)
    if member.endswith(".safetensors"):
      tensors = safetensors.load(data)
    else:
      tensors = torch_file.read(io.BytesIO(data), name=path)
  elif path.suffix == ".safetensors":
    try:
      tensors = safetensors.load_file(path)
    except SafetensorError as error:
      raise UnreadableError(f"{path} is not readable: {error}") from None
  elif path.suffix == ".tflite":
    tensors = tflite_file.read(path)
  else:
    tensors = torch_file.read(path)
  found = {
    name: tensor
    for name, tensor in tensors.items()
    if tensor.dtype.kind == "f" and name.startswith(part)
  }
  if not found:
    raise UnreadableError(f"{path} has no floating-point tensors {part}*")
  return found


def main(source: str, target: str, member: str, part: str) -> int:
  """Reads, within limits, and writes; returns the exit status."""
  path = pathlib.Path(source)
  size = _MULTIPLE * path.stat().st_size
  for what, limit in (
    (resource.RLIMIT_AS, _MEMORY + size),
    (resource.RLIMIT_CPU, _SECONDS),
    (resource.RLIMIT_FSIZE, (1 << 20) + size),
    (resource.RLIMIT_CORE, 0),
  ):
    resource.setrlimit(what, (limit, limit))
  try:
    safetensors.save_file(read(path, member=member, part=part), target)
  except (*ERRORS, UnreadableError, MemoryError) as error:
    print(error or f"{source}: needs more memory", file=sys.stderr)
    return _REFUSED
  return 0


if __name__ == "__main__":
  raise SystemExit(main(*sys.argv[1:]))
