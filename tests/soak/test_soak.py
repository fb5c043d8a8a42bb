"""A few rounds of each soak test; `make soak` does hundreds."""

import importlib.util

import pytest

from tests.soak import files, loaders, runs


@pytest.mark.parametrize(
  "soak, rounds",
  [
    *[(runs.kills, 1), (runs.readers_gone, 1), (runs.full_disks, 1)],
    *[(runs.stops, 1), (loaders.workers_killed, 1)],
    *[(files.clips, 3), (files.builds, 1)],
    *[(files.sidecars, 40), (files.bundles, 40), (files.captions, 60)],
    *[(files.results, 40), (files.torch_files, 60)],
  ],
)
def test_nothing_is_lost_and_nothing_crashes(soak, rounds, tmp_path):
  if soak is files.torch_files and not importlib.util.find_spec("torch"):
    pytest.skip("torch writes the file that is damaged")
  tally = soak(tmp_path, rounds)
  assert tally.rounds == rounds and not tally.faults
