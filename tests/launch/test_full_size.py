"""The smallest of the full-size models, really built and trained for a step."""

import json

import pytest

from launch import quickstart


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["diffusion", "ar"])
def test_small_takes_a_step(arm, tmp_path):
  scenes, run = tmp_path / "scenes", tmp_path / "run"
  # Processes of their own, with one device: the tests' eight would need 20 GB.
  quickstart.v2a("data", "scenes", "-o", scenes, "--num", 8, "--seed", 0)
  quickstart.v2a(
    *("train", f"--config=configs/{arm}.py:small", f"--workdir={run}"),
    f"--config.data.paths=('{scenes}',)",
    "--config.data.batch_size=2",
    "--config.data.num_workers=0",
    "--config.num_train_steps=1",
    "--config.log_every=1",
    "--config.wandb_mode=disabled",
  )
  rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
  losses = [row["train/loss"] for row in rows if "train/loss" in row]
  assert len(losses) == 1 and 0 < losses[0] < 20
