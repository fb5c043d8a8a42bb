"""The other arms on several devices: what they send, and their losses."""

import functools

import numpy as np
import pytest

from tests.parallel import modes

ROWS = dict(data=2, fsdp=4, zero1=True)
TOKENS = dict(data=1, context=2, tensor=2)


@functools.cache
def alone(arm):
  return modes.Step.of(arm, data=1).losses()


@pytest.mark.parametrize(
  "arm, axes",
  [
    *[("codec", ROWS), ("codec", TOKENS), ("ar", ROWS), ("ar", TOKENS)],
    ("ar_latents", ROWS),  # Its transformer over tokens is the one of ar.
  ],
)
def test_losses_are_those_of_one_device(arm, axes):
  found = modes.Step.of(arm, **axes)
  if axes == ROWS:
    assert not found.of_batch()
    assert found.sent() <= 1.05 * found.closed_form()
  losses = found.losses()
  np.testing.assert_allclose(losses, alone(arm), rtol=modes.TOLERANCE[arm])
  np.testing.assert_allclose(losses[0], alone(arm)[0], rtol=1e-5)
