"""`v2a doctor` answers on any machine, whatever is missing."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENV = {**os.environ, "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def found():
  run = subprocess.run(
    [sys.executable, "-m", "launch.doctor", "--json", "--strict"],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=ENV,
  )
  assert run.returncode == 0, run.stderr
  return json.loads(run.stdout)


def test_names_devices_versions_and_disk(found):
  assert found["devices"][0]["platform"] == "cpu"
  assert found["packages"]["jax"]
  assert found["missing"] == []
  assert found["disk"]["free_gb"] > 0


def test_lists_weights_with_where_to_get_them(found):
  names = {row["name"]: row for row in found["weights"]}
  assert names["mn04"]["url"].startswith("https://")
  assert len(names["mn04"]["sha256"]) == 64


def test_lists_the_codecs_that_soundtracks_need(found):
  assert "h264" in found["codecs"]["decode"]
  assert "aac" in found["codecs"]["encode"]


def test_works_with_every_package_missing(tmp_path):
  # -S leaves out site-packages; the children inherit none either.
  code = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "sys.executable = sys.argv[2];"
    "from launch import cli; sys.exit(cli.main(['doctor']))"
  )
  bare = tmp_path / "python"
  bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
  bare.chmod(0o755)
  run = subprocess.run(
    [bare, "-c", code, str(ROOT), str(bare)],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=ENV,
  )
  assert run.returncode == 0, run.stderr
  assert "MISSING    jax" in run.stdout
  assert "No module named 'jax'" in run.stdout
  assert "next       pip install" in run.stdout
