"""The API under abuse and accidents: what is refused, and what survives."""

from concurrent import futures
import fractions
import http.client
import io
import json
import pathlib
import signal
import struct
import subprocess
import sys
import urllib.error
import zipfile
import zlib

import av
import numpy as np
import pytest

from launch import generate, parsing
from tests.processes import ENVIRONMENT, ROOT
from tests.service.conftest import Served
from v2a_jax import media, watermark
from v2a_jax.service.command import command
from v2a_jax.service.store import safe_name
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request

QUICK = {"num_candidates": 1, "sampler": {"num_steps": 1}}


def job(served, video: str, **fields) -> dict:
  request = QUICK | fields.pop("request", {})
  body = {"video": video, "request": request} | fields
  return served.ask("POST", "/api/jobs", body)


def test_the_api_is_described_with_the_names_of_the_command(served):
  found = served.ask("GET", "/openapi.json")
  request = found["components"]["schemas"]["Request"]["properties"]
  assert {"prompt", "negative_prompt", "num_candidates", "seed"} <= set(request)
  assert request["prompt"]["description"].startswith("description of the sound")
  # No client names a file of this machine.
  assert not {"audio", "like"} & set(request)
  assert {"/api/jobs", "/api/videos", "/api/export"} <= set(found["paths"])


def test_a_job_is_made_like_its_command(served, clip, tmp_path):
  video = served.upload(clip)
  assert video["duration"] == pytest.approx(2.0) and video["has_audio"]
  words = {"request": {"words": [{"word": "hi", "start": 0.5}], "seed": 3}}
  made = served.wait(job(served, video["id"], **words)["id"])
  (take,) = made["takes"]
  assert made["state"] == "done" and take["seed"] == 3 and take["watermark"]
  data = served.ask("GET", f"/api/jobs/{made['id']}/takes/3/sound", raw=True)
  path = tmp_path / "take.wav"
  path.write_bytes(data)
  assert len(media.read_audio(path, sample_rate=48_000).samples) == 96_000
  # A range, as players ask for.
  part = served.ask(
    "GET",
    f"/api/videos/{video['id']}/picture",
    headers={"range": "bytes=10-19"}.items(),
    raw=True,
  )
  assert part == clip.read_bytes()[10:20]


def test_where_in_a_sound_the_mark_is_is_answered(served, tmp_path):
  rng = np.random.default_rng(0)
  sound = (0.1 * rng.standard_normal((7 * 16_000, 1))).astype(np.float32)
  sound[32_000:80_000] = watermark.embed(sound[32_000:80_000], 16_000)
  media.write_wav(tmp_path / "cut.wav", sound, 16_000)
  data = (tmp_path / "cut.wav").read_bytes()
  found = served.ask("POST", "/api/detect?name=cut.wav", data)
  (place,) = found["places"]
  assert place["start"] == pytest.approx(2, abs=0.13)
  assert place["end"] == pytest.approx(5, abs=0.13)


def test_layers_are_exported_with_their_stems(served, clip):
  video = served.upload(clip)["id"]
  layers = {"layers": [["effects", "a door"], ["music", "strings"]]}
  made = served.wait(job(served, video, request=layers)["id"])
  assert made["state"] == "done", made["error"]
  body = {"takes": [{"job": made["id"], "seed": 0}]}
  data = served.ask("POST", "/api/export", body, raw=True)
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    names = [pathlib.PurePath(name).name for name in archive.namelist()]
  stem = "a door__c01_s0000"
  assert {f"{stem}__music.wav", f"{stem}__effects.wav"} < set(names)


def test_what_is_kept_of_a_sound_is_its_own_and_has_its_length_to_be_made(
  served, clip, tmp_path
):
  """A video's own sound, named by its id, without the page."""
  video = served.upload(clip)["id"]
  request = {"regenerate": [[1.0, 1.5]], "audio_track": 0}
  asked = {"audio": video, "request": request}
  made = served.wait(
    job(served, video, **asked, delivery={"mark": False})["id"]
  )
  assert made["state"] == "done", made["error"]
  command_ = f"/api/jobs/{made['id']}/takes/0/command"
  line = served.ask(
    "GET", f"{command_}?container=mkv&loudness=-16&timeline=edl"
  )
  line = line["command"]
  assert "--audio 'a door.mp4' --audio_track 0 --regenerate 1-1.5" in line
  assert "--container mkv" in line and "--timeline edl" in line
  assert "--loudness=-16" in line and str(served.root) not in line
  assert served.refused("GET", f"{command_}?container=avi")[0] == 422
  sound = f"/api/jobs/{made['id']}/takes/0/sound"
  (tmp_path / "take.wav").write_bytes(served.ask("GET", sound, raw=True))
  read = lambda path: media.read_audio(path, sample_rate=16_000).samples[:, 0]
  take, own = read(tmp_path / "take.wav"), read(clip)[:32_000]
  off = abs(take[: len(own)] - own)
  assert off[200:15_500].max() < 0.01 < off[17_000:23_000].max()


