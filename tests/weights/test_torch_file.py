"""The reader of torch checkpoints against torch itself, and against attacks."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest

from v2a_jax.weights import torch_file

torch = pytest.importorskip("torch")


def _saved(tmp_path, content):
  path = tmp_path / "weights.pt"
  torch.save(content, path)
  return path


def _with_program(tmp_path, program: bytes, entries=()):
  path = tmp_path / "forged.pt"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a/data.pkl", program)
    for name, data in entries:
      archive.writestr(name, data)
  return path


def test_reads_what_torch_reads(tmp_path):
  base = torch.arange(24, dtype=torch.float32)
  content = {
    "plain": torch.randn(3, 4),
    "transposed": torch.randn(3, 4).T,
    "offset": base[5:17].view(3, 4),
    "shared": base.view(4, 6),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "half": torch.randn(5).half(),
    "double": torch.randn(2).double(),
    "bytes": torch.tensor([1, 255], dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
  }
  read = torch_file.read(_saved(tmp_path, content))
  assert read.keys() == content.keys()
  for name, tensor in content.items():
    np.testing.assert_array_equal(read[name], tensor.numpy(), err_msg=name)
    assert read[name].dtype == tensor.numpy().dtype, name


def test_reads_bfloat16_and_nested_checkpoints(tmp_path):
  value = torch.tensor([1.5, -2.25]).bfloat16()
  content = {"model": {"w": value}, "epoch": 3, "names": ["a"], "lr": 0.1}
  read = torch_file.read(_saved(tmp_path, content))
  assert list(read) == ["model.w"]
  np.testing.assert_array_equal(
    read["model.w"].astype(np.float32), [1.5, -2.25]
  )


def test_reads_a_modules_state_dict(tmp_path):
  module = torch.nn.Sequential(
    torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)
  )
  state = module.state_dict()
  assert isinstance(state, collections.OrderedDict)
  read = torch_file.read(_saved(tmp_path, state))
  for name, tensor in state.items():
    np.testing.assert_array_equal(read[name], tensor.numpy())


def test_reads_files_of_before_pytorch_1_6(tmp_path):
  base = torch.arange(12.0)
  content = {"model": {"w": base.view(3, 4).T, "half": base[2:5].half()}}
  path = tmp_path / "old.pth"
  torch.save(
    (content, {"classes": np.int64(3)}),
    path,
    _use_new_zipfile_serialization=False,
  )
  read = torch_file.read(path)
  assert list(read) == ["0.model.w", "0.model.half"]
  np.testing.assert_array_equal(read["0.model.w"], content["model"]["w"])
  np.testing.assert_array_equal(read["0.model.half"], content["model"]["half"])
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(torch_file.TorchFileError, match="old.pth"):
    torch_file.read(path)


class _Attack:
  def __init__(self, path):
    self._path = path

  def __reduce__(self):
    return open, (self._path, "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_runs_no_code(tmp_path, protocol):
  target = tmp_path / "written"
  program = pickle.dumps({"w": _Attack(str(target))}, protocol=protocol)
  with pytest.raises(torch_file.TorchFileError, match="forged.pt.*holds"):
    torch_file.read(_with_program(tmp_path, program))
  assert not target.exists()


def _tensor_program(offset, shape, strides, count):
  """A hand-written state dict, in which numbers can be wrong."""
  out = io.BytesIO()

  class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
      if isinstance(obj, str) and obj == "STORAGE":
        return ("storage", torch.FloatStorage, "0", "cpu", count)

  class Tensor:
    def __reduce__(self):
      arguments = ("STORAGE", offset, shape, strides, False, {})
      return torch._utils._rebuild_tensor_v2, arguments

  Pickler(out, protocol=2).dump({"w": Tensor()})
  return out.getvalue()


def test_a_hand_written_program_is_read(tmp_path):
  program = _tensor_program(1, (2, 2), (2, 1), 5)
  data = np.arange(5, dtype=np.float32)
  path = _with_program(tmp_path, program, [("a/data/0", data.tobytes())])
  np.testing.assert_array_equal(torch_file.read(path)["w"], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
  "numbers",
  [
    (0, (2, 3), (3, 1), 5),
    (4, (2,), (1,), 5),
    (-1, (2,), (1,), 5),
    (4, (2,), (-1,), 5),
    (0, (1 << 40,), (0,), 5),
    (0, (2,), (1,), 50),
  ],
)
def test_sizes_beyond_the_storage_are_refused(tmp_path, numbers):
  data = np.arange(5, dtype=np.float32).tobytes()
  path = _with_program(
    tmp_path, _tensor_program(*numbers), [("a/data/0", data)]
  )
  with pytest.raises(torch_file.TorchFileError, match="forged.pt"):
    torch_file.read(path)


def test_damage_is_one_line_with_the_name(tmp_path):
  whole = _saved(tmp_path, {"w": torch.randn(64)}).read_bytes()
  for name, data in {"cut": whole[: len(whole) // 2], "empty": b""}.items():
    path = tmp_path / f"{name}.pt"
    path.write_bytes(data)
    with pytest.raises(torch_file.TorchFileError, match=name) as caught:
      torch_file.read(path)
    assert "\n" not in str(caught.value)


def test_compressed_entries_are_refused(tmp_path):
  path = tmp_path / "bomb.pt"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a/data.pkl", b"\0" * 100000)
  with pytest.raises(torch_file.TorchFileError, match="compressed"):
    torch_file.read(path)


def _nested(depth: int, inner, *, wrap):
  """An object in which each level holds the one below twice."""
  for _ in range(depth):
    inner = wrap(inner)
  return inner


def _loop():
  tree: dict = {}
  tree["again"] = tree
  return tree


@pytest.mark.parametrize(
  "content",
  [
    _nested(64, {}, wrap=lambda x: {"a": x, "b": x}),
    _loop(),
  ],
)
def test_a_small_file_that_expands_for_ever_is_refused(tmp_path, content):
  program = pickle.dumps(content, protocol=2)
  path = _with_program(tmp_path, program)
  assert path.stat().st_size < 4096
  with pytest.raises(torch_file.TorchFileError, match="again and again"):
    torch_file.read(path)


def _doubled_tuples(end: bytes) -> bytes:
  """A program whose stack holds 2^60 tuples, made of 60 references."""
  steps = (b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
  return b"\x80\x02})" + b"".join(steps) + end


@pytest.mark.parametrize("end", [b"Ns.", b"Q.", b")R.", b"\x85R."])
def test_references_to_references_are_not_followed(tmp_path, end):
  with pytest.raises(torch_file.TorchFileError, match="forged.pt"):
    torch_file.read(_with_program(tmp_path, _doubled_tuples(end)))


def test_tensors_that_share_a_storage_are_bounded_by_the_file(tmp_path):
  program = _tensor_program(0, (1 << 18,), (1,), 1 << 18)
  # The program makes a tensor of the same storage once more for each REDUCE.
  begin = program.index(b"ctorch._utils")
  end = program.index(b"R", program.index(b"Q")) + 1
  once = program[begin:end]
  # Memo numbers may be set again.
  body = b"".join(b"X\x04\0\0\0%04d" % i + once + b"s" for i in range(100))
  data = bytes(4 << 18)
  path = _with_program(
    tmp_path, b"\x80\x02}" + body + b".", [("a/data/0", data)]
  )
  with pytest.raises(torch_file.TorchFileError, match="16 times the size"):
    torch_file.read(path)
