"""WebDataset's archives: read where they are, and never believed."""

import io
import json
import os
import tarfile
import tempfile

import numpy as np
import pytest

from data_pipelines import archives, build
from data_pipelines.clips import ClipOptions
from data_pipelines.schema import DataError
from tests.data_pipelines.samples import FILE_RATE, click, read, write_clip
from v2a_jax import media

ALL = ClipOptions(val_fraction=0, test_fraction=0, allow_audio_only=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """Bytes of a film and of a sound."""
  folder = tmp_path_factory.mktemp("clips")
  film = write_clip(folder / "film.mp4", size=(16, 16))
  media.write_wav(folder / "sound.wav", click(0.5, 0.2), FILE_RATE)
  return film.read_bytes(), (folder / "sound.wav").read_bytes()


def put(tar, name, data=b"", **changes):
  header = tarfile.TarInfo(name)
  header.size = len(data)
  for key, value in changes.items():
    setattr(header, key, value)
  tar.addfile(header, io.BytesIO(data))


def made(folder, out, **settings):
  lines = []
  settings = {"options": ALL} | settings
  manifest = build.build_folder(folder, out=out, log=lines.append, **settings)
  return manifest, "\n".join(lines)


@pytest.fixture
def folder(tmp_path, clips):
  """An archive of three samples, and a plain file beside it."""
  film, sound = clips
  folder = tmp_path / "clips"
  (folder / "sub").mkdir(parents=True)
  with tarfile.open(folder / "sub/00.tar", "w") as tar:
    put(tar, "./a/17.mp4", film)
    put(tar, "./a/17.json", b'{"text": "rain", "tags": ["music"], "n": {}}')
    put(tar, "./a/17.txt", "Caf\xe9 in the rain\n".encode())
    put(tar, "18.take.wav", sound)
    put(tar, "18.take.txt", b"a click")
    put(tar, "18.take.json", b'{"caption": ["a tick", "a click"]}')
    put(tar, "19.json", b'{"caption": "no clip"}')
    put(tar, "20.MP4", film + b"\0")
    put(tar, "20.wav", sound)
  (folder / "plain.wav").write_bytes(sound + b"\0")
  return folder


def test_samples_become_records_with_what_is_said_of_them(folder, tmp_path):
  manifest, text = made(folder, tmp_path / "ds")
  records = read(tmp_path / "ds")
  assert set(records) == {
    "plain",
    "sub__00.tar__a__17",
    "sub__00.tar__18.take",
    "sub__00.tar__20",
  }
  film = records["sub__00.tar__a__17"]
  said = [film["caption"], *film["other_captions"]]
  assert "Caf\xe9 in the rain" in said and film["tags"] == ["music"]
  assert film["duration"] == pytest.approx(1.0, abs=0.01)
  sound = records["sub__00.tar__18.take"]
  assert sound["caption"] == "a click" and not sound["video"]
  assert sound["other_captions"] == ["a tick"]
  assert records["plain"]["caption"] == ""
  assert manifest["counts"]["items_seen"] == 4
  assert "1 media files and 1 archives" in text
  assert "with 3 clips in archives" in text
  assert "'20.wav': a second medium of its sample" in text
  assert set(folder.rglob("*.*")) == {
    *sorted(folder.glob("*.wav")),
    folder / "sub/00.tar",
  }


def test_a_member_gives_the_record_of_the_same_file(folder, tmp_path, clips):
  (tmp_path / "files").mkdir()
  (tmp_path / "files/x.mp4").write_bytes(clips[0])
  made(tmp_path / "files", tmp_path / "files_ds")
  made(folder, tmp_path / "ds")
  (plain,) = read(tmp_path / "files_ds").values()
  packed = read(tmp_path / "ds")["sub__00.tar__a__17"]
  for field in ("video", "audio", "duration", "sha256"):
    assert packed[field] == plain[field]


def test_a_table_goes_before_the_archives_own_texts(folder, tmp_path):
  table = tmp_path / "table.csv"
  table.write_text("file,caption,licence\n17,mine,CC0\nplain,other,\n")
  more = tmp_path / "more.csv"
  more.write_text("id,licence,source\n17,GPL,here\n")
  made(folder, tmp_path / "ds", captions_csv=[table, more])
  record = read(tmp_path / "ds")["sub__00.tar__a__17"]
  assert record["caption"] == "mine"
  assert "Caf\xe9 in the rain" in record["other_captions"]
  assert (record["licence"], record["source"]) == ("CC0", "here")
  assert record["tags"] == ["music"]


def test_a_build_is_done_until_the_archive_changes(folder, tmp_path, clips):
  made(folder, tmp_path / "ds")
  assert "already built" in made(folder, tmp_path / "ds")[1]
  with tarfile.open(folder / "sub/00.tar", "a") as tar:
    put(tar, "21.wav", clips[1] + bytes(3))
  manifest, text = made(folder, tmp_path / "ds")
  assert manifest["counts"]["items_seen"] == 5
  assert "4 clips were taken over from an earlier build, 1 were decoded" in text


@pytest.mark.parametrize(
  "name,changes,reason",
  [
    ("../17.wav", {}, "its name leads out of the archive"),
    ("a/../../17.wav", {}, "its name leads out of the archive"),
    ("/etc/17.wav", {}, "its name leads out of the archive"),
    ("a\\..\\17.wav", {}, "its name has characters of no file name"),
    ("17\x1b[2J.wav", {}, "its name has characters of no file name"),
    (
      "17.wav",
      {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
      "a link, device or file with holes",
    ),
    (
      "17.wav",
      {"type": tarfile.LNKTYPE, "linkname": "good.wav"},
      "a link, device or file with holes",
    ),
    ("17.wav", {"type": tarfile.CHRTYPE}, "a link, device or file with holes"),
    ("17.wav", {"type": tarfile.FIFOTYPE}, "a link, device or file with holes"),
    ("good.wav", {}, "a second one of the same name"),
    ("17.exe", {}, ".exe is not read"),
    ("17.txt", {"data": bytes(2 << 20)}, "a text of over 1 MiB"),
    ("17.json", {"data": b"[" * 100_000}, "not UTF-8, or not a JSON object"),
    ("17.txt", {"data": b"\xff\xfe"}, "not UTF-8, or not a JSON object"),
  ],
)
def test_members_that_play_tricks_are_left_out(
  tmp_path, clips, name, changes, reason
):
  folder = tmp_path / "clips"
  folder.mkdir()
  changes = {"data": b"" if "type" in changes else clips[1]} | changes
  with tarfile.open(folder / "00.tar", "w") as tar:
    put(tar, "good.wav", clips[1])
    put(tar, name, **changes)
    put(tar, "last.mp4", clips[0])
  found = archives.read_archive(folder, "00.tar")
  assert list(found.members) == ["00.tar/good.wav", "00.tar/last.mp4"]
  assert found.notes == (
    [f"00.tar: 1 members left out, such as {name!r}: {reason}"]
  )


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_an_archive_that_is_cut_off_gives_what_is_whole(tmp_path, clips, keep):
  with tarfile.open(tmp_path / "x.tar", "w") as tar:
    put(tar, "1.wav", clips[1])
    end = tar.offset
    put(tar, "2.wav", clips[1])
    size = tar.offset - end
  whole = (tmp_path / "x.tar").read_bytes()
  (tmp_path / "x.tar").write_bytes(whole[: end + int(size * keep)])
  found = archives.read_archive(tmp_path, "x.tar")
  assert "00" not in found.notes and "x.tar/1.wav" in found.members
  if keep < 0.9:
    assert "x.tar/2.wav" not in found.members
    assert any("cut off" in note for note in found.notes)


def test_a_damaged_header_is_said_and_ends_the_archive(tmp_path, clips):
  with tarfile.open(tmp_path / "x.tar", "w") as tar:
    put(tar, "1.wav", clips[1])
    end = tar.offset
    put(tar, "2.wav", clips[1])
  data = bytearray((tmp_path / "x.tar").read_bytes())
  data[end + 10] ^= 255
  (tmp_path / "x.tar").write_bytes(data)
  found = archives.read_archive(tmp_path, "x.tar")
  assert list(found.members) == ["x.tar/1.wav"]
  assert "the archive is cut or damaged" in found.notes[0]


def test_a_header_that_claims_much_memory_is_refused(tmp_path):
  """As PAX headers may, which tarfile reads whole."""
  header = tarfile.TarInfo("././@PaxHeader")
  header.type, header.size = tarfile.XHDTYPE, 1 << 30
  (tmp_path / "x.tar").write_bytes(header.tobuf() + bytes(1 << 16))
  with pytest.raises(DataError, match=r"a header of 1,073,741,824 bytes"):
    archives.read_archive(tmp_path, "x.tar")


@pytest.mark.parametrize("content", ["gz", "noise", "empty"])
def test_what_is_no_plain_tar_is_refused_in_a_line(tmp_path, clips, content):
  folder = tmp_path / "clips"
  folder.mkdir()
  if content == "gz":
    with tarfile.open(folder / "x.tar", "w:gz") as tar:
      put(tar, "1.wav", clips[1])
  else:
    size = 4096 if content == "noise" else 0
    (folder / "x.tar").write_bytes(np.random.default_rng(0).bytes(size))
  with pytest.raises(DataError) as error:
    made(folder, tmp_path / "ds")
  assert "x.tar" in str(error.value) and "plain tar file" in str(error.value)
  assert "\n" not in str(error.value)


def test_many_members_are_indexed_without_reading_them(tmp_path):
  """Of a gigabyte of clips only headers and texts are read."""
  texts = 200
  with open(tmp_path / "x.tar", "wb") as file:
    for i in range(texts):
      caption = json.dumps({"caption": f"clip {i}"}).encode()
      for name, said, size in (
        (f"{i}.wav", b"", 5 << 20),
        (f"{i}.json", caption, 0),
      ):
        header = tarfile.TarInfo(name)
        header.size = size or len(said)
        file.write(header.tobuf() + said)
        file.seek(-file.tell() % 512 if not size else size, os.SEEK_CUR)
    file.write(bytes(1024))  # The clips are holes: no disk is needed.
  before = _bytes_read()
  found = archives.read_archive(tmp_path, "x.tar")
  assert _bytes_read() - before < 8 << 20
  assert len(found.members) == texts and not found.notes
  assert found.rows[-1] == {
    "caption": f"clip {texts - 1}",
    "file": f"x.tar/{texts - 1}.wav",
  }


def _bytes_read() -> int:
  """Bytes that this process has asked the system for."""
  with open("/proc/self/io") as file:
    return int(dict(line.split(": ") for line in file)["rchar"])


def test_a_copy_is_gone_when_its_clip_is_read(folder, tmp_path, monkeypatch):
  scratch = tmp_path / "scratch"
  scratch.mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(scratch))
  made(folder, tmp_path / "ds")
  assert not list(scratch.glob("v2a-clip-*"))
