"""Checkpoints: any mesh, any damage, a full disk."""

import functools
import json
import os
import pathlib
import resource
import shutil

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from toy_training import Net
from training_checkpoints import (
  flip_a_bit,
  make_mesh,
  make_state,
  restore,
  run_two_processes,
  save,
)

from v2a_jax.basics.settings import SettingError
from v2a_jax.training import checkpoint, digests
from v2a_jax.training.restore import restore_model, restore_params
from v2a_jax.training.retention import Retention, ranked
from v2a_jax.training.run import RunConfig
from v2a_jax.weights import names


@pytest.fixture(scope="module")
def state():
  return make_state()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state):
  """A workdir with the steps 1 and 2; `params` hold the step."""
  workdir = tmp_path_factory.mktemp("run")
  checkpoints = checkpoint.Checkpoints(workdir)
  for step in (1, 2):
    save(checkpoints, step, state)
  checkpoints.close()
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  """A copy of it to be damaged."""
  return shutil.copytree(saved, tmp_path / "run")


@pytest.mark.parametrize(
  "count, axes", [(8, dict(tensor=4)), (4, dict(fsdp=4)), (1, {})]
)
def test_any_mesh_restores_the_same_numbers(saved, state, count, axes):
  restored, layout = restore(saved, make_mesh(count, **axes))
  assert (restored.step, restored.data, restored.meta) == (
      2, {"at": 2}, {"name": "toy"},
  )  # fmt: skip
  expected = state.replace(step=jnp.int32(2))
  assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
  for leaf, wanted in zip(
    jax.tree.leaves(restored.state), jax.tree.leaves(layout)
  ):
    assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


