"""The routes of the API, and the page.

POST   /api/videos?name=            a file  → {id, name, seconds, fps, …}
GET    /api/videos/ID/picture               → the file
POST   /api/transcript              a file  → words with their times
POST   /api/jobs                    JSON    → the job
GET    /api/jobs/ID                         → the job, its takes and progress
DELETE /api/jobs/ID                         → cancelled
PUT    /api/jobs/ID/takes/SEED      {kept}  → the job
GET    /api/jobs/ID/takes/SEED/sound|video  → a file
GET    /api/jobs/ID/takes/SEED/command?…    → what makes and delivers it so
POST   /api/export                  JSON    → a zip of takes, delivered anew
POST   /api/detect?name=            a file  → is the watermark in it, where, who signed
GET    /api/model                           → what the model can, and its card
GET    /openapi.json                        → all this, for programs
"""

import dataclasses
import functools
import pathlib
import shutil
import tempfile
from typing import Annotated, Any

import fastapi
from fastapi import responses
from starlette import background, concurrency, staticfiles

from v2a_jax import media, watermark
from v2a_jax.service import bodies, guard, jobs, packing, rendering
from v2a_jax.service import store as store_lib
from v2a_jax.service.options import Policy, ServiceOptions
from v2a_jax.service.turns import Turns
from v2a_jax.service.worker import Worker
from v2a_jax.soundtrack import provenance, timeline, transcripts
from v2a_jax.soundtrack.delivery import check_source
from v2a_jax.soundtrack.scoring import SCORES

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
    waiting = self.options.queue
    turns = functools.partial(Turns, waiting=waiting)
    self._reading = turns("uploads and jobs", at_once=2)
    # One at a time: each takes much memory.
    self._exporting = turns("exports", at_once=1)
    self._detecting = turns("files to look into", at_once=1)

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
    app.get(take + "/command")(self.command)
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
    self._reading.check_room()
    await self._asked("upload", {"name": name, "client": _client(request)})
    id_, folder = self.store.new("videos")
    file = folder / store_lib.safe_name(name)
    try:
      await _receive(request, file)
      facts = await self._reading(self._facts, file)
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
      words = await self._reading(transcripts.parse, data.decode())
    except transcripts.TranscriptError as error:
      raise ValueError(f"the transcript {error}") from None
    return {"words": list(words)}

  async def add_job(
    self, body: bodies.JobBody, request: fastapi.Request
  ) -> dict[str, Any]:
    """Puts a job into the queue."""
    self.worker.check_room()
    return await self._reading(self._add_job, body, _client(request))

  def _add_job(self, body: bodies.JobBody, client: str) -> dict[str, Any]:
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
      facts = {"client": client, "video": body.video}
      facts |= {"job": id_, "request": job["request"], "base": job["base"]}
      facts |= {"like": body.like, "delivery": job["delivery"]}
      self._ask("job", facts)

      def write() -> None:
        self.store.log("job", **facts)
        self.store.add_job(folder, job)

      self.worker.add(id_, write)
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise
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

  def command(
    self,
    job_id: str,
    seed: int,
    delivery: Annotated[bodies.DeliveryBody, fastapi.Query()],
  ) -> dict[str, str]:
    """The command that makes one take, and delivers it as asked for."""
    jobs.entry_of(self.store, job_id, seed)
    job = self.store.job(job_id)
    chosen = delivery.model_dump() | {"payload": job["delivery"]["payload"]}
    line = jobs.command_of(
      jobs.request_of(self.store, job).alone(seed),
      job["name"],
      jobs.delivery_of({"delivery": chosen}),
      self.checkpoint,
    )
    return {"command": line}

  async def export(
    self, body: bodies.ExportBody, request: fastapi.Request
  ) -> responses.FileResponse:
    """Delivers takes anew, as asked for, in one zip file."""
    name = self.store.job(body.takes[0].job)["name"]
    folder = pathlib.Path(tempfile.mkdtemp(dir=self.store.tmp))
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    try:
      path = await self._exporting(self._export, body, _client(request), folder)
    except BaseException:
      remove()
      raise
    return responses.FileResponse(
      path,
      media_type="application/zip",
      filename=f"{pathlib.PurePath(name).stem}.zip",
      background=background.BackgroundTask(remove),
    )

  def _export(
    self, body: bodies.ExportBody, client: str, folder: pathlib.Path
  ) -> pathlib.Path:
    """Writes the zip file of an export into a folder."""
    wanted = []
    for name in body.takes:
      job = self.store.job(name.job)
      delivery = body.delivery.model_dump()
      delivery["payload"] = job["delivery"]["payload"]
      settings = jobs.delivery_of({"delivery": delivery})
      entry = jobs.entry_of(self.store, name.job, name.seed)
      facts = {"client": client, "job": name.job, "seed": name.seed}
      self._ask("export", facts | {"delivery": delivery})
      video = self.store.video(job["video"])["path"]
      check_source(video, settings, self.limits)
      wanted.append((job, entry, settings, facts))
    shots = []
    for job, entry, settings, _ in wanted:
      takes = jobs.restored(self.store, job, entry, self.limits)
      done = takes.save(folder / "takes", key=self.key, **vars(settings))
      shots.append(done.shot)
    _timelines(folder / "takes", shots, body.delivery.timeline)
    path = folder / "takes.zip"
    packing.pack(path, folder / "takes")
    for _, _, settings, facts in wanted:
      self.store.log(
        "export",
        payload=settings.payload,
        marked=settings.mark,
        signed=settings.sign,
        **facts,
      )
    return path

  async def detect(
    self, request: fastapi.Request, name: str = "sound.wav"
  ) -> dict[str, Any]:
    """Says where in a file the watermark is, and who signed it; keeps no file."""
    self._detecting.check_room()
    facts = {"name": name, "client": _client(request)}
    await self._asked("detect", facts)
    with tempfile.TemporaryDirectory(dir=self.store.tmp) as folder:
      file = pathlib.Path(folder, store_lib.safe_name(name))
      await _receive(request, file)
      answer = await self._detecting(self._detect, file)
    said = {name: answer[name] for name in ("found", "payload")}
    self.store.log("detect", **facts, **said)
    return answer

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
      "sampler": self.tracker.describe()["sampler"],
      # Without `prompt`: its network is a folder, which no client names.
      "scores": {k: v.about for k, v in SCORES.items() if k != "prompt"},
      "max_seconds": self.options.max_seconds,
      "max_candidates": self.options.max_candidates,
      "max_steps": self.options.max_steps,
      "upload_mb": self.options.upload_mb,
      "card": self.card,
      "html": {
        "card": rendering.html(self.card),
        "responsible_use": rendering.html(
          (PAGE / "responsible_use.md").read_text()
        ),
      },
    }

  async def _asked(self, event: str, facts: dict[str, Any]) -> None:
    await concurrency.run_in_threadpool(self._ask, event, facts)

  def _ask(self, event: str, facts: dict[str, Any]) -> None:
    if reason := self.policy(event, facts):
      self.store.log("refused", asked=event, reason=reason, **facts)
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


def _timelines(
  folder: pathlib.Path, shots: list[timeline.Shot], kinds: list[str]
) -> None:
  """Writes a timeline of several takes, those of a picture as tracks of it."""
  if len(shots) < 2:
    return
  # The picture stays with the client, who puts it beside the timeline.
  named = [
    dataclasses.replace(shot, video=folder / shot.video.name) for shot in shots
  ]
  for kind in kinds:
    path = folder / f"timeline.{kind}"
    timeline.write(path, timeline.together(named), "v2a serve")
