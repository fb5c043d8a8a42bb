"""Many users at once: each gets what is theirs, and none stops the others."""

import collections
from concurrent import futures
import io
import json
import threading
import time
import urllib.error
import zipfile

import av
import numpy as np
import pytest

from tests.service.conftest import running
from v2a_jax import media
from v2a_jax.service.options import ServiceOptions

QUICK = {"num_candidates": 1, "sampler": {"num_steps": 1}}
CROWD = ServiceOptions(per_minute=100_000, queue=2, upload_mb=20)


def refuse_unmarked(event, facts):
  """A policy: what is exported is marked and signed, and little looked into."""
  delivery = facts.get("delivery", {})
  if event == "export" and not (delivery["mark"] and delivery["sign"]):
    return "exports are marked and signed here"
  if event == "detect" and "secret" in facts["name"]:
    return "this is not looked into"
  return None


@pytest.fixture(scope="module")
def crowded(tracker, tmp_path_factory):
  root = tmp_path_factory.mktemp("crowd") / "served"
  (root / "tmp" / "zip").mkdir(parents=True)  # Of a killed service.
  with running(tracker, root, CROWD, policy=refuse_unmarked) as service:
    assert not any((root / "tmp").iterdir())
    yield service


def make(service, video: str, **request) -> dict:
  body = {"video": video, "request": QUICK | request}
  return service.ask("POST", "/api/jobs", body)


def test_the_policy_is_asked_what_leaves(crowded, clip):
  made = crowded.wait(make(crowded, crowded.upload(clip)["id"])["id"])
  take = {"job": made["id"], "seed": 0}
  for off in ({"mark": False}, {"sign": False}):
    found = crowded.refused(
      "POST", "/api/export", {"takes": [take], "delivery": off}
    )
    assert found == (403, "exports are marked and signed here")
  assert crowded.ask("POST", "/api/export", {"takes": [take]}, raw=True)
  path = "/api/detect?name={}.mp4"
  data = clip.read_bytes()
  found = crowded.refused("POST", path.format("secret"), data)
  assert found == (403, "this is not looked into")
  assert not crowded.ask("POST", path.format("open"), data)["found"]
  rows = [(row["event"], row.get("asked")) for row in crowded.audit()[-5:]]
  refused = ("refused", "export")
  last = [("export", None), ("refused", "detect"), ("detect", None)]
  assert rows == [refused, refused, *last]


def status(service, method, path, body) -> int:
  try:
    service.ask(method, path, body, raw=True)
    return 200
  except urllib.error.HTTPError as error:
    return error.code


def at_once(service, *request) -> tuple[collections.Counter, float]:
  """Asks a hundred times at once; returns the answers, and how many seconds
  somebody else waited for one meanwhile, at most."""
  slowest, ended = 0.0, threading.Event()

  def watch() -> None:
    nonlocal slowest
    while not ended.is_set():
      begun = time.monotonic()
      service.ask("GET", "/api/jobs/" + watched)
      slowest = max(slowest, time.monotonic() - begun)
      time.sleep(0.1)

  watched = next(service.root.joinpath("jobs").iterdir()).name
  other = threading.Thread(target=watch)
  other.start()
  try:
    with futures.ThreadPoolExecutor(100) as pool:
      asked = [pool.submit(status, service, *request) for _ in range(100)]
      codes = collections.Counter(one.result() for one in asked)
  finally:
    ended.set()
    other.join()
  return codes, slowest


def test_a_hundred_at_once_do_not_stop_the_rest(crowded, clip):
  video = crowded.upload(clip)["id"]
  made = crowded.wait(make(crowded, video)["id"])
  body = {"takes": [{"job": made["id"], "seed": 0}]}
  codes, slowest = at_once(crowded, "POST", "/api/export", body)
  assert set(codes) == {200, 503} and codes[200] >= 3
  one = crowded.ask("GET", f"/api/jobs/{made['id']}")
  assert one["state"] == "done" and slowest < 20
  data = clip.read_bytes()
  codes, _ = at_once(crowded, "POST", "/api/videos?name=a.mp4", data)
  assert set(codes) <= {200, 503} and codes[200] >= 3
  assert not any(crowded.root.joinpath("tmp").iterdir())

  before = set(crowded.root.joinpath("jobs").iterdir())
  asked = {"video": video, "request": QUICK}
  codes, _ = at_once(crowded, "POST", "/api/jobs", asked)
  assert set(codes) == {200, 503}
  added = set(crowded.root.joinpath("jobs").iterdir()) - before
  ids = [folder.name for folder in added]
  assert len(ids) == codes[200]
  logged = [row["job"] for row in crowded.audit() if row["event"] == "job"]
  assert set(ids) == set(logged[-len(ids) :])
  for id_ in ids:
    crowded.ask("DELETE", f"/api/jobs/{id_}")
  assert {crowded.wait(id_)["state"] for id_ in ids} <= {"done", "cancelled"}


def film(path, seconds: int, shade: int):
  """Writes a video of one shade, as long as no other."""
  with av.open(str(path), "w") as container:
    video = container.add_stream("libx264", rate=12)
    video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
    for i in range(12 * seconds):
      pixels = np.full((64, 96, 3), shade, np.uint8)
      pixels[20:40, 2 * i : 2 * i + 20] = 255
      container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
    container.mux(video.encode(None))
  return path


def test_users_at_once_get_their_own(crowded, tmp_path):
  def use(number: int) -> None:
    name, seconds = f"film {number}", number + 1
    clip = film(tmp_path / f"{name}.mp4", seconds, 60 * number)
    video = crowded.upload(clip)
    made = make(crowded, video["id"], prompt=name, seed=10 * number)
    made = crowded.wait(made["id"])
    assert made["state"] == "done", made["error"]
    body = {"takes": [{"job": made["id"], "seed": 10 * number}]}
    data = crowded.ask("POST", "/api/export", body, raw=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      archive.extractall(tmp_path / name)
    files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert all(path.name.startswith(name) for path in files)
    by = {path.suffix: path for path in files}
    assert set(by) == {".json", ".mp4", ".wav"}
    sidecar = json.loads(by[".json"].read_text())
    assert sidecar["request"]["prompt"] == name
    assert sidecar["video"] == clip.name
    assert sidecar["delivery"]["payload"] == made["delivery"]["payload"]
    digest = media.video_packets_digest
    assert digest(by[".mp4"]) == digest(clip)
    heard = media.read_audio(by[".wav"], sample_rate=48_000).samples
    assert len(heard) == seconds * 48_000
    (log,) = [
      row for row in crowded.audit()
      if row["event"] == "take" and row["job"] == made["id"]
    ]  # fmt: skip
    assert log["seed"] == 10 * number

  with futures.ThreadPoolExecutor(2) as pool:
    for one in [pool.submit(use, number) for number in range(2)]:
      one.result()


def test_what_is_old_goes_while_the_service_runs(tracker, clip, tmp_path):
  root = tmp_path / "served"
  with running(tracker, root, ServiceOptions()) as service:
    kept = service.wait(make(service, service.upload(clip)["id"])["id"])["id"]
    service.ask("PUT", f"/api/jobs/{kept}/takes/0", {"kept": True})
  with running(tracker, root, ServiceOptions(keep_hours=1 / 3600)) as service:
    unused = service.upload(clip)["id"]
    deadline = time.monotonic() + 60
    while (root / "videos" / unused).exists():
      assert time.monotonic() < deadline
      time.sleep(0.1)
    sound = f"/api/jobs/{kept}/takes/0/sound"
    assert service.ask("GET", sound, raw=True)
