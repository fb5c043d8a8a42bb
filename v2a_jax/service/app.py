"""The application: routes of the API, and the page.

POST   /api/videos?name=            a file  → {id, name, seconds, fps, …}
GET    /api/videos/ID/picture               → the file
POST   /api/transcript              a file  → words with their times
POST   /api/jobs                    JSON    → the job
GET    /api/jobs/ID                         → the job, its takes and progress
DELETE /api/jobs/ID                         → cancelled
PUT    /api/jobs/ID/takes/SEED      {kept}  → the job
GET    /api/jobs/ID/takes/SEED/sound|video  → a file
POST   /api/export                  JSON    → a zip of takes, delivered anew
POST   /api/detect?name=            a file  → is the watermark in it
GET    /api/model                           → the model card
GET    /openapi.json                        → all this, for programs
"""

from collections.abc import AsyncIterator, Callable
import contextlib
import dataclasses
import json
import pathlib
import secrets
import shutil
import tempfile
import threading
from typing import Any
import zipfile

import fastapi
from fastapi import responses
from starlette import background, concurrency, staticfiles

import v2a_jax
from v2a_jax import media, watermark
from v2a_jax.basics import files
from v2a_jax.basics.settings import SettingError, check
from v2a_jax.service import bodies, guard
from v2a_jax.service import store as store_lib
from v2a_jax.service import worker as worker_lib
from v2a_jax.service.command import command
from v2a_jax.soundtrack import transcripts
from v2a_jax.soundtrack.delivery import check_source

PAGE = pathlib.Path(__file__).parent / "page"
_UPLOADS = ("/api/videos", "/api/detect", "/api/transcript")
# What browsers play, and how it is called.
_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
_TYPES |= {".mov": "video/mp4", ".wav": "audio/wav", ".flac": "audio/flac"}
_TYPES |= {".mkv": "video/x-matroska", ".mp3": "audio/mpeg"}

