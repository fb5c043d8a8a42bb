"""Evaluations that end early go on; shards give what one process gives."""

import json
import os
import signal
import subprocess
import sys
import time

from flashes import RATE, Follower, clicks, evaluate_quickly
import numpy as np
import pytest
import soundfile
from test_new_metric import Peak

from tests.launch.commands import ENV, ROOT, succeeds
from v2a_jax.basics import claim
from v2a_jax.evaluation import parts, results
from v2a_jax.evaluation.metrics import METRICS, onsets
from v2a_jax.weights import registry as weights

SOME = ("onset_f1_50ms", "av_align", "silent", "level_error")
ROWS = ("generated", "ground_truth", "shuffled_video", "noise")
VARYING = ("created", "wall_seconds", "cost")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)


def evaluate(data, out, **settings):
  return evaluate_quickly(
    data,
    out,
    metrics=[m for m in METRICS if m.id in SOME],
    **{"num_clips": None, "batch_size": 2, "rows": ROWS} | settings,
  )


def lasting(content):
  return {k: v for k, v in content.items() if k not in VARYING}


class Killed(Follower):
  """A model whose process ends at the second batch."""

  def sample(self, cond, **settings):
    if len(self.seeds) == 3:
      raise KeyboardInterrupt
    return super().sample(cond, **settings)


def test_a_killed_evaluation_goes_on_with_the_same_numbers(data, tmp_path):
  whole = evaluate(data, tmp_path / "whole")
  out = tmp_path / "out"
  with pytest.raises(KeyboardInterrupt):
    evaluate(data, out, tracker=Killed(data))
  assert not (out / results.FILE).exists()
  first, *_ = made = sorted(out.glob("parts/*/part_*.npz"))
  assert 0 < len(made) < 3
  log, follower = [], Follower(data)
  again = evaluate(data, out, tracker=follower, log=log.append)
  assert lasting(again) == lasting(whole)
  assert any("2 clips were scored before" in line for line in log)
  assert len(follower.seeds) < 6  # The first batch was not made again.
  assert not (out / "parts").exists()


def test_parts_of_other_settings_are_named_and_kept(data, tmp_path):
  whole, out, log = evaluate(data, tmp_path / "whole"), tmp_path / "out", []
  with pytest.raises(KeyboardInterrupt):
    evaluate(data, out, tracker=Killed(data), noise_seed=3)
  (part,) = out.glob("parts/*/part_*.npz")
  again = evaluate(data, out, log=log.append)
  assert lasting(again) == lasting(whole)
  (line,) = [line for line in log if "were scored with other settings" in line]
  assert f"1 parts in {part.parent}" in line and "(seeds)" in line
  assert part.exists() and len([*out.glob("parts/*/part_*.npz")]) == 1
  # The results say whose they are; with them away, the first goes on.
  (out / results.FILE).unlink()
  log.clear()
  evaluate(data, out, noise_seed=3, log=log.append)
  assert any("2 clips were scored before" in line for line in log)
  assert not (out / "parts").exists()


def test_only_sources_decide_whether_parts_are_of_the_same_code(tmp_path):
  package = tmp_path / "package"
  (package / "deep").mkdir(parents=True)
  source = package / "deep" / "a.py"
  source.write_text("x = 1\n")
  before = results.sources_digest(package)
  (package / "notes.md").write_text("a commit of docs")
  assert results.sources_digest(package) == before
  source.write_text("x = 2\n")
  assert results.sources_digest(package) != before
  source.write_text("x = 1\n")
  assert results.sources_digest(package) == before
  source.rename(package / "deep" / "b.py")
  assert results.sources_digest(package) != before


def test_a_damaged_part_is_made_anew(data, tmp_path):
  whole, out, log = evaluate(data, tmp_path / "whole"), tmp_path / "out", []
  with pytest.raises(KeyboardInterrupt):
    evaluate(data, out, tracker=Killed(data))
  (part,) = out.glob("parts/*/part_*.npz")
  part.write_bytes(part.read_bytes()[:200])
  again = evaluate(data, out, log=log.append)
  assert lasting(again) == lasting(whole)
  assert any("cannot be read" in line for line in log)


