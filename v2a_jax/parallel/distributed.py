"""The processes of one run: how they find one another and wait.

One process drives all devices of its host (on GPU clusters, one process per
GPU works too). Slurm, Open MPI, Cloud TPU and Kubernetes tell a process who it
is; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID do.
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
  """Joins the other processes of the run; before any use of a device.

  Args:
    coordinator: `host:port` of process 0; None takes the environment's
      variables, and without them what the cluster says.
    num_processes: of the run; likewise.
    process_id: of this process, from 0; likewise.
    timeout: seconds to wait for the others.

  Raises:
    ValueError: if only a part of the three is given, or nothing says who this
      process is.
    JaxRuntimeError: if the others do not come in time.
  """
  address, number, rank = (os.environ.get(name) for name in _VARIABLES)
  coordinator = coordinator or address
  num_processes = (
    int(number) if num_processes is None and number else num_processes
  )
  process_id = int(rank) if process_id is None and rank else process_id
  given = [x is not None for x in (coordinator, num_processes, process_id)]
  if any(given) and not all(given):
    raise ValueError(
      f"processes: coordinator={coordinator}, num_processes={num_processes},"
      f" process_id={process_id}; give all three ({', '.join(_VARIABLES)}),"
      " or none on a cluster that tells"
    )
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      initialization_timeout=int(timeout),
    )
  except ValueError as error:
    raise ValueError(
      "no cluster tells this process who it is: set"
      f" {', '.join(_VARIABLES)} ({error})"
    ) from error


def is_main_process() -> bool:
  """Whether this process writes logs and prints."""
  return jax.process_index() == 0
