"""Scenes as records of the data set's schema (docs/architecture.md)."""

from collections.abc import Iterator
import hashlib

from data_pipelines import schema
from data_pipelines.scenes.scene import Scene, make_scene
from v2a_jax import media

LICENCE = "CC0-1.0"


def split_of(index: int, num: int, *, held_out: float = 0.05) -> str:
  """'train', 'val' or 'test' of record `index` of `num`.

  The last `held_out` of the records are the test split and as many before them
  the validation split; at least 32 each once there are 200 records.
  """
  if not 0 <= index < num:
    raise ValueError(f"scenes: record {index} is not one of {num}")
  held = max(32 if num >= 200 else 0, round(held_out * num))
  if index >= num - held:
    return "test"
  return "val" if index >= num - 2 * held else "train"


def to_record(scene: Scene, id: str, *, split: str = "train") -> dict:
  """The record of a scene, as `data_pipelines.schema` describes it.

  `video` is an MP4 without sound, `audio` FLAC, `sha256` that of the video's
  bytes followed by the audio's. Events also have a `strength` in 0..1.
  """
  video = media.encode_video(scene.frames, fps=scene.fps)
  audio = media.encode_flac(scene.audio, scene.sample_rate)
  words = [
    {"word": word, "start": round(start, 4), "end": round(end, 4)}
    for word, start, end in scene.words
  ]
  events = [
    {
      "time": round(event.time, 5),
      "kind": event.kind,
      "material": event.material,
      "on_screen": event.on_screen,
      "strength": round(event.strength, 3),
    }
    for event in scene.events
  ]
  return schema.make_record(
    id=id,
    video=video,
    audio=audio,
    caption=scene.caption,
    audio_caption=scene.audio_caption,
    transcript=scene.transcript,
    words=words,
    events=events,
    tags=scene.tags,
    label=scene.label,
    licence=LICENCE,
    source=f"v2a_jax scenes seed={scene.seed}",
    split=split,
    duration=scene.seconds,
    sha256=hashlib.sha256(video + audio).hexdigest(),
  )


def iter_records(
  num: int,
  seed: int = 0,
  *,
  start: int = 0,
  stop: int | None = None,
  seconds: float = 4.0,
  fps: float = 25,
  size: int = 64,
  sample_rate: int = 16000,
  held_out: float = 0.05,
) -> Iterator[dict]:
  """Records `start` to `stop` of a set of `num` scenes.

  Record i is the scene of seed `seed * 1_000_003 + i`: a pure function of its
  index, so workers can share the work by ranges of indices.
  """
  for index in range(start, num if stop is None else stop):
    scene = make_scene(
      seed * 1_000_003 + index,
      seconds=seconds,
      fps=fps,
      size=size,
      sample_rate=sample_rate,
    )
    split = split_of(index, num, held_out=held_out)
    yield to_record(scene, f"scene-{seed}-{index:06d}", split=split)