def _largest(folder):
  files = [p for p in (folder / "weights").rglob("*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def flip_a_bit_of_the_weights(folder):
  flip_a_bit(folder, "weights/")


def flip_a_bit_of_the_optimizer(folder):
  flip_a_bit(folder, "state/")


def flip_all(folder):
  for path in filter(pathlib.Path.is_file, folder.rglob("*")):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def truncate(folder):
  _largest(folder).write_bytes(_largest(folder).read_bytes()[:10])


def remove(folder):
  _largest(folder).unlink()


def write_digests(text, folder):
  (folder / "sha256.json").write_text(text)


@pytest.mark.parametrize(
  "damage",
  [
    flip_a_bit_of_the_weights,
    flip_a_bit_of_the_optimizer,
    truncate,
    remove,
    functools.partial(write_digests, ""),
    functools.partial(write_digests, "[]"),
    functools.partial(write_digests, '{"files": []}'),
    functools.partial(write_digests, '{"files": {}}'),
  ],
)
def test_damage_is_named_and_the_one_before_is_taken(workdir, damage, caplog):
  damage(workdir / "checkpoints" / "2")
  restored, _ = restore(workdir)
  assert restored.step == 1
  assert str(workdir / "checkpoints" / "2") in caplog.text
  assert (workdir / "damaged" / "2").is_dir()
  assert restore_params(workdir).step == 1


def flip(data):
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
  "change",
  [
    flip,
    lambda data: data[: len(data) // 2],
    lambda data: bytes(len(data)),
    None,
  ],
  ids=["flipped", "truncated", "zeroed", "deleted"],
)
def test_damage_in_any_file_of_the_newest_is_found(
  workdir, state, change, caplog
):
  """Nothing depends on Orbax's own notes of the save, which are beside them."""
  root = epath.Path(workdir / "checkpoints")
  names = list(digests.list_files(root / "2"))
  parts = {name.split("/")[0] for name in names}
  assert parts >= {"weights", "state", "data", "meta", "sha256.json"}
  whole = shutil.copytree(root / "2", workdir / "whole")
  for name in names:
    file = root / "2" / name
    data = file.read_bytes()
    file.unlink() if change is None else file.write_bytes(change(data))
    restored = restore(workdir)[0]
    if name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
      assert restored.step == 2
      params = restored.state.params
      jax.tree.map(np.testing.assert_array_equal, params, state.params)
      file.write_bytes(data)
      continue
    assert restored.step == 1, name
    # A digest that has changed looks like damage of the file that it is of.
    named = name if "/" in name else ""
    assert f"checkpoint {root / '2'} is damaged ({named}" in caplog.text
    assert (workdir / "damaged" / "2").is_dir()
    shutil.rmtree(workdir / "damaged")
    shutil.copytree(whole, root / "2")
  assert restore(workdir)[0].step == 2


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
def test_no_note_of_orbax_is_waited_for(workdir, state, name):
  file = workdir / "checkpoints" / "2" / name
  file.unlink()
  os.mkfifo(file)
  with pytest.raises(OSError, match=f"{name} is not a regular file"):
    restore(workdir)
  assert restore_params(workdir).step == 1


def test_no_sound_checkpoint_is_an_error(workdir):
  for step in ("1", "2"):
    truncate(workdir / "checkpoints" / step)
  with pytest.raises(checkpoint.CheckpointError, match="damaged .weights/"):
    restore_params(workdir)
  with pytest.raises(checkpoint.CheckpointError, match="no sound checkpoint"):
    restore(workdir)


def test_another_shape_names_the_leaf_and_both_shapes(saved):
  with pytest.raises(checkpoint.CheckpointError) as error:
    restore(saved, hidden=12)
  said = "params/layers/0/bias is (8,), the model has (12,)"
  assert said in str(error.value)
  with pytest.raises(checkpoint.CheckpointError, match="the model has"):
    restore_model(saved, lambda rngs: Net(rngs, hidden=12))


def test_what_is_missing_is_named(saved, tmp_path):
  with pytest.raises(checkpoint.CheckpointError, match="no checkpoint there"):
    restore_params(tmp_path / "nowhere")
  with pytest.raises(checkpoint.CheckpointError, match=r"no step 7.*\[1, 2\]"):
    restore_params(saved, step=7)


def test_weights_for_use_are_the_average(saved, state):
  average = restore_params(saved, step=1)
  raw = restore_params(saved, ema=False)
  assert average.sha256 != raw.sha256 and len(raw.sha256) == 64
  kernel = lambda r: r.state["params"]["layers", "0", "kernel"]
  np.testing.assert_array_equal(
    kernel(raw), state.params["layers"][0]["kernel"][...]
  )
  np.testing.assert_array_equal(kernel(average), kernel(raw) + 1)
  model, restored = restore_model(saved, Net)
  assert restored.meta == {"name": "toy"}
  np.testing.assert_array_equal(model.layers[0].kernel[...], kernel(average))
  assert model(jnp.ones((1, 4))).shape == (1, 4)


@pytest.mark.parametrize("damage", [shutil.rmtree, flip_all])
def test_using_a_model_needs_no_optimizer(workdir, damage):
  """Neither to read it nor to find it sound."""
  damage(workdir / "checkpoints" / "2" / "state")
  restored = restore_params(workdir)
  assert restored.step == 2
  assert restored.state["params"].keys() == {
    ("layers", i, kind) for i in "01" for kind in ("kernel", "bias")
  }
  assert restore_params(workdir, ema=False).step == 1


def test_a_checkpoint_of_before_is_read(state, tmp_path):
  """All its arrays are in one item, and packed."""
  folder = epath.Path(tmp_path) / "checkpoints" / "1"
  tree = traverse_util.unflatten_dict(names.flatten(state))
  ocp.PyTreeCheckpointer().save(folder / "state", tree)
  for item, value in (("data", {"at": 1}), ("meta", {"name": "toy"})):
    (folder / item).mkdir()
    (folder / item / "metadata").write_text(json.dumps(value))
  digests.write_digests(folder)
  restored, _ = restore(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, restored.state, state)
  kernel = restore_params(tmp_path).state["params"]["layers", "0", "kernel"]
  np.testing.assert_array_equal(kernel, state.ema["layers"][0]["kernel"][...])


def test_one_device_then_four_then_two_with_zero1(saved, state, tmp_path):
  """Each run saves what the next one reads into another layout."""
  shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
  first, _ = restore(tmp_path, make_mesh(1))
  for step, mesh, zero1 in (
    (3, make_mesh(4, fsdp=4), False),
    (4, make_mesh(2, data=2), True),
    (5, make_mesh(4, data=2, fsdp=2), True),
  ):
    restored, layout = restore(tmp_path, mesh, zero1=zero1)
    moments = restored.state.opt_state
    assert any(
      not x.sharding.is_fully_replicated for x in jax.tree.leaves(moments)
    )
    for leaf, wanted in zip(
      jax.tree.leaves(restored.state), jax.tree.leaves(layout)
    ):
      assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    jax.tree.map(
      np.testing.assert_array_equal,
      restored.state.replace(step=first.state.step),
      first.state,
    )
    checkpoints = checkpoint.Checkpoints(tmp_path)
    save(checkpoints, step, restored.state.replace(step=jnp.int32(0)))
    checkpoints.close()


def test_numbers_become_those_of_the_model_and_that_is_said(
  saved, state, caplog
):
  half = lambda x: (
    jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) if x.dtype == jnp.float32 else x
  )
  restored, _ = restore(saved, change=lambda s: jax.tree.map(half, s))
  wanted = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
  jax.tree.map(np.testing.assert_array_equal, restored.state.params, wanted)
  (said,) = [x for x in caplog.messages if "converted" in x]
  assert said.endswith("checkpoints/2: converted from float32 to bfloat16")
  wrong = lambda s: s.replace(step=jax.ShapeDtypeStruct((), jnp.float32))
  with pytest.raises(
    checkpoint.CheckpointError, match="step is int32, the mod"
  ):
    restore(saved, change=wrong)


# TensorStore calls back into the event loop of the save that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_costs_one_checkpoint_and_no_more(tmp_path, caplog, state):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=Retention(newest=2))
  save(checkpoints, 1, state)
  assert checkpoints.wait()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
  try:
    save(checkpoints, 2, state)
    assert not checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert "checkpoints/2 could not be saved: a file is larger" in caplog.text
  assert digests.list_steps(checkpoints.root) == [1]
  save(checkpoints, 3, state)
  checkpoints.close()
  assert digests.list_steps(checkpoints.root) == [3, 1]
  assert restore(tmp_path)[0].step == 3
  assert not list(checkpoints.root.glob("*tmp*"))


def test_old_checkpoints_make_room_but_for_the_periodic(tmp_path, state):
  checkpoints = checkpoint.Checkpoints(
    tmp_path, keep=Retention(newest=1, period=4)
  )
  for step in (4, 6, 7):
    save(checkpoints, step, state)
  checkpoints.close()
  assert digests.list_steps(checkpoints.root) == [7, 4]
  named = json.loads((checkpoints.root / "7" / "sha256.json").read_text())
  assert any(name.startswith("state/") for name in named["files"])


def test_the_best_checkpoints_are_kept_and_found_by_name(
  tmp_path, state, caplog
):
  keep = Retention(newest=1, best=2, metric="eval/loss")
  losses = {1: 0.5, 2: 0.3, 3: None, 4: 0.4, 5: 0.9, 6: float("nan"), 7: 0.8}
  for steps in ((1, 2, 3), (4, 5, 6, 7)):  # The second time as a new process.
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=keep)
    for step in steps:
      row = None if losses[step] is None else {"eval/loss": losses[step]}
      save(checkpoints, step, state, validation=row)
    checkpoints.close()
  assert digests.list_steps(tmp_path / "checkpoints") == [7, 4, 2]
  assert restore_params(tmp_path, step="best").step == 2
  assert restore_params(tmp_path).step == 7
  assert "keep_best_metric='eval/loss' has no finite value" in caplog.text


