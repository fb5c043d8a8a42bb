"""Checkpoints on object stores, and through a folder on this machine."""

from etils import epath
import jax
import numpy as np
import pytest
from training_checkpoints import flip_a_bit, make_state, restore, save

from v2a_jax.training import checkpoint, digests
from v2a_jax.training.restore import restore_params
from v2a_jax.training.retention import Retention


@pytest.fixture(scope="module")
def state():
  return make_state()


def test_a_workdir_on_a_bucket(gs_url, state, caplog):
  workdir = epath.Path(gs_url) / "run"
  checkpoints = checkpoint.Checkpoints(workdir, keep=Retention(newest=2))
  for step in (1, 2, 3):
    save(checkpoints, step, state)
  checkpoints.close()
  root = workdir / "checkpoints"
  assert digests.list_steps(root) == [3, 2]
  restored, _ = restore(workdir)
  assert (restored.step, restored.data) == (3, {"at": 3})
  jax.tree.map(
    np.testing.assert_array_equal, restored.state.params, state.params
  )

  flip_a_bit(root / "3")
  restored, _ = restore(workdir)
  assert restored.step == 2
  assert f"{root}/3 is damaged" in caplog.text
  assert (workdir / "damaged" / "3" / "sha256.json").exists()
  assert restore_params(str(workdir)).step == 2

  # Without its digests a save is not over; the next one begins anew.
  (root / "2" / "sha256.json").unlink()
  assert digests.list_steps(root) == []
  checkpoints = checkpoint.Checkpoints(workdir)
  save(checkpoints, 2, state)
  checkpoints.close()
  assert restore(workdir)[0].step == 2
