"""Processes that join a run, or are refused in one line."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
VARIABLES = {
  "JAX_COORDINATOR_ADDRESS": "localhost:1",
  "JAX_NUM_PROCESSES": "2",
  "JAX_PROCESS_ID": "0",
}


def start(function, *arguments, environment=None):
  """Starts `processes.py` with nothing of a cluster in its environment."""
  clean = {
    key: value
    for key, value in os.environ.items()
    if key not in VARIABLES and not key.startswith(("SLURM_", "OMPI_", "PMI"))
  }
  path = os.pathsep.join([str(HERE.parents[1]), *sys.path])
  return subprocess.Popen(
    [sys.executable, HERE / "processes.py", function, json.dumps(arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=clean | {"PYTHONPATH": path} | (environment or {}),
  )


def result_of(process):
  output, errors = process.communicate(timeout=100)
  assert process.returncode == 0, errors
  return json.loads(output.splitlines()[-1])


def test_a_process_without_a_place_in_a_run_is_refused_with_advice():
  partly = {"JAX_NUM_PROCESSES": "2"}
  attempts = {
    r"coordinator=a:1, num_processes=None, .* set all three": ({}, ["a:1"]),
    r"num_processes=2, process_id=None: set all three": (partly, []),
    r"num_processes=two, .*'two'.* set JAX_": (
      VARIABLES | {"JAX_NUM_PROCESSES": "two"},
      [],
    ),
    r"num_processes=2, process_id=2 .*process_id < num_processes": (
      VARIABLES | {"JAX_PROCESS_ID": "2"},
      [],
    ),
    # An argument goes before its variable.
    r"coordinator=b:1, .*process_id=-1 .*nonnegative": (
      VARIABLES,
      ["b:1", None, -1],
    ),
    r"process_id=None .*set JAX_COORDINATOR_ADDRESS, .* cluster that JAX": (
      {},
      [],
    ),
  }
  messages = result_of(start("refusals", list(attempts.values())))
  for words, message in zip(attempts, messages, strict=True):
    assert re.search(words, message), message
    assert "\n" not in message


def free_port():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    return free.getsockname()[1]


@pytest.mark.parametrize(
  "axes, parts",
  [
    (dict(data=4), [[0, 2], [1, 2]]),
    # Both processes hold every row, so both load the whole batch.
    (dict(data=1, tensor=4), [[0, 1], [0, 1]]),
  ],
)
def test_two_processes_share_one_batch(axes, parts):
  address = f"localhost:{free_port()}"
  processes = [
    # One is placed by its arguments, the other by the environment.
    start("join", [address, 2, 0], axes),
    start(
      "join",
      [],
      axes,
      environment={
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": "1",
      },
    ),
  ]
  results = [result_of(process) for process in processes]
  assert [result["process"] for result in results] == [0, 1]
  assert [result["main"] for result in results] == [True, False]
  assert [result["part"] for result in results] == parts
  for result in results:
    assert result["shape"] == [8] and result["total"] == sum(range(8))


def slurm(port, process):
  """Returns the variables that srun sets, as far as JAX reads them."""
  return {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": str(process),
    "SLURM_LOCALID": str(process),
    "JAX_COORDINATOR_PORT": str(port),
  }


def open_mpi(port, process):
  """Returns the variables that mpirun sets, as far as JAX reads them."""
  return {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": str(process),
    "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
    "JAX_COORDINATOR_PORT": str(port),
  }


@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_a_launcher_says_who_is_who(launcher):
  port = free_port()
  processes = [
    start("meet", [], {}, None, environment=launcher(port, i)) for i in (0, 1)
  ]
  assert [result_of(process) for process in processes] == [[0, 2], [1, 2]]


@pytest.mark.parametrize(
  "process,words",
  [
    (1, "nobody answers at localhost:{port}, where process 0 of 2 should be"),
    (0, "localhost:{port} answers, but not all 2 processes have joined"),
  ],
)
def test_who_waits_in_vain_ends_in_time_with_one_line(process, words):
  port = free_port()
  alone = start("meet", [f"localhost:{port}", 2, process], {"join": 1}, None)
  output, errors = alone.communicate(timeout=20)
  assert alone.returncode == 75 and not output
  assert errors.count("\n") == 1, errors
  assert errors.startswith(f"process {process} (host ")
  assert words.format(port=port) in errors and "within 1 s" in errors


def test_a_barrier_names_who_does_not_come():
  address = f"localhost:{free_port()}"
  timeouts = {"lost": 4, "barrier": 1}
  processes = [start("meet", [address, 2, i], timeouts, 1) for i in (0, 1)]
  errors = [process.communicate(timeout=20)[1] for process in processes]
  assert [process.returncode for process in processes] == [75, 75], errors
  assert re.fullmatch(
    r"process 1 \(host .+\) did not come to the barrier 'first compile' within"
    r" 1 s; .*\n",
    errors[0],
  )
  assert not errors[1]


def test_an_error_of_one_process_ends_the_others_and_names_its_host():
  address = f"localhost:{free_port()}"
  processes = [start("fail", [address, 2, i], {"lost": 4}, 1) for i in (0, 1)]
  errors = [process.communicate(timeout=20)[1] for process in processes]
  assert [process.returncode for process in processes] == [2, 2], errors
  assert re.fullmatch(
    r"process 1 \(host .+\) failed with OSError: record 7 is damaged\n",
    errors[0],
  )
  # Its own console shows where, each line with its host's name.
  assert all(line.startswith("[") for line in errors[1].splitlines())
