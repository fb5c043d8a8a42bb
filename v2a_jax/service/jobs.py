"""Jobs: made of what a client asks for, and turned into requests and takes."""

import dataclasses
from fractions import Fraction
import pathlib
import secrets
import time
from typing import Any

import numpy as np

from v2a_jax import media
from v2a_jax.basics import files
from v2a_jax.basics.settings import SettingError
from v2a_jax.service import bodies
from v2a_jax.service.command import command
from v2a_jax.service.options import ServiceOptions
from v2a_jax.service.store import NotFoundError, Store
from v2a_jax.soundtrack.delivery import check_source
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks


def make(
  id_: str,
  body: bodies.JobBody,
  *,
  store: Store,
  tracker: Any,
  options: ServiceOptions,
  limits: media.Limits,
  checkpoint: str,
) -> dict[str, Any]:
  """Checks what is asked for and returns the job, JSON-able.

  Raises:
    ValueError, MediaError, MissingWeightsError: it cannot be done.
    NotFoundError: nothing has an id that it names.
  """
  video = store.video(body.video)
  if not video["has_video"]:
    raise ValueError(f"{video['name']} has no picture")
  asked = body.request.model_dump()
  _check_cost(asked, video, options)
  base = body.base and body.base.model_dump()
  if base and body.audio:
    raise SettingError("audio and base are both the sound to keep: choose one")
  if body.audio and not (kept := store.video(body.audio))["has_audio"]:
    raise ValueError(f"{kept['name']} has no sound to keep")
  if base:
    entry = entry_of(store, base["job"], base["seed"])
    base["sound"] = entry["sound"]
    if not asked["regenerate"]:
      raise SettingError("base needs the spans to make anew: regenerate")
  elif asked["regenerate"] and not (body.audio or video["has_audio"]):
    raise SettingError(
      "regenerate: the video has no sound; name a base, or an audio"
    )
  delivery = body.delivery.model_dump()
  delivery["payload"] = secrets.randbelow(1 << 16)
  job = {
    "id": id_,
    "created": round(time.time(), 3),
    "state": "queued",
    "stage": "",
    "error": "",
    "video": body.video,
    "name": video["name"],
    "audio": body.audio,
    "like": body.like,
    "base": base,
    "request": asked,
    "delivery": delivery,
    "takes": [],
  }
  settings = delivery_of(job)
  check_source(video["path"], settings, limits)
  request = request_of(store, job)
  tracker.check(request)
  if request.audio:  # Refuses a track that it does not have.
    media.probe_limited(
      request.audio, limits=limits, audio_track=request.audio_track
    )
  line = command_of(request, video["name"], settings, checkpoint)
  return job | {"command": line}


def command_of(
  request: Request, video: str, delivery: DeliveryOptions, checkpoint: str
) -> str:
  """Returns the command of a request, with the bare names of its files."""
  bare = lambda path: pathlib.PurePath(path).name
  shown = dataclasses.replace(
    request, audio=bare(request.audio), like=bare(request.like)
  )
  return command(video, shown, delivery, checkpoint=checkpoint)


def _check_cost(asked: dict[str, Any], video, options) -> None:
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


def entry_of(store: Store, job_id: str, seed: int) -> dict[str, Any]:
  """Returns what a job says of the take of a seed.

  Raises:
    NotFoundError: there is none.
  """
  for entry in store.job(job_id)["takes"]:
    if entry["seed"] == seed:
      return entry
  raise NotFoundError(f"no take has seed {seed}")


def request_of(store: Store, job: dict[str, Any]) -> Request:
  """Returns the request of a job, with the files that its ids name."""
  fields = {k: _tuples(v) for k, v in job["request"].items()}
  if job["like"]:
    fields["like"] = str(store.video(job["like"])["path"])
  if base := job["base"]:
    folder = store.take_folder(base["job"], base["seed"])
    fields["audio"] = str(folder / base["sound"])
  elif job["audio"]:
    fields["audio"] = str(store.video(job["audio"])["path"])
  elif fields.get("regenerate"):
    fields["audio"] = str(store.video(job["video"])["path"])
  return Request(**fields)


def restored(
  store: Store,
  job: dict[str, Any],
  entry: dict[str, Any],
  limits: media.Limits,
) -> Soundtracks:
  """Reads a take from disk, as its `Soundtracks`.

  What is known of it is from the sidecar that was written when it was made.
  """
  folder = store.take_folder(job["id"], entry["seed"])
  files.check_regular(folder / "raw.npz")
  with np.load(folder / "raw.npz") as raw:
    samples, rate = raw["samples"], int(raw["sample_rate"])
    layers = {
      name.removeprefix("layer_"): raw[name]
      for name in raw.files
      if name.startswith("layer_")
    }
  sidecar = files.read_json(folder / entry["sidecar"])
  request = request_of(store, job).alone(entry["seed"])
  names = ("seed", "score", "scores", "heard", "rejected")
  take = Soundtrack(
    samples=samples,
    sample_rate=rate,
    layers=layers,
    **{k: entry[k] for k in names},
  )
  return Soundtracks(
    video=store.video(job["video"])["path"],
    request=request,
    candidates=(take,),
    model=sidecar["model"],
    seconds=Fraction(sidecar["picture"]["seconds"]),
    rejected=tuple(sidecar["rejected"]),
    limits=limits,
    cuts=tuple(sidecar["picture"]["cuts"]),
  )


def delivery_of(job: dict[str, Any]) -> DeliveryOptions:
  """Returns the delivery options of a job."""
  return DeliveryOptions(**{k: _tuples(v) for k, v in job["delivery"].items()})


def _tuples(value: Any) -> Any:
  """Returns JSON's lists as tuples."""
  if isinstance(value, list):
    return tuple(_tuples(item) for item in value)
  return value
