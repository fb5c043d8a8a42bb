"""`v2a inspect` at the prompt: a table, JSON, errors of one line."""

import contextlib
import io
import json
import re

import pytest

from launch import cli, inspect, table
from tests.launch.commands import refused
from v2a_jax.weights import bundle

DIFFUSION = "--config=configs/diffusion_tiny.py"
SMALL = [
  "--config.data.seconds=1.0",
  "--config.data.batch_size=4",
  "--config.data.paths=('no/such/data',)",
  "--config.model.width=32",
  "--config.model.mlp_dim=48",
  "--config.model.remat=full",
  "--config.mesh.fsdp=2",
  "--devices=4",  # which are not here
]
CODEC = [
  "--config=configs/codec_tiny.py",
  "--config.data.seconds=1.0",
  "--config.data.batch_size=2",
]


def rows_of(table: str) -> dict[str, list[str]]:
  """Returns the cells of each row of a table by the row's name."""
  lines = table.splitlines()
  assert all(len(line) <= 80 for line in lines)
  cells = (re.split(r"  +", line.strip()) for line in lines if line)
  return {name: rest for name, *rest in cells}


def run(*args) -> str:
  text = io.StringIO()
  with contextlib.redirect_stdout(text):
    assert cli.main(["inspect", *args]) == 0
  return text.getvalue()


@pytest.fixture(scope="module")
def costs():
  """Counts of a generator, from --json."""
  return json.loads(run(DIFFUSION, *SMALL, "--json"))


def test_a_generator_is_laid_out_on_devices_that_are_not_here(costs):
  assert costs["mesh"] == {"data": 2, "fsdp": 2, "context": 1, "tensor": 1}
  assert costs["memory"]["clips"] == 1
  rows = rows_of(inspect.describe(costs))
  assert rows["config"] == ["diffusion_tiny: dit, diffusion"]
  assert rows["batch"] == ["4 clips of 1 s"]
  assert rows["mesh"] == ["data 2, fsdp 2, context 1, tensor 1"]
  assert rows["joint"][-1] == rows["last_joint"][-1] == "depth 1"
  assert rows["together"][-1] != ""
  assert rows["frames"] == ["[4 25 32 32 3] uint8"]
  assert rows["waveform"] == ["[4 16384 1] float32"]


def test_the_table_shows_the_numbers_of_the_json(costs):
  rows, flops = rows_of(inspect.describe(costs)), costs["flops"]
  total = costs["parameters"]["total"]
  assert f"{total:,}" in inspect.describe(costs)
  parts = costs["parameters"]["parts"]
  assert sum(n for part, n in parts.items() if "/" not in part) == total
  for name in ("conditioner", "backbone", "forward", "training", "recomputed"):
    number, prefix = re.match(r"([\d.]+) ?(\w?)", rows[name][0]).groups()
    power = 1000 ** ["", "k", "M", "G", "T", "P"].index(prefix)
    assert float(number) * power == pytest.approx(flops[name], rel=6e-3)
  assert flops["recomputed"] > 0.1 * flops["forward"]
  assert flops["training"] > 2 * flops["forward"]
  # Streams of the conditioner stand below it.
  lines = [
    line.split()[0] for line in inspect.describe(costs).splitlines() if line
  ]
  begin = lines.index("FLOPs")
  below = lines[lines.index("conditioner", begin) + 1 :]
  assert below[: len(costs["encoder"])] == list(costs["encoder"])
  memory = costs["memory"]
  summed = ("parameters", "average", "optimizer", "buffers", "frozen_codec")
  summed += ("gradients",)
  assert memory["total"] == sum(memory[name] for name in summed)
  assert rows["frozen codec"] != rows["parameters"]


def test_the_rank_of_the_latents_is_that_of_the_codecs_bundle(costs):
  trained = bundle.read_config(bundle.find("codec_tiny"))["trained"]
  latents = costs["latents"]
  assert latents == {
    "channels": 32,
    "effective_rank": trained["effective_rank"],
  }
  assert 1 <= latents["effective_rank"] <= 32
  number, about = rows_of(inspect.describe(costs))["codec latents"]
  assert number == "32" and f"{latents['effective_rank']:.1f}" in about


def test_a_codec_has_rows_of_its_own():
  table = run(*CODEC)
  rows = rows_of(table)
  assert rows["config"] == ["codec_tiny: codec, codec"]
  assert {"encode", "quantize", "decode", "forward", "training"} <= set(rows)
  assert not {"conditioner", "backbone", "target", "recomputed"} & set(rows)
  assert rows["codes"] == ["[2 16 8] int32"]
  assert "discriminator" in rows and "frozen codec" not in rows
  headings = re.findall(r"^(?!config|batch|mesh)\w.*", table, re.M)
  assert headings == [
    "parameters",
    "FLOPs of a clip",
    "memory of a device, 2 clips at a time",
    "shapes of a batch",
  ]


@pytest.mark.parametrize(
  "number,unit,text",
  [
    (0, "", "0"),
    (999, "B", "999 B"),
    (1000, "", "1.00 k"),
    (12_345, "B", "12.3 kB"),
    (678_900_000, "", "679 M"),
    (2.5e13, "", "25.0 T"),
    (4e18, "B", "4000 PB"),
  ],
)
def test_numbers_have_three_digits_and_a_prefix(number, unit, text):
  assert table.short(number, unit) == text


@pytest.mark.parametrize(
  "override,words",
  [
    ("model.deth=3", "did you mean depth?"),
    ("mesh.fsdp=-3", "config.mesh.fsdp=-3 is not in [1, inf)"),
    ("model.num_heads=0", "config.model.num_heads=0 is not in [1, inf)"),
    ("model.num_heads=3", "config.model.num_heads=3 does not divide width=128"),
    ("model.remat=some", "config.model.remat='some' is not one of none"),
    ("codec=", "config.codec='': name the codec"),
    ("data.batch_size=3", "does not divide over"),
  ],
)
def test_an_error_is_one_line(override, words, capsys):
  args = [DIFFUSION, f"--config.{override}"]
  args += ["--config.mesh.fsdp=2"] * (override == "data.batch_size=3")
  line = refused(capsys, "inspect", *args)
  assert line.startswith("v2a inspect: ") and words in line


def test_devices_that_the_mesh_cannot_take_are_refused(capsys):
  args = [DIFFUSION, "--config.mesh.fsdp=3", "--devices=4"]
  assert "config.mesh" in refused(capsys, "inspect", *args)
