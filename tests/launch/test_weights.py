"""`v2a weights`: what is here, what is missing, and what to do about it."""

import hashlib
import json
import pathlib
import re

import numpy as np
import pytest
from safetensors import numpy as safetensors

from launch import cli
from tests.codec import test_dac
from tests.launch.commands import refused, succeeds
from tests.weights.test_fetching import DATA, entries, server  # noqa: F401
from v2a_jax.weights import registry


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """An empty cache, no search path, and no way to the network."""
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("V2A_WEIGHTS", raising=False)
  for name in ("https_proxy", "HTTPS_PROXY"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")  # Nobody listens there.
  for name in ("no_proxy", "NO_PROXY"):
    monkeypatch.delenv(name, raising=False)
  return tmp_path / "cache" / "weights"


@pytest.fixture
def published(tmp_path, monkeypatch):
  """A registry with a file of six numbers, as PyTorch writes it."""
  torch = pytest.importorskip("torch", reason="writes the file")
  file = tmp_path / "tiny.pt"
  torch.save({"w": torch.arange(6.0).view(2, 3)}, file)
  entry = registry.Weights(
    name="tiny",
    file=file.name,
    sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    bytes=file.stat().st_size,
    url="https://127.0.0.1:9/tiny.pt",
    licence="MIT",
    about="six numbers",
  )
  monkeypatch.setitem(registry.WEIGHTS, "tiny", entry)
  return file


def test_the_list_says_what_is_missing_and_where_it_comes_from(cache, capsys):
  rows = json.loads(succeeds(capsys, "weights", "list", "--json"))
  row = {row["name"]: row for row in rows}["mn04"]
  assert (row["state"], row["path"]) == ("missing", "")
  assert row["licence"] == "MIT" and row["url"].startswith("https://")
  text = succeeds(capsys, "weights", "list")
  assert text.startswith("mn04: missing \n  EfficientAT")
  assert f"  MIT, {row['url']}\n  sha256 {row['sha256']}\n" in text
  assert "\n  md5 af93cde404179f58e3919ac085b8033b\n" in text
  assert "\nmmaudio:16k: lacks mmaudio_vae_16k, bigvgan_16k\n" in text


def test_the_list_shows_a_wrong_file_by_its_path(
  cache, tmp_path, monkeypatch, capsys
):
  file = tmp_path / "mn04_as_mAP_432.pt"
  file.write_bytes(b"something else")
  monkeypatch.setenv("V2A_WEIGHTS", str(tmp_path))
  row, *_ = json.loads(succeeds(capsys, "weights", "list", "--json"))
  assert (row["state"], row["path"]) == ("wrong", str(file))


def test_a_file_is_found_converted_and_listed(
  cache, published, monkeypatch, capsys
):
  monkeypatch.setenv("V2A_WEIGHTS", str(published.parent))
  assert f"\ntiny: found {published}\n  six numbers\n" in succeeds(
    capsys, "weights", "list"
  )
  path = succeeds(capsys, "weights", "convert", "tiny").strip()
  assert path == str(cache / "tiny.safetensors")
  np.testing.assert_array_equal(
    safetensors.load_file(path)["w"],
    np.arange(6, dtype=np.float32).reshape(2, 3),
  )
  monkeypatch.delenv("V2A_WEIGHTS")
  assert f"\ntiny: converted {path}\n" in succeeds(capsys, "weights", "list")


def test_a_named_file_goes_where_it_is_told(cache, published, tmp_path, capsys):
  out = tmp_path / "mine"
  path = succeeds(capsys, "weights", "convert", "tiny", published, "-o", out)
  assert path.strip() == str(out / "tiny.safetensors")
  assert not cache.exists()


@pytest.mark.parametrize(
  "args,words",
  [
    (["fetch", "mn05"], "no weights are named 'mn05', did you mean mn04?"),
    (
      ["convert", "zzz"],
      "no weights are named 'zzz'; there are: mn04, aisfx, ",
    ),
    (["convert", "mn04"], "weights 'mn04' not found (looked for "),
    (["convert", "mn04"], "run `v2a weights fetch mn04`, or download https://"),
    (["convert", "mn04", "no/such.pt"], "not found (looked for no/such.pt)"),
    (["convert", "mn04", __file__], f"{__file__}: sha256 is "),
    (["fetch", "mn04"], "could not be fetched from https://github.com/"),
    (
      ["fetch", "mn04"],
      "; download mn04_as_mAP_432.pt by other means and set V2A_WEIGHTS to",
    ),
    (
      ["fetch", "mmaudio:small_16k"],
      "add --accept_licence CC-BY-NC-4.0,apple-sample-code-license",
    ),
    (
      ["fetch", "mmaudio_vae_16k"],
      "under CC-BY-NC-4.0 (not for commercial use",
    ),
    (
      ["fetch", "mmaudio:16k", "--accept_licence=CC-BY-NC-4.0"],
      "; download v1-16.pth, best_netG.pt by other means and set V2A_WEIGHTS",
    ),
    (
      ["convert", "mmaudio:16k", "v1-16.pth"],
      "stands for 2 files: convert one by its own name, one of mmaudio_vae_16k,",
    ),
    (["convert", "mmaudio:16k"], "run `v2a weights fetch mmaudio_vae_16k`"),
    (["fetch"], "required: NAME (v2a weights fetch --help)"),
    (["export", "no/such", "-o", "x"], "no/such holds no config.json"),
    (["export", "x", "-o", "y", "--dtype=int8"], "int8 is not one of float32"),
    (["export", "x", "-o", "y", "--step=-1"], "-1 is not a whole number in"),
  ],
)
def test_an_error_is_one_line_that_says_what_to_do(
  args, words, cache, capsys, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  assert words in refused(capsys, "weights", *args)
  assert list(tmp_path.iterdir()) == []


def test_a_set_is_fetched_once_its_licence_is_accepted(entries, capsys):  # noqa: F811
  entries("b", licence="CC-BY-NC-4.0")
  line = refused(capsys, "weights", "fetch", "both")
  assert line.strip().endswith("add --accept_licence CC-BY-NC-4.0")
  flag = "--accept_licence=CC-BY-NC-4.0"
  paths = succeeds(capsys, "weights", "fetch", "both", flag).split()
  contents = [pathlib.Path(path).read_bytes() for path in paths]
  assert contents == [DATA, DATA[::-1]]
  assert "\nboth: complete\n" in succeeds(capsys, "weights", "list")


def test_a_command_is_needed(capsys):
  assert cli.main(["weights"]) == 2
  assert "\n  export     Write the averaged weights" in capsys.readouterr().out


def test_a_published_codec_is_calibrated_on_a_data_set(tmp_path, capsys):
  """Before it, a generator of its latents is refused."""
  scenes, folder = str(tmp_path / "scenes"), tmp_path / "dac"
  succeeds(capsys, *f"data scenes --num 8 --workers 1 -o {scenes}".split())
  folder.mkdir()
  test_dac.write(folder, test_dac.random_tensors(test_dac.CONFIG))
  inspect = ("inspect", "--config=configs/diffusion_tiny.py")
  inspect += (f"--config.codec={folder}",)
  line = refused(capsys, *inspect)
  assert "v2a weights calibrate FOLDER --set DIR" in line
  calibrate = ("weights", "calibrate", str(folder))
  out = succeeds(capsys, *calibrate, "--set", scenes, "--num_clips", "4")
  rank = re.search(r"variance fills (\d+\.\d) directions", out)[1]
  first = (folder / "calibration.safetensors").read_bytes()
  succeeds(capsys, *calibrate, "--set", scenes, "--num_clips", "4")
  assert (folder / "calibration.safetensors").read_bytes() == first
  assert f"effective rank {rank} " in succeeds(capsys, *inspect)
  assert "no finished data set" in refused(
    capsys, *calibrate, "--set", str(tmp_path)
  )
  assert "config.json" in refused(
    capsys, "weights", "calibrate", str(tmp_path), "--set", scenes
  )
