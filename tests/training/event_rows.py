"""What TensorBoard itself reads of the event files of a run."""

import pytest


def read(workdir):
  """Returns TensorBoard's own view of a run's folder."""
  accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  found = accumulator.EventAccumulator(
    str(workdir / "tensorboard"),
    size_guidance={accumulator.SCALARS: 0, accumulator.TENSORS: 0},
  )
  return found.Reload()


def scalars(workdir, tag):
  """Returns (step, value) of each point of a curve."""
  return [(event.step, event.value) for event in read(workdir).Scalars(tag)]
