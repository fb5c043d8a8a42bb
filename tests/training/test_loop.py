"""The loop: resume bit for bit, signals, several processes, limits."""

import functools
import json
import os
import shutil
import signal
import socket
import time

from flax import nnx
import jax
import numpy as np
import pytest
from toy_training import (
  BATCH,
  Loader,
  Net,
  Regression,
  experiment,
  losses_of,
  rows_of,
)

from tests.training import event_rows
from tests.training.toy_process import MESH, read_until, start
from v2a_jax import media
from v2a_jax.parallel.mesh import MeshConfig
from v2a_jax.training import history
from v2a_jax.training.digests import list_steps
from v2a_jax.training.health import NonFiniteError
from v2a_jax.training.loop import train
from v2a_jax.training.optimizer import OptimizerConfig
from v2a_jax.training.preemption import PreemptionGuard
from v2a_jax.training.restore import restore_params
from v2a_jax.training.throughput import Throughput
from v2a_jax.training.writers import JsonlWriter
from v2a_jax.weights import names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """Six steps without interruption: (workdir, state, batches seen)."""
  workdir, seen = tmp_path_factory.mktemp("whole"), []
  settings = dict(seen=seen, eval_every=4, eval_batches=2, wandb_mode="offline")
  settings["tensorboard"] = True
  toy = experiment(mesh=MeshConfig(**MESH), **settings)
  state = train(toy, workdir, samples=write_samples)
  return workdir, state, seen


def write_samples(params, buffers, *, mesh, folder):
  """Writes what a generator's weights would say; see `training.run.Samples`."""
  assert jax.tree.leaves(params)[0].sharding.mesh == mesh
  sound = np.full((800, 1), 0.5, np.float32)
  folder.mkdir(parents=True)
  media.write_wav(folder / "clip_0.wav", sound, 8000)
  frames = np.zeros((2, 16, 16, 3), np.uint8)
  path = folder / "clip_0.mp4"
  media.encode_video(
    frames, fps=20, path=path, audio=np.repeat(sound, 6, 0), sample_rate=48000
  )


def test_sigterm_saves_and_a_new_process_goes_on_bit_for_bit(whole, tmp_path):
  workdir, state, seen = whole
  settings = dict(delay=0.2, seen=str(tmp_path / "seen"), checkpoint_every=100)
  process = start(tmp_path, **settings)
  read_until(process, "step 2/6")
  process.send_signal(signal.SIGTERM)
  output = process.communicate(timeout=60)[0]
  assert process.returncode == 143, output
  (stopped,) = list_steps(tmp_path / "checkpoints")
  assert 2 <= stopped < 6

  rest = []
  resumed = train(experiment(seen=rest, mesh=MeshConfig(**MESH)), tmp_path)
  first = json.loads((tmp_path / "seen").read_text())[:stopped]
  assert first + rest[: 6 - stopped] == seen[:6]
  assert jax.tree.structure(resumed) == jax.tree.structure(state)
  jax.tree.map(np.testing.assert_array_equal, resumed, state)
  assert losses_of(tmp_path) == losses_of(workdir)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_processes_goes_on_with_the_same_samples(
  count, whole, tmp_path
):
  """On the same mesh, from step 3, which one process has saved."""
  workdir, state, seen = whole
  resumed = tmp_path / "run"
  shutil.copytree(workdir, resumed)
  shutil.rmtree(resumed / "checkpoints" / "6")
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  places = [(port, count, i) for i in range(count)] if count > 1 else []
  processes = [
    start(
      resumed,
      devices=8 // count,
      seen=str(tmp_path / f"seen{i}"),
      **({"processes": places[i]} if places else {}),
    )
    for i in range(count)
  ]
  outputs = [process.communicate(timeout=200)[0] for process in processes]
  codes = [process.returncode for process in processes]
  assert codes == [0] * count, "\n".join(outputs)
  assert ["step 6/6" in output for output in outputs] == [True] + [False] * (
    count - 1
  )
  parts = [
    json.loads((tmp_path / f"seen{i}").read_text()) for i in range(count)
  ]
  # Each is at the same step, and no row is read twice.
  together = [sorted(sum(rows, [])) for rows in zip(*parts, strict=True)]
  assert together[:3] == [sorted(rows) for rows in seen[3:6]]
  np.testing.assert_allclose(losses_of(resumed), losses_of(workdir), rtol=1e-5)

  # One process goes on from what they have saved; there is nothing left to do.
  restored = train(experiment(mesh=MeshConfig(**MESH)), resumed)
  same = np.testing.assert_array_equal
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(same if count == 1 else close, restored, state)


