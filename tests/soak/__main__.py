"""Runs every soak test at length and prints a table: `make soak`.

python -m tests.soak [SHARE]    SHARE of the usual rounds, by default 1
"""

import pathlib
import sys
import tempfile

from tests.soak import files, loaders, runs
from tests.soak.rounds import HEADER

ROUNDS = {
  runs.kills: 200,
  runs.stops: 50,
  runs.readers_gone: 50,
  runs.full_disks: 50,
  loaders.workers_killed: 50,
  files.clips: 2000,
  files.builds: 100,
  files.sidecars: 500,
  files.bundles: 500,
  files.captions: 500,
  files.results: 500,
  files.torch_files: 500,
}


def main(share: float) -> int:
  """Returns the number of soak tests that found a fault."""
  failed = 0
  print(HEADER, flush=True)
  for soak, rounds in ROUNDS.items():
    with tempfile.TemporaryDirectory() as folder:
      try:
        tally = soak(pathlib.Path(folder), max(1, round(share * rounds)))
        print(tally.row(), flush=True)
      except AssertionError as error:
        failed += 1
        print(error, flush=True)
  return failed


if __name__ == "__main__":
  raise SystemExit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
