"""What becomes of takes when a service is killed, and when they grow old."""

import dataclasses
import shutil
import time
import zipfile

import pytest

from launch import generate, parsing
from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.service import bodies, jobs, packing
from v2a_jax.service.options import ServiceOptions
from v2a_jax.service.store import Store
from v2a_jax.service.worker import Worker, hidden
from v2a_jax.soundtrack import scoring, selection

LIMITS = media.DEFAULT_LIMITS


@pytest.fixture
def store(tmp_path):
  return Store(tmp_path / "served")


def add_video(store, clip) -> str:
  id_, folder = store.new("videos")
  shutil.copy(clip, folder / clip.name)
  facts = {"id": id_, "file": clip.name, "name": clip.name}
  facts |= {"duration": 2.0, "has_video": True, "has_audio": True}
  store.add_video(folder, facts)
  return id_


def add_job(store, tracker, video: str, base=None, like="", **request) -> str:
  id_, folder = store.new("jobs")
  request = {"sampler": {"num_steps": 1}} | request
  body = bodies.JobBody(video=video, request=request, base=base, like=like)
  job = jobs.make(
    id_, body, store=store, tracker=tracker, options=ServiceOptions(),
    limits=LIMITS, checkpoint="",
  )  # fmt: skip
  store.put_job(folder, job)
  return id_


def work(store, tracker, *ids: str) -> list[dict]:
  """Runs a worker until the jobs are done."""
  worker = Worker(
    store, tracker, limits=LIMITS, key=None, queue=9, keep_seconds=3600
  )
  worker.start()
  deadline = time.monotonic() + 60
  while any(store.job(id_)["state"] in ("queued", "running") for id_ in ids):
    assert time.monotonic() < deadline
    time.sleep(0.02)
  worker.stop()
  return [store.job(id_) for id_ in ids]


def test_messages_name_no_folder(store):
  said = "not found (looked for /home/me/.cache/v2a/x.pt, /srv/x.pt): fetch it"
  url = ", or download https://example.org/a/b.pt"
  shown = "not found (looked for x.pt, x.pt): fetch it"
  assert hidden(FileNotFoundError(said + url), store) == shown + url
  assert hidden(ValueError("half/quarter is no rate"), store) == (
    "half/quarter is no rate"
  )


def test_a_killed_job_goes_on_with_the_seeds_that_it_would_have_had(
  store, tracker, clip, monkeypatch
):
  """Where some seeds are rejected, as if speech were heard in them."""
  judged = selection.judged

  def rejecting(samples, rate, seed, *, request, **how):
    request = dataclasses.replace(request, retries=0)
    take = judged(samples, rate, seed, request=request, **how)
    return dataclasses.replace(take, rejected=seed in (0, 1))

  monkeypatch.setattr(selection, "judged", rejecting)
  monkeypatch.setattr(scoring, "prepare", lambda names, clap: None)
  asked = {"num_candidates": 3, "retries": 2, "speech": False}
  video = add_video(store, clip)
  (whole,) = work(store, tracker, add_job(store, tracker, video, **asked))
  assert [take["seed"] for take in whole["takes"]] == [3, 4, 2]
  broken = add_job(store, tracker, video, **asked)
  # As a kill leaves it: a row of what was whole, files of the next take.
  for seed in (3, 4):
    source = store.take_folder(whole["id"], seed)
    shutil.copytree(source, store.take_folder(broken, seed))
  row = whole["takes"][0] | {"kept": True}
  store.change(broken, lambda job: job["takes"].append(row))
  kept = [p for p in store.take_folder(broken, 3).rglob("*") if p.is_file()]
  times = [path.stat().st_mtime_ns for path in kept]
  (job,) = work(store, tracker, broken)
  assert job["state"] == "done", job["error"]
  assert [take["seed"] for take in job["takes"]] == [3, 4, 2]
  assert [take["kept"] for take in job["takes"]] == [True, False, False]
  assert times == [path.stat().st_mtime_ns for path in kept]


@pytest.mark.parametrize("left", ["{}", "[]", '{"id": "x", "takes": []}', "x"])
def test_a_job_that_cannot_be_read_costs_no_other(
  left, store, tracker, clip, caplog
):
  """Nothing is removed then: what it needs is not known."""
  _, folder = store.new("jobs")
  (folder / "job.json").write_text(left)
  video = add_video(store, clip)
  (job,) = work(store, tracker, add_job(store, tracker, video))
  assert job["state"] == "done", job["error"]
  assert "what is old stays" in caplog.text and folder.exists()