def test_shards_give_what_one_process_gives(data, tmp_path):
  whole, out = evaluate(data, tmp_path / "whole"), tmp_path / "out"
  assert evaluate(data, out, shard=(2, 2)) is None
  assert not (out / results.FILE).exists()
  assert lasting(evaluate(data, out, shard=(1, 2))) == lasting(whole)
  # Who comes late finds the results.
  assert lasting(evaluate(data, out, shard=(2, 2))) == lasting(whole)


def test_one_process_writes_to_a_folder(data, tmp_path):
  with claim.held(tmp_path / "out"):
    with pytest.raises(claim.ClaimedError, match="is being written by"):
      evaluate(data, tmp_path / "out")


def test_other_settings_are_not_written_over(data, tmp_path):
  evaluate(data, tmp_path)
  before = (tmp_path / results.FILE).read_bytes()
  with pytest.raises(ValueError, match=r"other settings \(seeds\)"):
    evaluate(data, tmp_path, noise_seed=1)
  assert (tmp_path / results.FILE).read_bytes() == before


def test_sounds_that_are_kept_can_be_judged_again(data, tmp_path, capsys):
  out = tmp_path / "out"
  evaluate(data, out, keep_sounds=True)
  kept = sorted(p.name for p in (out / "sounds" / "generated").iterdir())
  assert kept == [f"clip{i}.flac" for i in range(5)]
  sound, _ = soundfile.read(out / "sounds" / "generated" / kept[0])
  assert np.abs(sound).max() > 0.1
  again = tmp_path / "again"
  kept = out / "sounds" / "generated"
  succeeds(capsys, "eval", f"--outputs=kept={kept}", "--set", data, "-o", again)
  f1 = lambda folder: [
    row["metrics"]["onset_f1_50ms"]["value"]
    for row in json.loads((folder / results.FILE).read_text())["rows"]
    if row["name"] == "generated"
  ]
  assert f1(again) == f1(out)


def test_seeds_decide_what_their_names_say(data, tmp_path):
  def noise(**seeds):
    content = evaluate_quickly(
      data,
      tmp_path / str(seeds),
      metrics=[Peak()],
      num_clips=None,
      rows=["noise"],
      **seeds,
    )
    return [clip["scores"]["noise"]["peak"] for clip in content["clips"]]

  first = noise()
  assert noise(interval_seed=1) == noise(seed=1) == first
  assert noise(noise_seed=1) != first


@pytest.mark.parametrize(
  "state",
  [
    *(0.1, np.float32(0.1), True, "text", None, [1, 2.5], (3, "x"), {"a": 1}),
    onsets.Counts(1, 2, 3),
    np.array([[1.5, np.nan]], np.float32),
  ],
)
def test_what_metrics_keep_is_written_without_loss(state):
  back = parts.from_json(json.loads(json.dumps(parts.to_json(state))))
  np.testing.assert_equal(back, state)
  assert isinstance(back, type(state)) or isinstance(state, np.generic)


def test_parts_name_no_code_of_others():
  state = {"class": ["subprocess", "Popen"], "fields": {"args": ["true"]}}
  with pytest.raises(ValueError, match="no dataclass"):
    parts.from_json(state)


def test_a_process_that_is_killed_and_started_again(data, tmp_path, capsys):
  sounds = tmp_path / "sounds"
  sounds.mkdir()
  for i in range(5):
    soundfile.write(sounds / f"clip{i}.wav", clicks([0.3]), RATE)
  args = [
    *("eval", "--outputs", sounds, "--set", data, "-o", tmp_path / "out"),
    *("--batch_size=1", "--gallery_clips=0", "--rows=generated,ground_truth"),
  ]
  command = [sys.executable, "-m", "launch.cli", *map(str, args)]
  env = ENV | {"V2A_CACHE": os.environ["V2A_CACHE"]}
  env.pop(weights.PATH_VARIABLE, None)
  process = subprocess.Popen(command, cwd=ROOT, env=env)
  until = time.monotonic() + 120
  while not [*tmp_path.glob("out/parts/*/part_*.npz")]:
    assert process.poll() is None and time.monotonic() < until
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  shown = succeeds(capsys, *args)
  assert "scored before" in shown or "there already" in shown
  content = json.loads((tmp_path / "out" / results.FILE).read_text())
  assert content["set"]["n"] == 5