@pytest.fixture
def interruptible():
  """Processes in the background inherit SIGINT as ignored."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_is_an_exit_code_and_handlers_come_back():
  before = signal.getsignal(signal.SIGINT)
  with PreemptionGuard() as guard:
    assert guard.exit_code(1) is None
    os.kill(os.getpid(), signal.SIGINT)
    assert guard.exit_code(2) == 130
    # A second interrupt is not held back.
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(1)
  assert signal.getsignal(signal.SIGINT) is before


def test_updates_that_are_not_finite_end_the_run(tmp_path, caplog):
  with pytest.raises(NonFiniteError, match="steps 3 to 7: loss nan"):
    train(
      experiment(
        objective=Regression(poison=2),
        max_skipped_steps=3,
        num_train_steps=50,
        checkpoint_every=2,
      ),
      tmp_path,
    )
  assert sum("Back to step 2" in x for x in caplog.messages) == 2
  assert list_steps(tmp_path / "checkpoints") == [2]
  rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(rows[-1])["train/loss"] is None


def test_time_limit_stops_cleanly_and_counts_over_restarts(tmp_path):
  loaders = []

  def open_loader(split, *, step, index, count):
    loaders.append(Loader(step, index, count, delay=0.05))
    return loaders[-1]

  limited = experiment(
    train_seconds=0.01,
    num_train_steps=10**6,
    open_loader=open_loader,
    eval_every=1,
    meta={"config": {"seed": 0}},
  )
  # The budget is used up by the set-up; a second start finds it so.
  train(limited, tmp_path)
  begin = time.monotonic()
  train(limited, tmp_path)
  assert time.monotonic() - begin < 60
  assert list_steps(tmp_path / "checkpoints") == [0]
  assert all(loader.closed for loader in loaders)


def test_a_run_that_time_ends_has_come_to_its_low_rates(tmp_path):
  """Also where it goes on after an interruption, however slow the machine."""
  endless = functools.partial(experiment, num_train_steps=10**6, delay=0.05)
  with pytest.raises(OSError, match="damaged"):
    train(endless(train_seconds=10**6, fail_after=5), tmp_path)
  used = json.loads((tmp_path / "goodput.json").read_text())["total_seconds"]
  train(endless(train_seconds=3 * used + 3), tmp_path)
  rows = [row for _, row in history.rows(tmp_path)]
  rates = [row["train/learning_rate"] for row in rows]
  peak = experiment().optimizer.learning_rate
  assert len(rates) > 5 and rates == sorted(rates, reverse=True)
  assert rates[0] > 0.99 * peak and rates[-1] < 0.1 * peak


def test_a_row_has_speed_and_goodput(whole):
  workdir, _, _ = whole
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert rows[-1]["step"] == 6
  assert {
    "train/loss", "train/error", "train/grad_norm", "train/learning_rate",
    "train/skipped", "perf/step_time", "perf/examples_per_sec", "perf/mfu",
    "goodput/compile_seconds", "goodput/step_fraction",
  } <= rows[-1].keys()  # fmt: skip
  record = json.loads((workdir / "run.json").read_text())
  assert list((workdir / "wandb").glob(f"*{record['wandb_id']}"))
  curve = event_rows.scalars(workdir, "train/loss")
  losses = {r["step"]: r["train/loss"] for r in rows if "train/loss" in r}
  assert len(curve) == len(losses) and dict(curve) == pytest.approx(losses)


def test_samples_are_shown_by_tensorboard_and_wandb(whole):
  workdir, _, _ = whole

  def steps_and_rates():
    events = event_rows.read(workdir).Audio("samples/clip_0")
    return [(event.step, event.sample_rate) for event in events]

  def kinds(folder):
    return sorted(f.suffix for f in folder.glob("**/media/*/samples/clip_0*"))

  assert steps_and_rates() == [(4, 8000.0)]
  assert kinds(workdir / "wandb") == [".mp4", ".wav"]
  # From the workdir alone, too.
  history.to_tensorboard(workdir)
  assert steps_and_rates() == [(4, 8000.0)]
  assert kinds(history.to_wandb(workdir)) == [".mp4", ".wav"]


def test_a_row_is_written_as_soon_as_its_step_is_done(tmp_path):
  """While the loader is slow, not when the queue of steps is full."""
  written = []

  class Watching(Loader):
    def __next__(self):
      time.sleep(0.2)
      written.append(len(losses_of(tmp_path)))
      return super().__next__()

  train(
    experiment(
      open_loader=lambda split, **place: Watching(**place),
      num_train_steps=8,
      checkpoint_every=6,
    ),
    tmp_path,
  )
  assert all(rows >= asked - 1 for asked, rows in enumerate(written))
  # Nor does a row after a checkpoint claim a speed that the loader never has;
  # a step that is noticed late makes the next ones look faster.
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  speeds = [json.loads(x).get("perf/examples_per_sec", 0.0) for x in lines]
  assert 0 < max(speeds) < 2 * BATCH / 0.2


def test_a_new_run_starts_from_given_weights_and_a_resumed_one_goes_on(
  tmp_path,
):
  _, params, _ = nnx.split(Net(nnx.Rngs(7)), nnx.Param, ...)
  weights = {k: np.array(v) for k, v in names.flatten(params).items()}
  frozen = OptimizerConfig(learning_rate=1e-30, schedule="constant")
  given = experiment(
    first_weights=lambda: weights, optimizer=frozen, num_train_steps=1
  )
  state = train(given, tmp_path)
  for trained in (state.params, state.ema):
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-20)
    jax.tree.map(close, trained, params)

  def never():
    raise AssertionError("a run that goes on was started anew")

  state = train(experiment(first_weights=never, num_train_steps=3), tmp_path)
  assert int(state.step) == 3
  moved = jax.tree.map(
    lambda a, b: float(abs(a - b).max()), state.params, params
  )
  assert all(m > 0 for m in jax.tree.leaves(moved))


def test_the_validation_loss_is_of_the_same_clips_each_time(whole):
  """Against a mean by hand over the first batches, of raw and mean weights."""
  workdir, state, _ = whole
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = {
    row["step"]: row for row in map(json.loads, lines) if "eval/loss" in row
  }
  assert rows.keys() == {4}
  again = experiment(
    num_train_steps=7, eval_every=1, eval_batches=2, mesh=MeshConfig(**MESH)
  )
  copy = workdir.with_name("copy")
  shutil.copytree(workdir, copy)
  state = train(again, copy)
  row = [
    json.loads(x) for x in (copy / "metrics.jsonl").read_text().splitlines()
  ]
  row = [r for r in row if "eval/loss" in r][-1]
  assert row["step"] == 7
  assert restore_params(copy, step="best").step == 7
  graphdef = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)[0]
  data = rows_of(np.arange(2 * BATCH))
  for name, params in (("eval", state.params), ("eval_mean", state.ema)):
    model = nnx.merge(graphdef, params, state.buffers)
    losses = np.mean((np.asarray(model(data["x"])) - data["y"]) ** 2, axis=-1)
    assert row[f"{name}/loss"] == pytest.approx(losses.mean(), rel=1e-5)
    # A metric that some clips do not define is a mean over the others.
    assert row[f"{name}/odd"] == pytest.approx(losses[1::2].mean(), rel=1e-5)


def test_an_error_in_the_data_does_not_cost_the_steps_that_are_done(tmp_path):
  class Broken(Loader):
    def __next__(self):
      if self._step == 4:
        raise OSError("record 64 is damaged")
      return super().__next__()

  broken = experiment(
    open_loader=lambda split, **place: Broken(**place), checkpoint_every=100
  )
  with pytest.raises(OSError, match="record 64"):
    train(broken, tmp_path)
  assert list_steps(tmp_path / "checkpoints") == [4]
  assert int(train(experiment(), tmp_path).step) == 6


def break_from(step, call):
  """Returns a method that does what `call` does until it is given `step`."""

  def broken(self, number, *args):
    if number >= step:
      raise RuntimeError("the server sent no JSON")
    return call(self, number, *args)

  return broken


def test_a_logger_that_breaks_costs_no_step_and_one_line(
  tmp_path, monkeypatch, caplog
):
  monkeypatch.setattr(JsonlWriter, "write", break_from(3, JsonlWriter.write))
  assert int(train(experiment(checkpoint_every=100), tmp_path).step) == 6
  assert list_steps(tmp_path / "checkpoints") == [6]
  (said,) = [x for x in caplog.messages if "no JSON" in x]
  assert "metrics.jsonl cannot be written (RuntimeError: the server" in said
  assert len(losses_of(tmp_path)) == 2


def test_an_error_after_the_last_step_costs_no_step(tmp_path, monkeypatch):
  """As in what is counted for the last row, which is written before saving."""

  def broken(self, steps):
    raise RuntimeError("no clock")

  monkeypatch.setattr(Throughput, "eta", broken)
  with pytest.raises(RuntimeError, match="no clock"):
    train(experiment(checkpoint_every=100, log_every=100), tmp_path)
  assert list_steps(tmp_path / "checkpoints") == [6]


def test_an_error_after_a_ruinous_update_saves_nothing(tmp_path):
  """Which is judged only when the run ends: its step is still in flight."""

  class Broken(Loader):
    def __next__(self):
      if self._step == 5:
        raise OSError("record 80 is damaged")
      return super().__next__()

  broken = experiment(
    open_loader=lambda split, **place: Broken(**place),
    objective=Regression(poison=4),
    max_skipped_steps=1,
    checkpoint_every=3,
  )
  with pytest.raises(OSError, match="record 80"):
    train(broken, tmp_path)
  assert list_steps(tmp_path / "checkpoints") == [3]


def test_a_profile_of_some_steps_opens_in_xprof(tmp_path):
  """The file that TensorBoard's profile plugin and XProf look for."""
  train(experiment(profile=(2, 2)), tmp_path)
  (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
  assert trace.stat().st_size > 0
