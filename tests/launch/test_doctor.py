"""`v2a doctor` answers on any machine, whatever is missing."""

import json
import os
import re
import subprocess
import sys

import pytest

from launch import doctor
from tests.launch.commands import ENV, ROOT, v2a


@pytest.fixture(scope="module")
def state():
  """What the doctor finds on this machine, where everything is installed."""
  run = v2a("doctor", "--json", "--strict")
  assert run.returncode == 0, run.stderr
  return json.loads(run.stdout)


@pytest.fixture
def bare(tmp_path):
  """Runs the doctor where no package is installed, in a folder of its own."""
  # -S leaves out site-packages; the children inherit none either.
  code = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "sys.executable = sys.argv[2];"
    "from launch import cli; sys.exit(cli.main(['doctor', *sys.argv[3:]]))"
  )
  python = tmp_path / "python"
  python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
  python.chmod(0o755)
  env = {k: v for k, v in ENV.items() if k != "PYTHONPATH"}
  return lambda *args: subprocess.run(
    [python, "-c", code, str(ROOT), str(python), *args],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=env,
  )


def test_names_devices_versions_memory_and_disk(state):
  import jax

  import v2a_jax

  assert state["devices"][0]["platform"] == "cpu"
  assert state["packages"]["jax"] == jax.__version__
  assert state["v2a_jax"] == v2a_jax.__version__
  assert state["missing"] == []
  assert state["cores"] == os.cpu_count()
  pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  assert state["memory_gb"] == pytest.approx(pages / 1e9, abs=0.1)
  assert state["disk"]["folder"] == str(ROOT)
  assert state["disk"]["free_gb"] > 0


def test_lists_weights_with_where_to_get_them(state):
  names = {row["name"]: row for row in state["weights"]}
  assert names["mn04"]["url"].startswith("https://")
  assert len(names["mn04"]["sha256"]) == 64


def test_lists_what_ships_and_the_codecs_that_soundtracks_need(state):
  assert {"codec_tiny", "diffusion_tiny"} <= set(state["bundles"])
  assert "h264" in state["codecs"]["decode"]
  assert "aac" in state["codecs"]["encode"]


def test_needed_packages_are_those_of_the_setup():
  """A package that is installed with this one, and nothing that is optional."""
  text = (ROOT / "setup.py").read_text()
  core = text[text.index("CORE =") : text.index("EXTRAS =")]
  names = {re.match(r"[\w-]+", name)[0] for name in re.findall('"(.+?)"', core)}
  assert names == set(doctor.NEEDED) - {"jaxlib"}  # A part of jax.
  extras = text[text.index("EXTRAS =") :]
  for name, purpose in doctor.OPTIONAL.items():
    assert f'"{name}' in extras
    assert purpose.startswith(("v2a ", "make test", "tests"))


def test_lines_for_a_person_say_the_same(state):
  lines = doctor.describe(state).splitlines()
  rows = dict(line.split(maxsplit=1) for line in lines[:9])
  assert rows["sandbox"] == state["sandbox"]["means"]
  assert rows["v2a_jax"] == state["v2a_jax"]
  assert rows["devices"].startswith(f"{len(state['devices'])} x cpu")
  assert rows["bundled"] == ", ".join(state["bundles"])
  assert "mn04" in rows["weights"]
  assert f"package    numpy {state['packages']['numpy']}" in lines
  assert lines[-1] == "all needed packages are installed"


def test_says_what_to_do_about_what_is_missing(state):
  packages = state["packages"] | {"soxr": None, "mir_eval": None}
  weights = [row | {"state": "missing", "path": ""} for row in state["weights"]]
  poor = state | {
    "packages": packages,
    "missing": ["soxr"],
    "weights": weights,
    "bundles": [],
    "disk": {"folder": "/data", "free_gb": 1.5},
    "devices": [{"platform": "gpu", "kind": "H100"}] * 2,
  }
  text = doctor.describe(poor)
  assert "\nMISSING    soxr\n" in text
  assert "\nabsent     mir_eval (optional: v2a eval; pip install" in text
  assert "\ndisk       1.5 GB free in /data, 8 GB are needed\n" in text
  names = ", ".join(row["name"] for row in weights)
  assert f"\nweights    missing {names} (v2a weights fetch NAME)\n" in text
  assert "\nbundled    no trained weights\n" in text
  assert "\ndevices    2 x gpu (H100)\n" in text
  assert re.search("\nnext       pip install '?jax|\nnext       pip .*'", text)


def test_works_with_every_package_missing(bare):
  run = bare()
  assert run.returncode == 0, run.stderr
  for package in doctor.NEEDED:
    assert f"MISSING    {package}\n" in run.stdout
  for part in ("devices", "codecs", "weights"):
    assert re.search(f"{part} +unknown: ModuleNotFoundError", run.stdout)
  assert run.stdout.splitlines()[-1].startswith("next       pip install")


def test_strict_ends_with_status_1_if_a_package_is_missing(bare):
  run = bare("--strict", "--json")
  assert run.returncode == 1
  assert json.loads(run.stdout)["missing"] == list(doctor.NEEDED)


def test_a_device_that_cannot_be_reached_is_a_line(tmp_path):
  run = v2a("doctor", cwd=tmp_path, env={"JAX_PLATFORMS": "nosuch"})
  assert run.returncode == 0, run.stderr
  assert re.search("^devices    unknown: .*nosuch", run.stdout, re.M)
  assert f"GB free in {tmp_path}" in run.stdout
  assert run.stdout.endswith("all needed packages are installed\n")
