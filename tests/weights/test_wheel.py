"""Weights in a Python package: pip brings the wheel, a safe reader its tensors."""

import base64
import hashlib
import zipfile

import numpy as np
import pytest

from v2a_jax.weights import fetching, reading
from v2a_jax.weights import registry as weights

torch = pytest.importorskip("torch", reason="writes the checkpoint")
FILE, MEMBER = "tinyfx-1.0-py3-none-any.whl", "tinyfx/model.pth"


def _write_wheel(path, checkpoint: bytes):
  """Writes a package that pip accepts, with a checkpoint in it."""
  info = "tinyfx-1.0.dist-info"
  entries = {
    MEMBER: checkpoint,
    f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinyfx\nVersion: 1.0\n"
    b"Requires-Dist: no-such-package==0.0.1\n",
    f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
    b"Tag: py3-none-any\n",
  }
  record = ""
  for name, data in entries.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    record += f"{name},sha256={digest.decode().rstrip('=')},{len(data)}\n"
  entries[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data in entries.items():
      archive.writestr(name, data)


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A folder that pip takes packages from, with one wheel; the registry."""
  folder = tmp_path / "index"
  folder.mkdir()
  checkpoint = tmp_path / "model.pth"
  sizes = {"a": np.int64(3), "b": [np.float32(0.5)]}  # As pickle, not tensors.
  torch.save(({"net.w": torch.arange(6.0).view(2, 3)}, sizes), checkpoint)
  data = checkpoint.read_bytes()
  _write_wheel(folder / FILE, data)
  entry = weights.Weights(
    name="tinyfx",
    file=FILE,
    member=MEMBER,
    package="tinyfx==1.0",
    sha256=hashlib.sha256(data).hexdigest(),
    bytes=len(data),
    url=f"https://127.0.0.1:9/{FILE}",
    licence="CC-BY-4.0",
    credit="A. Author",
    about="six numbers in a wheel",
  )
  monkeypatch.setitem(weights.WEIGHTS, "tinyfx", entry)
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
  return folder


def test_pip_brings_the_wheel_and_its_tensors_are_read(index):
  (path,) = fetching.fetch("tinyfx")
  assert path == weights.cache_dir() / FILE == weights.find("tinyfx")
  loaded = weights.load("tinyfx")
  assert list(loaded) == ["0.net.w"]
  np.testing.assert_array_equal(loaded["0.net.w"], np.arange(6.0).reshape(2, 3))
  path.unlink()
  np.testing.assert_array_equal(weights.load("tinyfx")["0.net.w"].sum(), 15)


def test_other_content_of_the_same_name_is_not_kept(index):
  _write_wheel(index / FILE, b"something else")
  with pytest.raises(weights.WrongWeightsError, match="nothing was kept"):
    fetching.fetch("tinyfx")
  assert not weights.cache_dir().exists()


def test_without_an_index_the_error_is_one_line(index):
  (index / FILE).unlink()
  with pytest.raises(OSError) as caught:
    fetching.fetch("tinyfx")
  message = str(caught.value)
  assert "pip download tinyfx==1.0" in message and "\n" not in message
  assert weights.PATH_VARIABLE in message


def test_a_member_that_unpacks_to_more_is_refused(index):
  _write_wheel(index / FILE, bytes(1 << 24))
  with pytest.raises(weights.WrongWeightsError, match="sha256 is"):
    weights.find("tinyfx", index / FILE)


class _Attack:
  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return open, (self._path, "w")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
  source, target = tmp_path / "model.pth", tmp_path / "model.safetensors"
  torch.save({"w": _Attack(str(tmp_path / "written"))}, source)
  with pytest.raises(reading.UnreadableError, match="model.pth.*holds"):
    reading.to_safetensors(source, target)
  assert not target.exists() and not (tmp_path / "written").exists()
