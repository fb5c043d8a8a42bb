"""Files appear whole or not at all; phrases read as people write them."""

import hashlib

import pytest

from v2a_jax.basics import files, text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / "a.wav"
  path.write_text("old")
  with pytest.raises(RuntimeError), files.written(path) as part:
    part.write_text("ne")
    assert part.suffix == ".wav" and path.read_text() == "old"
    raise RuntimeError
  assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
  assert path.read_text() == "old"


def test_a_whole_write_replaces_the_old_file(tmp_path):
  path = tmp_path / "a.json"
  files.write_whole(path, "old")
  files.write_json(path, {"b": 1, "a": "ü"}, sort_keys=True)
  assert files.read_json(path) == {"a": "ü", "b": 1}
  assert path.read_text().index('"a"') < path.read_text().index('"b"')
  assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
  with pytest.raises(OSError):
    files.write_whole(tmp_path / "nowhere" / "a.json", "")


@pytest.mark.parametrize(
  "content, said", [(b"{", "is not JSON"), (b"[1]", "is not a JSON object"),
                    (b"\xff\xfe", "is not JSON")],
)  # fmt: skip
def test_what_is_no_json_object_is_refused_by_name(tmp_path, content, said):
  path = tmp_path / "a.json"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=said) as error:
    files.read_json(path)
  assert str(error.value).startswith(str(path))
  with pytest.raises(FileNotFoundError):
    files.read_json(tmp_path / "b.json")


def test_the_digest_is_that_of_all_bytes(tmp_path):
  data = bytes(range(256)) * 5000
  path = tmp_path / "a"
  path.write_bytes(data)
  assert files.sha256_of(path) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
  "seconds, shown",
  [(0, "0:00"), (59.6, "1:00"), (123, "2:03"), (3723, "1:02:03")],
)
def test_durations_are_shown_as_on_a_clock(seconds, shown):
  assert text.clock(seconds) == shown


def test_phrases_name_the_choices():
  assert text.one_of(["", "a", "b"]) == "is not one of '', a, b"
  assert text.did_you_mean("widht", ["width", "depth"]) == (
    ", did you mean width?"
  )
  assert text.did_you_mean("xyz", ["width", "depth"]) == ""
