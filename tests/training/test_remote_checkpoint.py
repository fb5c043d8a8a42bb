"""Checkpoints on object stores, and through a folder on this machine."""

from etils import epath
import jax
import numpy as np
import pytest
from training_checkpoints import (
  flip_a_bit,
  make_state,
  restore,
  run_two_processes,
  save,
)

from v2a_jax.training import checkpoint, digests
from v2a_jax.training.restore import restore_params
from v2a_jax.training.retention import Retention


@pytest.fixture(scope="module")
def state():
  return make_state()


def test_a_workdir_on_gs_is_written_to_directly(gs_url, state, caplog):
  workdir = epath.Path(gs_url) / "run"
  checkpoints = checkpoint.Checkpoints(workdir, keep=Retention(newest=2))
  for step in (1, 2, 3):
    save(checkpoints, step, state)
  checkpoints.close()
  check_what_was_kept(workdir, state, caplog)


def check_what_was_kept(workdir, state, caplog, **settings):
  """Restores 3; damages it and restores 2; nothing whole is left."""
  root = workdir / "checkpoints"
  assert digests.list_steps(root) == [3, 2]
  restored, _ = restore(workdir, **settings)
  assert (restored.step, restored.data) == (3, {"at": 3})
  assert str(restored.path) == f"{root}/3"
  same = np.testing.assert_array_equal
  jax.tree.map(same, restored.state.params, state.params)
  jax.tree.map(same, restored.state.opt_state, state.opt_state)

  flip_a_bit(root / "3")
  restored, _ = restore(workdir, **settings)
  assert restored.step == 2
  assert f"{root}/3 is damaged" in caplog.text
  assert (workdir / "damaged" / "3" / "sha256.json").exists()
  weights = restore_params(str(workdir))
  assert (weights.step, str(weights.path)) == (2, f"{root}/2")
  kernel = weights.state["params"]["layers", "0", "kernel"]
  same(kernel, state.ema["layers"][0]["kernel"][...])

  # Without its digests a save is not over; the next run removes it.
  (root / "2" / "sha256.json").unlink()
  assert digests.list_steps(root) == []


def test_a_workdir_on_s3_is_copied_to(s3_url, state, caplog, tmp_path):
  workdir = epath.Path(s3_url) / "run"
  checkpoints = checkpoint.Checkpoints(
    workdir, keep=Retention(newest=2), local=tmp_path
  )
  for step in (1, 2, 3):
    save(checkpoints, step, state)
  assert checkpoints.wait() and checkpoints.latest_step() == 3
  checkpoints.close()
  check_what_was_kept(workdir, state, caplog, local=tmp_path / "other")


def test_two_processes_on_s3(s3_url, state, tmp_path):
  outputs = run_two_processes(workdir=s3_url, local=str(tmp_path), damage=True)
  assert [text.splitlines()[-1] for text in outputs] == ["restored 1, True"] * 2
  restored, _ = restore(s3_url, local=tmp_path / "other")
  assert restored.step == 1
  jax.tree.map(np.testing.assert_array_equal, restored.state.ema, state.ema)
