"""The processes of one run: how they find one another.

One process drives all devices of its host (on GPU clusters, one process per
GPU works too). Slurm, Open MPI, Cloud TPU and Kubernetes identify a process;
elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do.
"""

import os

import jax

_VARIABLES = (
  "JAX_COORDINATOR_ADDRESS",
  "JAX_NUM_PROCESSES",
  "JAX_PROCESS_ID",
)


def initialize(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  timeout: float = 1800,
) -> None:
  """Joins the other processes of the run; call it before any use of a device.

  Each of the first three arguments is taken from its environment variable where
  it is None; where all are unset JAX detects the cluster.

  Args:
    coordinator: `host:port` of process 0.
    num_processes: number of processes of the run.
    process_id: index of this process, from 0.
    timeout: seconds to wait for the other processes; after them XLA aborts
      this process with "DEADLINE_EXCEEDED".

  Raises:
    ValueError: only some of the three are set, a number is wrong, or JAX
      detects no cluster.
  """
  address, number, rank = (os.environ.get(name) or None for name in _VARIABLES)
  values = {
    "coordinator": coordinator or address,
    "num_processes": number if num_processes is None else num_processes,
    "process_id": rank if process_id is None else process_id,
  }
  place = ", ".join(f"{key}={value}" for key, value in values.items())
  unset = [value is None for value in values.values()]
  if any(unset) and not all(unset):
    raise ValueError(
      f"{place}: set all three ({', '.join(_VARIABLES)}), or none on a cluster"
      " that JAX detects"
    )
  coordinator, *numbers = values.values()
  try:
    jax.distributed.initialize(
      coordinator,
      *(number if number is None else int(number) for number in numbers),
      initialization_timeout=int(timeout),
    )
  except ValueError as error:
    raise ValueError(
      f"cannot join a run with {place} ({error}): set {', '.join(_VARIABLES)},"
      " or start it on a cluster that JAX detects"
    ) from error


def is_main_process() -> bool:
  """Says whether this process writes logs and prints."""
  return jax.process_index() == 0
