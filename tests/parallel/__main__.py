"""Checks every arm in every layout of 4 and 8 devices and prints a table.

python -m tests.parallel [ARM...]    such as diffusion ar; by default all

Of each compiled step: collectives over the whole batch, the bytes that a device
sends over those of arithmetic (where only weights and gradients are sent),
tensors of which the compiler says that it has to gather them whole, and the
largest relative difference of 20 losses from one device's. Ends with status 1
where one is above its limit. The tests of this folder check a part of it.
"""

import contextlib
import os
import sys
import tempfile

# Eight devices may wait long for each other on a machine with few cores.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_force_host_platform_device_count=8"
  " --xla_cpu_collective_call_terminate_timeout_seconds=600",
)

import numpy as np

from tests.parallel import modes

# Not data 2, fsdp 2 with ZeRO-1: XLA for CPUs (jax 0.10.2) runs sums over rows
# and over columns of devices in any order, so that they wait for each other.
LAYOUTS = (
  dict(data=4),
  dict(data=4, zero1=True),
  dict(data=1, fsdp=4),
  dict(data=2, fsdp=2),
  dict(data=2, tensor=2),
  dict(data=2, context=2),
  dict(data=8),
  dict(data=8, zero1=True),
  dict(data=2, fsdp=4),
  dict(data=2, fsdp=4, zero1=True),
  dict(data=2, fsdp=2, tensor=2),
  dict(data=2, context=2, tensor=2),
)
MOST_SENT = 1.05
HEADER = """\
| arm | layout | of the whole batch | sent / arithmetic | gathered | loss off by |
|---|---|---:|---:|---:|---:|"""


def main(arms: list[str]) -> int:
  """Returns the number of layouts in which an arm is above a limit."""
  failed = 0
  print(HEADER, flush=True)
  for arm in arms or modes.ARMS:
    alone = modes.Step.of(arm, data=1).losses()
    for layout in LAYOUTS:
      failed += not _check(arm, layout, alone)
  return failed


def _check(arm: str, layout: dict, alone: np.ndarray) -> bool:
  """Prints a line of the table, and returns whether all is within limits."""
  with _stderr() as said:
    step = modes.Step.of(arm, **layout)
    said.seek(0)
    gathered = said.read().count(b"full rematerialization")
  split = {"tensor", "context"} & set(layout)  # These send activations, too.
  if split:
    whole = [c for c in step.moved if modes.BATCH in c.shape]
    sent = ""
  else:
    whole = step.of_batch()
    sent = f"{step.sent() / step.closed_form():.3f}"
  off = np.max(np.abs(step.losses() / alone - 1))
  fine = not (whole or gathered or off > modes.TOLERANCE[arm])
  fine = fine and (split or float(sent) <= MOST_SENT)
  named = ", ".join(k if v is True else f"{k} {v}" for k, v in layout.items())
  cells = [arm, named, len(whole), sent, gathered, f"{off:.1e}"]
  print(
    "|", *(f"{cell} |" for cell in cells), "" if fine else "ABOVE", flush=True
  )
  return fine


@contextlib.contextmanager
def _stderr():
  """Has what the process says there, also outside Python, in a file."""
  with tempfile.TemporaryFile() as file:
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
      yield file
    finally:
      os.dup2(kept, 2)
      os.close(kept)


if __name__ == "__main__":
  sys.exit(min(1, main(sys.argv[1:])))
