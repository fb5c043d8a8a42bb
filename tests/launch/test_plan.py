"""`v2a plan` at the prompt, with libtpu's compiler."""

import json

import pytest

from launch import cli
from tests import for_tpus
from tests.launch.commands import refused, v2a

SMALL = [
  "--config=configs/diffusion_tiny.py",
  "--topology=v5e:2x2",
  "--config.mesh.fsdp=4",
  "--config.data.seconds=1.0",
  "--config.data.fps=4.0",
  "--config.model.width=32",
  "--config.model.num_heads=2",
  "--config.model.mlp_dim=48",
  "--config.model.unroll=1",
  # Quicker to compile: a block of each kind, no codec and small frames.
  "--config.codec=patches:16000:512:1",
  "--config.data.frame_size=16",
  "--config.model.depth=1",
  "--config.model.joint_depth=1",
  "--config.model.conditioner.spatial_depth=1",
  "--config.model.conditioner.temporal_depth=1",
]


def plan(*args):
  return v2a("plan", *SMALL, *args, env=for_tpus.ENV)


@for_tpus.needed
def test_a_step_is_compiled_for_tpus_that_are_not_here():
  end = plan("--json")
  assert end.returncode == 0, end.stderr
  found = json.loads(end.stdout)
  assert (found["topology"], found["chips"]) == ("v5e:2x2", 4)
  assert found["mesh"] == {"data": 1, "fsdp": 4, "context": 1, "tensor": 1}
  assert found["memory"]["capacity"] == 16 * 2**30
  assert 0 < found["memory"]["together"] < 2**30
  groups = {row["kind"]: row["group"] for row in found["collectives"]}
  assert groups["all-gather"] == groups["all-reduce"] == 4


@for_tpus.needed
def test_a_step_that_does_not_fit_ends_with_status_3_and_says_what_to_try():
  end = plan("--config.data.batch_size=400_000")
  assert end.returncode == 3, end.stderr
  assert "It does not fit." in end.stdout
  assert "--config.accumulate=" in end.stdout
  assert "--config.mesh.fsdp" not in end.stdout  # It splits all chips already.
  assert "parameters" in end.stdout


@for_tpus.needed
def test_a_shape_that_libtpu_refuses_is_one_line():
  end = v2a(
    *("plan", *SMALL, "--topology=v5e:3x5"),
    env=for_tpus.ENV,
  )
  assert end.returncode == 2 and not end.stdout
  assert "no topology v5e:3x5: " in end.stderr.splitlines()[-1]
  assert "slices of v5e are 1x1, 2x2, 2x4, 4x4" in end.stderr


def test_a_topology_that_does_not_exist_is_refused_with_those_that_do(capsys):
  said = refused(capsys, "plan", *SMALL, "--topology=v9:4x4")
  assert "no such chip" in said and "v5p:4x4x4" in said


def test_settings_that_a_plan_names_make_it_fit(capsys):
  args = ["plan", "--config=configs/diffusion_tiny.py", "--topology=h100:1"]
  large = "--config.data.batch_size=16384"
  assert cli.main([*args, large]) == 3
  lines = capsys.readouterr().out.splitlines()
  named = [line.strip() for line in lines if line.startswith("    --config.")]
  keys = [remedy.partition("=")[0] for remedy in named]
  assert keys[0] == "--config.accumulate"
  assert keys[-1] == "--config.data.batch_size"
  for remedy in (named[0], named[-1]):
    assert cli.main([*args, large, remedy]) == 0


def test_machines_of_gpus_are_planned_by_arithmetic(capsys):
  args = ["--config=configs/diffusion_tiny.py", "--config.data.batch_size=64"]
  args += ["--topology=h100:8", "--num_slices=2"]
  assert cli.main(["plan", *args, "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  weights = found["memory"]["parameters"]
  assert found["chips"] == found["mesh"]["data"] == 16
  # A sum over a ring of 16, and between two machines over 16 network cards.
  assert found["bounds"]["links"] == pytest.approx(
    2 * 15 / 16 * weights / 450e9
  )
  assert found["bounds"]["slices"] == pytest.approx(weights / 8 / 50e9)
  assert cli.main(["plan", *args]) == 0
  assert "there is no compiler for this chip here" in capsys.readouterr().out
  said = refused(capsys, "plan", *args, "--generate=2")
  assert "there is no compiler for h100" in said
  said = refused(capsys, "plan", *args, "--topology=h100:16")
  assert "machines of h100 have 1, 2, 4, 8 chips" in said


def test_a_missing_libtpu_is_said_with_its_remedy():
  end = v2a("plan", *SMALL)
  assert end.returncode == 2 and not end.stdout
  assert "pip install 'v2a_jax[plan]'" in end.stderr


@for_tpus.needed
def test_a_mesh_that_does_not_cover_the_chips_is_refused():
  end = plan("--config.mesh.fsdp=3")
  assert end.returncode == 2
  assert "choose sizes from [1, 2, 4]" in end.stderr.splitlines()[-1]