def test_what_a_kept_take_was_made_from_is_not_purged(store, tracker, clip):
  video, other = add_video(store, clip), add_video(store, clip)
  old, unused = (add_job(store, tracker, one) for one in (video, other))
  for id_ in (old, unused):
    store.change(id_, lambda job: job.update(state="done"))
  first = add_job(store, tracker, video, num_candidates=1)
  work(store, tracker, first)
  # As if it were a part of an older one anew.
  named = {"job": old, "seed": 0, "sound": "a.wav"}
  store.change(first, lambda job: job.update(base=named))
  last = add_job(
    store, tracker, video, base={"job": first, "seed": 0}, num_candidates=1,
    seed=7, regenerate=[(0.5, 1.0)],
  )  # fmt: skip
  work(store, tracker, last)
  store.change(last, lambda job: job["takes"][0].update(kept=True))
  time.sleep(0.05)

  assert store.purge(3600) == 0
  assert store.purge(0.01) == 2  # a job of no kept take, and its video
  assert {job["id"] for job in store.jobs()} == {old, first, last}
  job = store.job(last)
  takes = jobs.restored(store, job, job["takes"][0], LIMITS)
  assert len(takes.save(store.root / "export").rows) == 1


def test_an_export_names_no_folder_and_gives_the_take_again(
  store, tracker, clip, tmp_path, monkeypatch
):
  """A part made anew, begun from another sound, of a picture with cuts."""
  video, like = add_video(store, clip), add_video(store, clip)
  first = add_job(store, tracker, video, num_candidates=1)
  work(store, tracker, first)
  second = add_job(
    store, tracker, video, base={"job": first, "seed": 0}, like=like,
    num_candidates=1, regenerate=[(0.5, 1.0)], like_strength=0.5,
    prompt="/etc/passwd",
  )  # fmt: skip
  (job,) = work(store, tracker, second)
  assert job["state"] == "done", job["error"]
  (entry,) = job["takes"]
  sidecar = store.take_folder(second, 0) / entry["sidecar"]
  made = files.read_json(sidecar)
  # As if a take had been rejected, and a cut found.
  made["rejected"] = [{"seed": 5, "heard": {"speech": 1.5}, "rejected": True}]
  made["picture"]["cuts"] = [1.0]
  files.write_json(sidecar, made)

  takes = jobs.restored(store, job, entry, LIMITS)
  takes.save(tmp_path / "takes", timeline=("edl", "otio"))
  packing.pack(tmp_path / "takes.zip", tmp_path / "takes")
  unpacked = tmp_path / "unpacked"
  with zipfile.ZipFile(tmp_path / "takes.zip") as archive:
    archive.extractall(unpacked)
  shutil.copy(clip, unpacked)
  inside = sorted(path for path in unpacked.rglob("*") if path.is_file())
  assert {".edl", ".otio", ".json", ".wav"} < {path.suffix for path in inside}
  for path in inside:
    data = path.read_bytes()
    assert b"secret" not in data and b"served" not in data, path
    assert str(tmp_path).encode() not in data, path
  stem = unpacked / "a door" / "a door"
  found = files.read_json(stem.with_suffix(".json"))
  assert found["request"]["prompt"] == "/etc/passwd"
  assert found["rejected"] == made["rejected"]
  assert found["model"]["checkpoint"]["path"] == "mine"
  assert (
    found["model"]["checkpoint"]["sha256"]
    == (made["model"]["checkpoint"]["sha256"])
  )
  edl = stem.with_suffix(".edl").read_text()
  assert edl.count("FROM CLIP NAME: a door.mp4") == 2

  otio = pytest.importorskip("opentimelineio")
  read = otio.adapters.read_from_file(str(stem.with_suffix(".otio")))
  urls = [one.media_reference.target_url for one in read.find_clips()]
  assert urls == ["a%20door.mp4"] * 2 + ["a%20door__c01_s0000.wav"]

  monkeypatch.chdir(unpacked)
  parser = parsing.Parser("x", "x", generate.ARGUMENTS, "x")
  args = parser.parse(["--from", "a door/a door.json", "-o", "again"])
  _, _, (again,) = generate.read_sidecar("a door/a door.json", args)
  same, _ = generate.run(tracker, again, str(tmp_path / "again"), LIMITS)
  assert same


def test_a_job_ends_within_a_take_and_says_how_far_it_is(store, tracker, clip):
  job = add_job(store, tracker, add_video(store, clip), num_candidates=2)
  worker = Worker(
    store, tracker, limits=LIMITS, key=None, queue=9, keep_seconds=3600
  )
  seen, stream = [], tracker.stream

  def halfway(video, *, on_passage, **how):
    """As the user sees it, and presses Cancel, in the second take."""

    def passed(share):
      seen.append(worker.state(job)["progress"])
      on_passage(share / 2)
      seen.append(worker.state(job)["progress"])
      if len(seen) == 4:
        worker.cancel(job)
      on_passage(share)

    return stream(video, on_passage=passed, **how)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tracker, "stream", halfway)
    worker.start()
    deadline = time.monotonic() + 60
    while store.job(job)["state"] in ("queued", "running"):
      assert time.monotonic() < deadline
      time.sleep(0.02)
  worker.stop()
  assert seen == [0.0, 0.5, 0.0, 0.5]
  found = worker.state(job)
  assert found["state"] == "cancelled" and found["progress"] == 0.0
  assert [take["seed"] for take in found["takes"]] == [0]
