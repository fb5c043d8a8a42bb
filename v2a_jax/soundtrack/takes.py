"""Takes and their delivery: watermark, level, wav, mux, sidecar.

For `clip.mp4` and a folder `out/`:

  out/clip/clip__c01_s0007.mp4   picture copied packet by packet, new sound
  out/clip/clip__c01_s0007.wav   the same sound, 24 bit
  out/clip/clip.json             every resolved setting, score and digest

Candidates are numbered by rank; s is the seed. The order is level, watermark,
peak, write, and then the mark is looked for again in the file as delivered.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import pathlib
import platform
from typing import Any

import jax
import numpy as np
import pyloudnorm

import v2a_jax
from v2a_jax import media, watermark
from v2a_jax.basics import files
from v2a_jax.basics.paths import local_path
from v2a_jax.soundtrack import places
from v2a_jax.soundtrack.request import Request

PEAK = 10 ** (-1 / 20)  # -1 dBFS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtrack:
  """One candidate.

  Attributes:
    samples: float32 [t channels] in [-1, 1], as long as the video.
    sample_rate: sample rate in Hz.
    seed: seed that gives this candidate again.
    score: score of `sampling.ranking`; more is better.
  """

  samples: np.ndarray
  sample_rate: int
  seed: int
  score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soundtracks:
  """All candidates for one video, the best first.

  Attributes:
    video: path of the picture.
    request: the request they answer.
    candidates: soundtracks, ranked by `score_name`.
    score_name: name of the score that ranked them.
    model: description of the model, see `Soundtracker.describe`.
    limits: resource limits of reading the picture.
  """

  video: pathlib.Path
  request: Request
  candidates: tuple[Soundtrack, ...]
  score_name: str
  model: dict[str, Any]
  limits: media.Limits = media.DEFAULT_LIMITS

  @property
  def best(self) -> Soundtrack:
    """The candidate with the highest score."""
    return self.candidates[0]

  def save(self, directory, **options) -> "Delivery":
    """Watermarks, muxes and writes everything; see `deliver`."""
    directory = local_path(directory, "the output folder")
    return deliver(self, directory, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
  """What was written, the best candidate first.

  Attributes:
    videos: muxed files.
    waves: 24-bit wav files.
    sidecar: the JSON file.
  """

  videos: tuple[pathlib.Path, ...]
  waves: tuple[pathlib.Path, ...]
  sidecar: pathlib.Path


def level(samples, sample_rate: int, *, loudness: float | None):
  """Brings samples [t channels] to a loudness, under -1 dBFS of peak.

  Args:
    samples: float32.
    sample_rate: hertz.
    loudness: integrated loudness in LUFS (ITU-R BS.1770-4), or None to leave
      the level as generated. Silence, and clips shorter than the meter's 0.4 s
      block, are left as they are.
  """
  if loudness is not None and len(samples) > 0.4 * sample_rate:
    meter = pyloudnorm.Meter(sample_rate)
    now = meter.integrated_loudness(samples.astype(np.float64))
    if np.isfinite(now):
      samples = samples * 10 ** ((loudness - now) / 20)
  peak = float(np.abs(samples).max(initial=0.0))
  return (samples * min(1.0, PEAK / max(peak, 1e-9))).astype(np.float32)


def deliver(
  takes: Soundtracks,
  directory: pathlib.Path,
  *,
  keep: int | None = None,
  loudness: float | None = None,
  key: str | None = None,
  payload: int = 0,
  mark: bool = True,
  on_file: Callable[[pathlib.Path], None] = lambda path: None,
) -> Delivery:
  """Writes candidates and the sidecar.

  Args:
    takes: candidates of a `Soundtracker`.
    directory: a folder named after the video is made in it, with a number
      where there is one of another video or request (`places.folder_for`).
    keep: number of candidates to write, best first; None for all.
    loudness: see `level`.
    key: key of the watermark; None for that of the environment, or the public
      one.
    payload: 16 bits carried by the watermark.
    mark: False writes no watermark, and the sidecar says so.
    on_file: called with each path as it is finished.

  Raises:
    MediaError: a file cannot be written; what was finished stays.
    ValueError: no file can be named after the video.
  """
  stem = places.stem_of(takes.video)
  delivery = {
    "keep": keep,
    "loudness": loudness,
    "payload": payload,
    "mark": mark,
    "own_key": key is not None,
  }
  described = describe(takes) | {"delivery": delivery}
  folder = places.folder_for(directory, stem, described)
  rows = []
  for rank, take in enumerate(takes.candidates[:keep], start=1):
    name = f"{stem}__c{rank:02d}_s{take.seed:04d}"
    row = _write(
      take,
      takes.video,
      folder / name,
      loudness=loudness,
      key=key,
      payload=payload,
      mark=mark,
      limits=takes.limits,
    )
    rows.append(row | {"rank": rank})
    on_file(folder / row["video"])
  sidecar = folder / f"{stem}.json"
  files.write_json(sidecar, described | {"candidates": rows})
  return Delivery(
    videos=tuple(folder / row["video"] for row in rows),
    waves=tuple(folder / row["wave"] for row in rows),
    sidecar=sidecar,
  )


def _write(
  take: Soundtrack, video, base, *, loudness, key, payload, mark, limits
):
  """Writes one candidate; returns its row of the sidecar."""
  rate = take.sample_rate
  samples = level(take.samples, rate, loudness=loudness)
  if mark:
    samples = watermark.embed(samples, rate, key=key, payload=payload)
  samples = level(samples, rate, loudness=None)
  wave = base.with_name(base.name + ".wav")
  media.write_wav(wave, samples, rate)
  muxed = media.mux(
    video,
    samples,
    sample_rate=rate,
    out=base.with_name(base.name + ".mp4"),
    limits=limits,
  )
  row = {
    "video": muxed.name,
    "wave": wave.name,
    "seed": take.seed,
    "score": take.score,
    "peak_dbfs": _decibels(np.abs(samples).max(initial=0.0)),
    "sha256_samples": hashlib.sha256(samples.tobytes()).hexdigest(),
    "watermark": None,
  }
  if mark:
    read = media.limited(media.read_audio)
    heard = read(muxed, sample_rate=rate, limits=limits)
    found = watermark.detect(heard.samples, rate, key=key)
    row["watermark"] = dataclasses.asdict(found)
  return row


def describe(takes: Soundtracks) -> dict:
  """Returns all that decided the sound, for the sidecar."""
  return {
    "video": str(takes.video),
    "video_sha256": _digest(takes.video),
    "audio_sha256": _digest(takes.request.audio),
    "request": dataclasses.asdict(takes.request),
    "model": takes.model,
    "score": takes.score_name,
    "software": {
      "v2a_jax": v2a_jax.__version__,
      "jax": jax.__version__,
      "python": platform.python_version(),
      "device": jax.devices()[0].device_kind,
    },
  }


def _digest(path) -> str:
  """Returns the sha256 of a file, "" of none."""
  return files.sha256_of(path) if path else ""


def _decibels(amplitude) -> float:
  return round(20 * float(np.log10(max(float(amplitude), 1e-9))), 2)