# policy(event, facts) -> reason for a refusal, or None.
Policy = Callable[[str, dict[str, Any]], str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceOptions:
  """Limits of a service.

  Attributes:
    allow_host: further names, without port, by which it may be reached.
    upload_mb: size of an upload in MB.
    upload_seconds: how long an upload may take.
    max_seconds: seconds of a video that are scored.
    max_candidates: candidates of a job.
    max_steps: solver steps.
    per_minute: uploads, jobs and changes of a client in a minute.
    queue: jobs that may wait.
    keep_hours: after how many hours jobs without a kept take are removed.
  """

  allow_host: tuple[str, ...] = ()
  upload_mb: int = 2048
  upload_seconds: float = 900.0
  max_seconds: float = 600.0
  max_candidates: int = 16
  max_steps: int = 200
  per_minute: int = 60
  queue: int = 32
  keep_hours: float = 48.0

  def __post_init__(self):
    check(
      self,
      upload_mb="[1, inf)",
      upload_seconds="(0, inf)",
      max_seconds="(0, inf)",
      max_candidates="[1, 1024]",
      max_steps="[1, inf)",
      per_minute="[1, inf)",
      queue="[1, inf)",
      keep_hours="(0, inf)",
    )


def create(
  tracker,
  root: pathlib.Path,
  options: ServiceOptions,
  *,
  hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1"),
  key: str | None = None,
  limits: media.Limits = media.DEFAULT_LIMITS,
  policy: Policy = lambda event, facts: None,
  checkpoint: str = "",
  card: str = "",
) -> fastapi.FastAPI:
  """Makes the application.

  Args:
    tracker: a `Soundtracker`.
    root: folder of everything that is uploaded and made.
    options: limits.
    hosts: names by which it may be reached.
    key: key of the watermark.
    limits: resource limits of reading a file.
    policy: asked before an upload or a job is taken; what it returns is why
      not.
    checkpoint: what the command line calls the model; "" for the default.
    card: the model card, Markdown.
  """
  limits = dataclasses.replace(limits, file_bytes=options.upload_mb << 20)
  store = store_lib.Store(root)
  worker = worker_lib.Worker(
    store, tracker, limits=limits, key=key, queue=options.queue
  )

  @contextlib.asynccontextmanager
  async def lifespan(app) -> AsyncIterator[None]:
    store.purge(options.keep_hours * 3600)
    worker.start()
    yield
    await concurrency.run_in_threadpool(worker.stop)

  app = fastapi.FastAPI(
    title="v2a_jax",
    version=v2a_jax.__version__,
    description="Soundtracks for silent videos; names as in `v2a generate`.",
    docs_url=None,  # Swagger's page would load scripts from elsewhere.
    redoc_url=None,
    lifespan=lifespan,
  )
  app.add_middleware(
    guard.Guard,
    hosts=(*hosts, *options.allow_host),
    upload_bytes=options.upload_mb << 20,
    uploads=_UPLOADS,
    per_minute=options.per_minute,
    upload_seconds=options.upload_seconds,
  )
  _say_errors(app, store)
  service = _Service(
    store, worker, tracker, options, limits, key, policy, checkpoint, card
  )
  service.routes(app)
  return app


def _say_errors(app: fastapi.FastAPI, store: store_lib.Store) -> None:
  """Makes answers of one line from the errors that are expected."""

  def answer(status: int, error: Exception, **headers):
    detail = worker_lib.hidden(error, store)
    return responses.JSONResponse(
      {"detail": detail}, status_code=status, headers=headers
    )

  app.exception_handler(guard.TooLargeError)(
    lambda _, e: answer(413, e, connection="close")
  )
  app.exception_handler(TimeoutError)(
    lambda _, e: answer(408, TimeoutError("it took too long to arrive"))
  )
  app.exception_handler(store_lib.NotFoundError)(lambda _, e: answer(404, e))
  app.exception_handler(media.MediaError)(lambda _, e: answer(422, e))
  app.exception_handler(ValueError)(lambda _, e: answer(422, e))
  app.exception_handler(OSError)(lambda _, e: answer(507, e))
  app.exception_handler(ModuleNotFoundError)(lambda _, e: answer(501, e))
  app.exception_handler(worker_lib.QueueFullError)(
    lambda _, e: answer(503, e, **{"retry-after": "30"})
  )


@dataclasses.dataclass
class _Service:
  """What the routes do; see the module."""

  store: store_lib.Store
  worker: worker_lib.Worker
  tracker: Any
  options: ServiceOptions
  limits: media.Limits
  key: str | None
  policy: Policy
  checkpoint: str
  card: str

  def __post_init__(self):
    self._exports = threading.Lock()  # One at a time: each takes much memory.

  def routes(self, app: fastapi.FastAPI) -> None:
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
    video = self.store.video(body.video)
    if not video["has_video"]:
      raise ValueError(f"{video['name']} has no picture")
    id_, folder = self.store.new("jobs")
    try:
      job = self._job(id_, body, video)
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

  def _job(self, id_: str, body: bodies.JobBody, video) -> dict[str, Any]:
    """Checks what is asked for and returns the job."""
    asked = body.request.model_dump()
    self._check_cost(asked, video)
    base = body.base and body.base.model_dump()
    if base:
      entry = self._entry(base["job"], base["seed"])
      base["sound"] = entry["sound"]
      if not asked["regenerate"]:
        raise SettingError("base needs the spans to make anew: regenerate")
    elif asked["regenerate"] and not video["has_audio"]:
      raise SettingError("regenerate: the video has no sound; name a base")
    delivery = body.delivery.model_dump()
    delivery["payload"] = secrets.randbelow(1 << 16)
    job = {
      "id": id_,
      "created": worker_lib.now(),
      "state": "queued",
      "stage": "",
      "error": "",
      "video": body.video,
      "name": video["name"],
      "like": body.like,
      "base": base,
      "request": asked,
      "delivery": delivery,
      "takes": [],
    }
    settings = worker_lib.delivery_of(job)
    check_source(video["path"], settings, self.limits)
    request = worker_lib.request_of(self.store, job)
    self.tracker.check(request)
    names = {"audio": "", "like": ""}
    if base:
      names["audio"] = pathlib.PurePath(base["sound"]).name
    elif request.audio:
      names["audio"] = video["name"]
    if body.like:
      names["like"] = self.store.video(body.like)["name"]
    shown = dataclasses.replace(request, **names)
    line = command(video["name"], shown, settings, checkpoint=self.checkpoint)
    return job | {"command": line}

  def _check_cost(self, asked: dict[str, Any], video) -> None:
    options = self.options
    seconds = min(asked["duration"] or video["duration"], video["duration"])
    steps = asked["sampler"].get("num_steps", 1)
    for name, value, most in (
      ("seconds of video", seconds, options.max_seconds),
      ("num_candidates", asked["num_candidates"], options.max_candidates),
      ("num_steps", steps if isinstance(steps, int) else 1, options.max_steps),
      ("retries", asked["retries"], 8),
    ):
      if value > most:
        raise SettingError(f"{name}: {value:g}, at most {most:g} here")

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
    self._entry(job_id, seed)

    def change(job) -> None:
      for entry in job["takes"]:
        if entry["seed"] == seed:
          entry["kept"] = body.kept

    self.store.change(job_id, change)
    return self.worker.state(job_id)

  def _entry(self, job_id: str, seed: int) -> dict[str, Any]:
    for entry in self.store.job(job_id)["takes"]:
      if entry["seed"] == seed:
        return entry
    raise store_lib.NotFoundError(f"no take has seed {seed}")

  def take(self, job_id: str, seed: int, kind: str) -> responses.FileResponse:
    """A file of a take: its `sound` or `video`."""
    if kind not in ("sound", "video"):
      raise store_lib.NotFoundError("there is sound and video")
    entry = self._entry(job_id, seed)
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
      settings = worker_lib.delivery_of({"delivery": delivery})
      video = self.store.video(job["video"])["path"]
      check_source(video, settings, self.limits)
      wanted.append((job, self._entry(name.job, name.seed), settings))
    folder = pathlib.Path(tempfile.mkdtemp(dir=self.store.root, prefix=".zip"))
    try:
      with self._exports:
        for job, entry, settings in wanted:
          takes = worker_lib.restored(
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
    """Looks for the watermark in a file, which is removed then."""
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
    return dataclasses.asdict(found)

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