@pytest.mark.parametrize(
  "request_,delivery",
  [
    (Request(), DeliveryOptions()),
    (
      Request(layers=(("music", "slow: strings"), ("effects", ""))),
      DeliveryOptions(original="duck", duck=6.0, sound_file="flac"),
    ),
    (
      Request(
        prompt="rain; rm -rf ~ 'x' \"y\"",
        negative_prompt="-music",
        speech=False,
        music=True,
        seed=7,
        retries=2,
        prompts=((0.5, 2.25, "a: b"),),
        audio="film.mov",
        regenerate=((1.0, 2.0), (103.12345, 104.0)),
        rank_by=("motion_onset", "no_speech"),
        sampler={"num_steps": 8, "guidance": {"video": 2.51234567}},
      ),
      DeliveryOptions(
        loudness=-23.0, true_peak=-2.0, timeline=("edl", "otio"), mark=False
      ),
    ),
  ],
  ids=["plain", "layers", "all"],
)
def test_a_command_asks_for_the_same(request_, delivery, tmp_path, monkeypatch):
  import shlex

  monkeypatch.chdir(tmp_path)
  pathlib.Path("film.mov").touch()
  line = shlex.split(command("film.mov", request_, delivery))
  assert line[:2] == ["v2a", "generate"]
  parser = parsing.Parser("x", "x", generate.ARGUMENTS, "x")
  (typed,) = generate.typed_jobs(parser.parse(line[2:]))
  again = Request(**typed.request)
  lists = lambda x: json.dumps(x, default=vars)
  assert lists(again) == lists(request_)
  assert DeliveryOptions(**typed.delivery) == delivery


