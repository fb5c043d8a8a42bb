"""`v2a inspect` at the prompt: a table, JSON, errors of one line."""

import json

import pytest

from launch import cli

DIFFUSION = "--config=configs/diffusion_tiny.py"
SMALL = [
  "--config.data.seconds=1.0",
  "--config.data.batch_size=4",
  "--config.data.paths=('no/such/data',)",
  "--config.model.width=32",
  "--config.model.mlp_dim=48",
  "--config.mesh.fsdp=2",
  "--devices=4",  # which are not here
]


def test_shows_a_table_and_the_same_as_json(capsys):
  assert cli.main(["inspect", DIFFUSION, *SMALL]) == 0
  table = capsys.readouterr().out
  assert cli.main(["inspect", DIFFUSION, *SMALL, "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
  assert found["memory"]["clips"] == 1
  assert f"{found['parameters']['total']:,}" in table
  assert all(len(line) <= 80 for line in table.splitlines())
  rows = [line.split() for line in table.splitlines()]
  for words in (
    ["joint", "depth", "2"],
    ["training", "3", "x", "forward"],
    ["optimizer", "moments"],
    ["frames", "[4", "25", "32", "32", "3]", "uint8"],
    ["waveform", "[4", "16384", "1]", "float32"],
  ):
    assert any(set(words) <= set(row) for row in rows), words


@pytest.mark.parametrize(
  "args,said",
  [
    ([], "--config="),
    ([DIFFUSION, "--jsn"], "did you mean json?"),
    ([DIFFUSION, "--devices=0"], "at least 1"),
    ([DIFFUSION, "--config.model.deth=3"], "did you mean depth?"),
    ([DIFFUSION, "--config.mesh.fsdp=-3"], "sizes are positive"),
    ([DIFFUSION, "--config.model.num_heads=0"], "cannot be built"),
    ([DIFFUSION, "--config.model.remat=some"], "'some' is not one of none"),
  ],
)
def test_an_error_is_one_line(args, said, capsys):
  assert cli.main(["inspect", *args]) == 2
  shown = capsys.readouterr()
  assert said in shown.err
  assert shown.err.startswith("v2a inspect: ")
  assert shown.err.count("\n") == 1
  assert not shown.out