def test_no_checkpoint_is_the_best_without_validation(saved):
  with pytest.raises(
    checkpoint.CheckpointError, match="no checkpoint has a va"
  ):
    restore_params(saved, step="best")


@pytest.mark.parametrize("missing", ["eval_every", "ema_decay"])
def test_the_best_cannot_be_kept_without_what_tells(missing):
  settings = dict(keep_best=1, eval_every=10) | {missing: 0}
  with pytest.raises(SettingError, match=f"^keep_best.*{missing}"):
    RunConfig(**settings)


def test_higher_may_be_better_and_what_is_not_ranked_makes_room():
  keep = Retention(newest=1, period=10, best=1, metric="eval/x", mode="max")
  score = lambda value: keep.score({"eval/x": value})
  scores = {5: score(2.0), 10: None, 11: None, 12: score(1.0), 13: score(1.5)}
  assert keep.kept(scores) == {5, 10, 13}
  # A run that goes on with another metric is ranked by the new one.
  other = Retention(metric="eval/y").score({"eval/y": 3.0})
  assert ranked(scores | {14: other}) == [14]


@pytest.mark.parametrize("process", [0, 1])
def test_a_full_disk_of_one_process_costs_all_one_checkpoint(process, tmp_path):
  """None waits for it in vain, and the next save is whole."""
  outputs = run_two_processes(
    workdir=str(tmp_path), damage=False, full_disk=process
  )
  for text in outputs:
    said = [line for line in text.splitlines() if "could not be saved" in line]
    assert (
      len(said) == 1 and "1 could not be saved: a file is larger" in said[0]
    )
    assert "Traceback" not in text
    assert text.splitlines()[-1] == "restored 2, True"
  assert digests.list_steps(tmp_path / "checkpoints") == [2]
  assert not list(tmp_path.rglob("*tmp*"))


def test_two_processes_hash_and_verify_what_is_theirs(tmp_path, state):
  outputs = run_two_processes(workdir=str(tmp_path), damage=True)
  assert [text.splitlines()[-1] for text in outputs] == ["restored 1, True"] * 2
  assert "ocdbt.process_1/" in outputs[0] and "damaged" not in outputs[1]
  assert (tmp_path / "damaged" / "2").is_dir()
  # One process reads what two have saved.
  restored, _ = restore(tmp_path)
  assert restored.step == 1
  jax.tree.map(np.testing.assert_array_equal, restored.state.ema, state.ema)


def test_digests_are_of_the_files_that_a_process_wrote(saved, tmp_path):
  folder = epath.Path(
    shutil.copytree(saved / "checkpoints" / "2", tmp_path / "2")
  )
  before = digests.read_digests(folder)
  (folder / "sha256.json").unlink()
  other = folder / "state" / "ocdbt.process_1"
  shutil.copytree(folder / "state" / "ocdbt.process_0", other)
  for index in (0, 1):
    digests.write_part(folder / "state", index)
  # What the second process says of its files is taken as it is.
  part = folder / "state" / "sha256.process_1.json"
  part.write_text(part.read_text().replace('": "', '": "0'))
  digests.write_digests(folder)
  after = digests.read_digests(folder)
  assert before.items() < after.items()
  theirs = {name: after[name] for name in after.keys() - before.keys()}
  assert theirs and all("process_1/" in name for name in theirs)
  assert all(digest.startswith("0") for digest in theirs.values())
  assert not list((folder / "state").glob("sha256*"))
  # Each file is in the share of one process.
  found = [digests.find_damage(folder, index=i, count=99) for i in range(99)]
  assert len(list(filter(None, found))) == len(theirs)
