"""The routes of the API, and the page.

POST   /api/videos?name=            a file  → {id, name, seconds, fps, …}
GET    /api/videos/ID/picture               → the file
POST   /api/transcript              a file  → words with their times
POST   /api/jobs                    JSON    → the job
GET    /api/jobs/ID                         → the job, its takes and progress
DELETE /api/jobs/ID                         → cancelled
PUT    /api/jobs/ID/takes/SEED      {kept}  → the job
GET    /api/jobs/ID/takes/SEED/sound|video  → a file
POST   /api/export                  JSON    → a zip of takes, delivered anew
POST   /api/detect?name=            a file  → is the watermark in it, who signed it
GET    /api/model                           → the model card
GET    /openapi.json                        → all this, for programs
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile
import threading
from typing import Any
import zipfile

import fastapi
from fastapi import responses
from starlette import background, concurrency, staticfiles

from v2a_jax import media, watermark
from v2a_jax.basics import files
from v2a_jax.service import bodies, guard, jobs
from v2a_jax.service import store as store_lib
from v2a_jax.service.options import Policy, ServiceOptions
from v2a_jax.service.worker import Worker
from v2a_jax.soundtrack import provenance, transcripts
from v2a_jax.soundtrack.delivery import check_source

PAGE = pathlib.Path(__file__).parent / "page"
UPLOADS = ("/api/videos", "/api/detect", "/api/transcript")
# What browsers play, and how it is called.
_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
_TYPES |= {".mov": "video/mp4", ".wav": "audio/wav", ".flac": "audio/flac"}
_TYPES |= {".mkv": "video/x-matroska", ".mp3": "audio/mpeg"}


@dataclasses.dataclass
class Routes:
  """What the routes do; see the module."""

  store: store_lib.Store
  worker: Worker
  tracker: Any
  options: ServiceOptions
  limits: media.Limits
  key: str | None
  policy: Policy
  checkpoint: str
  card: str

  def __post_init__(self):
    self._exports = threading.Lock()  # One at a time: each takes much memory.

  def add_to(self, app: fastapi.FastAPI) -> None:
    """Adds the routes to an application."""
    job, take = "/api/jobs/{job_id}", "/api/jobs/{job_id}/takes/{seed}"
    app.post("/api/videos", status_code=201)(self.add_video)
    app.get("/api/videos/{video_id}")(self.video)
    app.get("/api/videos/{video_id}/picture")(self.picture)
    app.post("/api/transcript")(self.transcript)
    app.post("/api/jobs", status_code=202)(self.add_job)
    app.get(job)(self.job)
    app.delete(job)(self.cancel)
    app.put(take)(self.keep)
    app.get(take + "/{kind}")(self.take)
    app.post("/api/export")(self.export)
    app.post("/api/detect")(self.detect)
    app.get("/api/model")(self.model)
    app.get("/", include_in_schema=False)(
      lambda: responses.FileResponse(PAGE / "index.html")
    )
    app.mount("/page", staticfiles.StaticFiles(directory=PAGE))

  async def add_video(
    self, request: fastapi.Request, name: str = "video.mp4"
  ) -> dict[str, Any]:
    """Takes a file with a picture, or a sound to be like."""
    self._ask("upload", {"name": name, "client": _client(request)})
    id_, folder = self.store.new("videos")
    file = folder / store_lib.safe_name(name)
    try:
      await _receive(request, file)
      facts = await concurrency.run_in_threadpool(self._facts, file)
      self.store.add_video(folder, facts | {"id": id_})
      self.store.log(
        "upload",
        client=_client(request),
        video=id_,
        name=name,
        bytes=file.stat().st_size,
      )
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise
    return facts | {"id": id_}

  def _facts(self, file: pathlib.Path) -> dict[str, Any]:
    info = media.probe_limited(file, limits=self.limits)
    names = ("has_video", "has_audio", "duration", "fps", "width", "height")
    names += ("video_codec", "audio_codec", "timecode", "audio_tracks")
    facts = {name: getattr(info, name) for name in names}
    return facts | {"file": file.name, "name": file.name}

  def video(self, video_id: str) -> dict[str, Any]:
    """What is known of an upload."""
    found = self.store.video(video_id)
    del found["path"]
    return found

  def picture(self, video_id: str) -> responses.FileResponse:
    """The file as it was uploaded, whole or a range of it."""
    return _file(self.store.video(video_id)["path"])

  async def transcript(self, request: fastapi.Request) -> dict[str, Any]:
    """Words with their times, from SubRip, WebVTT or JSON."""
    data = bytearray()
    async for chunk in request.stream():
      data += chunk
      if len(data) > 1 << 20:
        raise guard.TooLargeError("over 1 MiB")
    try:
      words = transcripts.parse(data.decode())
    except transcripts.TranscriptError as error:
      raise ValueError(f"the transcript {error}") from None
    return {"words": list(words)}

  def add_job(
    self, body: bodies.JobBody, request: fastapi.Request
  ) -> dict[str, Any]:
    """Puts a job into the queue."""
    self.worker.check_room()
    id_, folder = self.store.new("jobs")
    try:
      job = jobs.make(
        id_,
        body,
        store=self.store,
        tracker=self.tracker,
        options=self.options,
        limits=self.limits,
        checkpoint=self.checkpoint,
      )
      facts = {"client": _client(request), "video": body.video}
      facts |= {"job": id_, "request": job["request"], "base": job["base"]}
      facts |= {"like": body.like, "delivery": job["delivery"]}
      self._ask("job", facts)
      self.store.log("job", **facts)
      self.store.put_job(folder, job)
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise
    self.worker.add(id_)
    return self.worker.state(id_)

  def job(self, job_id: str) -> dict[str, Any]:
    """The job, its takes and how far it is."""
    return self.worker.state(job_id)

  def cancel(self, job_id: str) -> dict[str, Any]:
    """Ends a job; its takes stay."""
    self.store.job(job_id)
    self.worker.cancel(job_id)
    return self.worker.state(job_id)

  def keep(
    self, job_id: str, seed: int, body: bodies.KeepBody
  ) -> dict[str, Any]:
    """Keeps a take, or no more."""
    jobs.entry_of(self.store, job_id, seed)

    def change(job) -> None:
      for entry in job["takes"]:
        if entry["seed"] == seed:
          entry["kept"] = body.kept

    self.store.change(job_id, change)
    return self.worker.state(job_id)

  def take(self, job_id: str, seed: int, kind: str) -> responses.FileResponse:
    """A file of a take: its `sound` or `video`."""
    if kind not in ("sound", "video"):
      raise store_lib.NotFoundError("there is sound and video")
    entry = jobs.entry_of(self.store, job_id, seed)
    return _file(self.store.take_folder(job_id, seed) / entry[kind])

  def export(
    self, body: bodies.ExportBody, request: fastapi.Request
  ) -> responses.FileResponse:
    """Delivers takes anew, as asked for, in one zip file."""
    wanted = []
    for name in body.takes:
      job = self.store.job(name.job)
      delivery = body.delivery.model_dump()
      delivery["payload"] = job["delivery"]["payload"]
      settings = jobs.delivery_of({"delivery": delivery})
      video = self.store.video(job["video"])["path"]
      check_source(video, settings, self.limits)
      wanted.append(
        (job, jobs.entry_of(self.store, name.job, name.seed), settings)
      )
    folder = pathlib.Path(tempfile.mkdtemp(dir=self.store.root, prefix=".zip"))
    try:
      with self._exports:
        for job, entry, settings in wanted:
          takes = jobs.restored(
            self.store, job, entry, self.tracker, self.limits
          )
          takes.save(folder / "takes", key=self.key, **vars(settings))
        path = folder / "takes.zip"
        _zip(path, folder / "takes")
      for job, entry, settings in wanted:
        self.store.log(
          "export",
          client=_client(request),
          job=job["id"],
          seed=entry["seed"],
          payload=settings.payload,
          marked=settings.mark,
        )
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise
    return responses.FileResponse(
      path,
      media_type="application/zip",
      filename=f"{pathlib.PurePath(wanted[0][0]['name']).stem}.zip",
      background=background.BackgroundTask(
        shutil.rmtree, folder, ignore_errors=True
      ),
    )

  async def detect(
    self, request: fastapi.Request, name: str = "sound.wav"
  ) -> dict[str, Any]:
    """Looks for the watermark and a signature in a file, which is removed then."""
    with tempfile.TemporaryDirectory(dir=self.store.root) as folder:
      file = pathlib.Path(folder, store_lib.safe_name(name))
      await _receive(request, file)
      return await concurrency.run_in_threadpool(self._detect, file)

  def _detect(self, file: pathlib.Path) -> dict[str, Any]:
    info = media.probe_limited(file, limits=self.limits)
    if not info.has_audio:
      raise ValueError(f"{file.name} has no sound")
    sound = media.limited(media.read_audio)(
      file,
      sample_rate=info.sample_rate,
      duration=self.options.max_seconds,
      limits=self.limits,
    )
    found = watermark.detect(sound.samples, info.sample_rate, key=self.key)
    signed = provenance.read(file)
    return dataclasses.asdict(found) | {"signed": signed and str(signed)}

  def model(self) -> dict[str, Any]:
    """The model that makes the sound, and its card."""
    return {
      "name": self.tracker.experiment.run.name,
      "checkpoint": self.tracker.describe()["checkpoint"].get("sha256", ""),
      "sample_rate": self.tracker.sample_rate,
      "window_seconds": self.tracker.window_seconds,
      "speaks": self.tracker.encoder.speaks,
      "diffuses": self.tracker.encoder.diffuses,
      "max_seconds": self.options.max_seconds,
      "max_candidates": self.options.max_candidates,
      "upload_mb": self.options.upload_mb,
      "card": self.card,
    }

  def _ask(self, event: str, facts: dict[str, Any]) -> None:
    if reason := self.policy(event, facts):
      self.store.log("refused", reason=reason, **facts)
      raise fastapi.HTTPException(403, reason)


def _client(request: fastapi.Request) -> str:
  return request.client.host if request.client else ""


async def _receive(request: fastapi.Request, file: pathlib.Path) -> None:
  """Writes the body of a request to a file."""
  with file.open("wb") as out:
    async for chunk in request.stream():
      out.write(chunk)


def _file(path: pathlib.Path) -> responses.FileResponse:
  kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
  return responses.FileResponse(path, media_type=kind, filename=path.name)


def _zip(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Packs a folder; sidecars lose the paths of this machine."""
  with zipfile.ZipFile(path, "w") as archive:
    for file in sorted(folder.rglob("*")):
      name = file.relative_to(folder)
      if file.suffix == ".json":
        found = files.read_json(file)
        bare = lambda text: pathlib.PurePath(text).name
        found["video"] = bare(found["video"])
        for key in ("audio", "like"):
          found["request"][key] = bare(found["request"][key])
        archive.writestr(str(name), json.dumps(found, indent=2))
      elif file.is_file():
        archive.write(file, name)