@pytest.mark.parametrize(
  "method,path,body,status,words",
  [
    ("GET", "/api/jobs/..%2f..%2fetc", None, 404, ""),
    ("GET", "/api/videos/" + "0" * 32, None, 404, "no video has this id"),
    ("POST", "/api/videos?name=a.mp4", b"not a video", 422, "a.mp4: cannot be"),
    ("POST", "/api/videos?name=a.mp4", b"", 422, "a.mp4: is empty"),
    ("POST", "/api/transcript", b"hello", 422, "has no spoken words"),
    ("POST", "/api/jobs", {"video": "x", "request": {"audio": "/x"}}, 422, ""),
    ("POST", "/api/jobs", {"video": "x", "audio": "/x"}, 404, "no video has"),
    ("POST", "/api/export", {"takes": []}, 422, ""),
  ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(
  served, method, path, body, status, words
):
  code, detail = served.refused(method, path, body)
  assert code == status and words in str(detail)
  assert str(served.root) not in str(detail)
  left = [p for p in (served.root / "videos").iterdir() if not any(p.iterdir())]
  assert not left


@pytest.mark.parametrize(
  "fields,words",
  [
    ({"request": {"num_candidates": 17}}, "num_candidates: 17, at most 16"),
    ({"request": {"sampler": {"num_steps": 10**9}}}, "num_steps: 1e+09, at most"),
    ({"request": {"sampler": {"solver": "x"}}}, "solver='x' is not one of"),
    ({"request": {"prompts": [[2, 1, "x"]]}}, "is not a span in seconds"),
    ({"delivery": {"loudness": 5}}, "loudness=5.0 is not in"),
    ({"like": "0" * 32}, "no video has this id"),
    ({"base": {"job": "0" * 32, "seed": 1}}, "no job has this id"),
    ({"audio": "0" * 32}, "no video has this id"),
    ({"audio": "../../etc/passwd"}, "no video has this id"),
    ({"audio": "0" * 32, "base": {"job": "0" * 32, "seed": 1}}, "choose one"),
    ({"request": {"audio_track": 0}}, "it needs audio"),
    ({"request": {"regenerate": [[0, 1]], "audio_track": 3}}, "another number"),
  ],
)  # fmt: skip
def test_a_job_that_cannot_be_done_is_refused(served, clip, fields, words):
  video = served.upload(clip)["id"]
  before = set((served.root / "jobs").iterdir())
  request = QUICK | fields.pop("request", {})
  body = {"video": video, "request": request} | fields
  code, detail = served.refused("POST", "/api/jobs", body)
  assert code in (404, 422) and words in detail
  assert set((served.root / "jobs").iterdir()) == before


def test_ten_gigabytes_are_refused_before_they_are_sent(served):
  connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
  connection.putrequest("POST", "/api/videos?name=a.mp4")
  connection.putheader("content-length", str(10 << 30))
  connection.endheaders()
  assert connection.getresponse().status == 413
  # Nor without saying so beforehand.
  connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
  chunk, sent = b"\0" * (1 << 20), 0

  def chunks():
    nonlocal sent
    for _ in range(200):
      sent += len(chunk)
      yield chunk

  try:
    connection.request("POST", "/api/videos", chunks(), encode_chunked=True)
    assert connection.getresponse().status == 413
  except OSError:  # It hung up meanwhile.
    pass
  assert sent < 200 << 20
  assert served.ask("GET", "/api/model")


def test_a_zip_bomb_is_no_video(served):
  bomb = io.BytesIO()
  with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a.mp4", b"\0" * (200 << 20))
  code, detail = served.refused(
    "POST", "/api/videos?name=a.mp4", bomb.getvalue()
  )
  assert code == 422 and "cannot be opened" in detail


def large_picture(path: pathlib.Path) -> None:
  """Writes a film of 64 x 64 pixels, by its header, with frames of 400 million."""
  side, rows = 20_000, bytes(1 + 20_000)
  packed = zlib.compressobj(9)
  pixels = b"".join(packed.compress(rows) for _ in range(side))
  chunk = lambda kind, data: (
    struct.pack(">I", len(data))
    + kind
    + data
    + struct.pack(">I", zlib.crc32(kind + data))
  )
  png = b"\x89PNG\r\n\x1a\n" + b"".join([
    chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
    chunk(b"IDAT", pixels + packed.flush()),
    chunk(b"IEND", b""),
  ])  # fmt: skip
  with av.open(str(path), "w") as container:
    stream = container.add_stream("png", rate=10)
    stream.width = stream.height = 64
    stream.pix_fmt = "rgb24"
    for number in range(3):
      packet = av.Packet(png)
      packet.stream, packet.time_base = stream, fractions.Fraction(1, 10)
      packet.pts = packet.dts = number
      container.mux(packet)


def long_silence(path: pathlib.Path) -> None:
  """Writes ten minutes of eight channels at 192 kHz: 3.7 GB in a fast format."""
  rate = 192_000
  silence = np.zeros((1, 8 * rate), np.int16)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("flac", rate=rate, layout="7.1")
    frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="7.1")
    frame.sample_rate = rate
    for second in range(600):
      frame.pts = second * rate
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.mark.parametrize(
  "write,name,route,words",
  [
    (large_picture, "a.mov", "videos", "no video frame can be decoded"),
    (long_silence, "a.flac", "detect", "read a shorter window"),
  ],
)
def test_media_that_grow_when_they_are_decoded_are_refused(
  served, tmp_path, write, name, route, words
):
  write(tmp_path / name)
  data = (tmp_path / name).read_bytes()
  assert len(data) < 2 << 20
  before = peak_memory(served)
  code, detail = served.refused("POST", f"/api/{route}?name={name}", data)
  assert code == 422 and words in detail
  assert peak_memory(served) - before < 200 << 20
  assert served.ask("GET", "/api/model")


def peak_memory(served) -> int:
  """Returns the most bytes that the service itself has held."""
  text = pathlib.Path(f"/proc/{served.process.pid}/status").read_text()
  return int(text.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize(
  "headers,status",
  [
    ({"origin": "https://elsewhere.example"}, 403),
    ({"host": "rebound.example"}, 421),
  ],
)
def test_other_pages_cannot_use_it(served, headers, status):
  found = served.refused("POST", "/api/jobs", {}, headers=headers.items())
  assert found[0] == status


@pytest.mark.parametrize(
  "name,expected",
  [
    ("../../etc/passwd", "passwd.mp4"),
    ("C:\\clips\\a b.MOV", "a b.mov"),
    ("", "video.mp4"),
    ("...mp4", "video.mp4"),
    ("<script>.mp4", "_script_.mp4"),
    ("x" * 300 + ".mkv", "x" * 60 + ".mkv"),
    ("a\x00b\n.mp4", "a_b_.mp4"),
  ],
)
def test_names_of_uploads_are_made_harmless(name, expected):
  assert safe_name(name) == expected


@pytest.mark.slow
def test_a_killed_service_goes_on_and_loses_nothing(clip, tmp_path):
  """Also: the rate limit, the queue, the policy, and cancelling."""
  policy = tmp_path / "policy.py"
  policy.write_text(
    "def policy(event, facts):\n"
    "  if 'forbidden' in str(facts.get('request')):\n"
    "    return 'this is not made here'\n"
  )
  flags = ("--per_minute=40", "--queue=3", f"--policy={policy}")
  served = Served(tmp_path / "served", *flags)
  try:
    video = served.upload(clip)["id"]
    refused = {"video": video, "request": QUICK | {"prompt": "forbidden"}}
    found = served.refused("POST", "/api/jobs", refused)
    assert found == (403, "this is not made here")
    many = {"num_candidates": 4, "seed": 50}
    first = job(served, video, request=many)["id"]
    served.wait(first, takes=1)
    served.ask("PUT", f"/api/jobs/{first}/takes/50", {"kept": True})
    waiting = [job(served, video)["id"] for _ in range(3)]
    body = {"video": video, "request": QUICK}
    assert served.refused("POST", "/api/jobs", body)[0] == 503
    served.ask("DELETE", f"/api/jobs/{waiting[0]}")
    # No other may work on its folder.
    other = subprocess.run(
      [sys.executable, "-m", "launch.cli", "serve", "-o", str(served.root)],
      cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert other.returncode and "is being written by" in other.stderr
    served.kill()

    served.start()
    done = served.wait(first)
    assert done["state"] == "done"
    assert [take["seed"] for take in done["takes"]] == list(range(50, 54))
    assert done["takes"][0]["kept"]
    states = [served.wait(id_)["state"] for id_ in waiting]
    assert states == ["cancelled", "done", "done"]

    # A hundred at once: some are told to wait, and it still answers.
    with futures.ThreadPoolExecutor(100) as pool:
      ask = lambda _: _status(served, f"/api/jobs/{first}/takes/50")
      codes = list(pool.map(ask, range(100)))
    assert set(codes) == {200, 429} and codes.count(429) >= 50
    assert served.ask("GET", f"/api/jobs/{first}")["takes"][0]["kept"]
  finally:
    served.kill(signal.SIGTERM)


def _status(served, path: str) -> int:
  connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
  headers = {"content-type": "application/json"}
  connection.request("PUT", path, json.dumps({"kept": True}), headers)
  return connection.getresponse().status


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_kept(clip, tmp_path):
  """On a file system of a few megabytes, in a mount namespace of its own."""
  prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
  mount = f"mount -t tmpfs -o size=2m none {tmp_path}/small"
  (tmp_path / "small").mkdir()
  check = subprocess.run([*prefix, mount], capture_output=True, check=False)
  if check.returncode:
    pytest.skip("no mount namespaces here")
  script = f'{mount} && exec "$@"'
  root = tmp_path / "small" / "served"
  served = Served(root, prefix=(*prefix, script, "sh"))
  try:
    video = served.upload(clip)["id"]
    first = served.wait(job(served, video)["id"])
    assert first["state"] == "done"
    served.ask("PUT", f"/api/jobs/{first['id']}/takes/0", {"kept": True})
    many = job(served, video, request={"num_candidates": 16})
    failed = served.wait(many["id"])
    assert failed["state"] == "failed"
    # As the encoder that met it says it.
    assert any(x in failed["error"] for x in ("No space left", "check disk"))
    inside = pathlib.Path(f"/proc/{served.process.pid}/root{root}/videos")
    videos = set(inside.iterdir())
    try:  # It may hang up before all is sent.
      served.ask("POST", "/api/videos", b"x" * (4 << 20))
      raise AssertionError("4 MB fit into 2")
    except urllib.error.HTTPError as error:
      assert error.code == 507
    except OSError:
      pass
    assert set(inside.iterdir()) == videos
    kept = served.ask("GET", f"/api/jobs/{first['id']}")["takes"][0]
    assert kept["kept"]
    sound = f"/api/jobs/{first['id']}/takes/0/sound"
    assert len(served.ask("GET", sound, raw=True)) > 96_000 * 3
  finally:
    served.kill(signal.SIGTERM)
