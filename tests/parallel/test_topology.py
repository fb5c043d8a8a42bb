"""Topologies as they are written on the command line."""

import pytest

from v2a_jax.parallel import topology


def test_slices_and_chips_are_counted():
  pod = topology.parse("v5p:4x4x8", num_slices=2)
  assert (pod.num_chips, str(pod)) == (256, "2 x v5p:4x4x8")
  assert topology.parse("v5e:4x4").num_chips == 16


@pytest.mark.parametrize(
  "text, slices, hint",
  [
    ("v9:4x4", 1, "no such chip"),
    ("", 1, "no such chip"),
    ("v5p:4x4", 1, "3 dimensions, such as v5p:4x4x4"),
    ("v5e:4x4x4", 1, "2 dimensions, such as v5e:4x4"),
    ("v5e:0x4", 1, "2 dimensions"),
    ("v5e:4x-4", 1, "2 dimensions"),
    ("v5e", 1, "2 dimensions"),
    ("v5e:4x4", 0, "num_slices=0: use 1 or more"),
  ],
)
def test_what_is_no_topology_is_refused(text, slices, hint):
  with pytest.raises(topology.TopologyError, match=hint):
    topology.parse(text, num_slices=slices)
