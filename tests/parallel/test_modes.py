"""The other arms on several devices: what they send, and their losses."""

import numpy as np
import pytest

from tests.parallel import modes

# Rounding decides which code is the nearest, and its error grows from there.
TOLERANCE = {"codec": 2e-2}
# The codec also looks for codes that no device uses.
BYTES = {"codec": 1.3}


@pytest.fixture(scope="module", params=["ar", "ar_latents", "codec"])
def arm(request):
  return request.param


@pytest.fixture(scope="module")
def alone(arm):
  return modes.Step.of(modes.experiment(arm, data=1)).losses()


def assert_equal(arm, losses, alone):
  np.testing.assert_allclose(losses, alone, rtol=TOLERANCE.get(arm, 1e-5))
  np.testing.assert_allclose(losses[0], alone[0], rtol=1e-5)


def test_rows_are_split_over_data_and_fsdp(arm, alone):
  found = modes.Step.of(modes.experiment(arm, data=2, fsdp=4, zero1=True))
  assert not [
    c for c in found.moved if any(n % 7 == 0 and n > 7 for n in c.shape)
  ]
  assert found.sent() <= BYTES.get(arm, 1.05) * found.closed_form()
  assert_equal(arm, found.losses(), alone)


def test_heads_and_tokens_are_split_over_tensor_and_context(arm, alone):
  if arm == "ar_latents":
    pytest.skip("its transformer is that of ar")
  found = modes.Step.of(modes.experiment(arm, data=1, context=2, tensor=2))
  assert_equal(arm, found.losses(), alone)
