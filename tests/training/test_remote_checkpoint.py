"""Checkpoints on object stores, and through a folder on this machine."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

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
  try:
    checkpoints = checkpoint.Checkpoints(workdir)
    for step in (2, 3):
      save(checkpoints, step, state)
    checkpoints.close()
  except ValueError as error:
    # Of concurrent writes, the emulator now and then forgets the generation.
    if "Malformed StorageGeneration" in str(error):
      pytest.skip("the emulator of gs:// gave no generation of an object")
    raise
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


# Saves step 1, and step 2 whose copy comes to a file that cannot be written.
STUCK = """
import os, sys, time
import training_checkpoints as tools
from v2a_jax.training import checkpoint
workdir, local = sys.argv[1:]
state = tools.make_state(1)
checkpoints = checkpoint.Checkpoints(workdir, local=local)
tools.save(checkpoints, 1, state)
assert checkpoints.wait()
os.makedirs(f"{workdir}/checkpoints/2.copying/meta")
os.mkfifo(f"{workdir}/checkpoints/2.copying/meta/metadata")
tools.save(checkpoints, 2, state)
time.sleep(100)
"""


def test_a_copy_that_was_killed_is_finished_or_removed(tmp_path):
  workdir, local = tmp_path / "run", tmp_path / "local"
  root = workdir / "checkpoints"
  here = pathlib.Path(__file__).parent
  paths = os.pathsep.join([str(here), str(here.parents[1]), *sys.path])
  process = subprocess.Popen(
    [sys.executable, "-c", STUCK, str(workdir), str(local)],
    env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
  )
  try:
    while not list(root.glob("2.copying/*/manifest.ocdbt")):
      assert process.poll() is None
      time.sleep(0.05)
  finally:
    process.kill()
    process.wait()
  assert digests.list_steps(root) == [1]
  assert restore_params(workdir).step == 1
  (root / "2.copying" / "meta" / "metadata").unlink()
  elsewhere = shutil.copytree(workdir, tmp_path / "elsewhere")

  # On the same machine the copy is finished, and the run goes on from it.
  assert restore(workdir, local=local)[0].step == 2
  assert digests.find_damage(root / "2") is None
  # On another machine it is removed.
  assert restore(elsewhere, local=tmp_path / "other")[0].step == 1
  for folder in (root, elsewhere / "checkpoints"):
    assert not list(folder.glob("*copying*"))


@pytest.mark.parametrize("place", ["local", "another machine"])
def test_a_whole_copy_without_its_name_is_kept(place, state, tmp_path):
  """The process was killed after the last byte and before the rename."""
  workdir = tmp_path / "run"
  checkpoints = checkpoint.Checkpoints(workdir, local=tmp_path / "local")
  for step in (1, 2):
    save(checkpoints, step, state)
  assert checkpoints.wait()
  checkpoints.close()
  root = checkpoints.root
  (root / "2").rename(root / "2.copying")
  assert restore(workdir, local=tmp_path / place)[0].step == 2
  assert digests.list_steps(root) == [2, 1]


def test_a_store_that_fails_costs_no_step(state, tmp_path, caplog):
  """What could not be copied is said in one line; the next one is copied."""
  workdir = tmp_path / "run"
  checkpoints = checkpoint.Checkpoints(workdir, local=tmp_path / "local")
  root = checkpoints.root
  (root / "1.copying" / "weights").mkdir(parents=True)
  (root / "1.copying" / "weights" / "_METADATA").mkdir()  # Not a file.
  save(checkpoints, 1, state)
  assert not checkpoints.wait()
  (said,) = [x for x in caplog.messages if "could not be copied" in x]
  assert "checkpoint" in said and "\n" not in said and str(root) in said
  save(checkpoints, 2, state)
  assert checkpoints.wait()
  checkpoints.close()
  assert digests.list_steps(root) == [2]


def test_two_processes_on_s3(s3_url, state, tmp_path):
  outputs = run_two_processes(
    workdir=s3_url, local=str(tmp_path), damage=True, slow_disk=0.2
  )
  assert [text.splitlines()[-1] for text in outputs] == ["restored 1, True"] * 2
  restored, _ = restore(s3_url, local=tmp_path / "other")
  assert restored.step == 1
  jax.tree.map(np.testing.assert_array_equal, restored.state.ema, state.ema)
