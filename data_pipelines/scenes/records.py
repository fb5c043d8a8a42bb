"""Encodes scenes as records of the data set's schema."""

from collections.abc import Iterator
import dataclasses
import hashlib

from data_pipelines import schema
from data_pipelines.scenes.scene import Scene, make_scene
from v2a_jax import media

SOURCE = "v2a_jax scenes"  # Begins the source of every scene.
LICENCE = "CC0-1.0"
_SCENE_FIELDS = ("caption", "audio_caption", "transcript", "tags", "label")


def split_of(index: int, num: int, *, held_out: float = 0.05) -> str:
  """Returns the split of a record: `train`, `val` or `test`.

  The last records are the test split and as many before them the validation
  split: `held_out` of the set each, at least 32 in a set of 200 or more.

  Raises:
    ValueError: the index is not in the set.
  """
  if not 0 <= index < num:
    raise ValueError(f"index={index} is not in [0, {num}), the set's records")
  held = max(32 if num >= 200 else 0, round(held_out * num))
  if index >= num - held:
    return "test"
  return "val" if index >= num - 2 * held else "train"


def to_record(scene: Scene, id: str, *, split: str = "train") -> dict:
  """Encodes a scene as a record; see `data_pipelines.schema`.

  `video` is an MP4 without sound, `audio` FLAC, `sha256` the digest of the
  video's bytes followed by the audio's. Events have a `strength` in 0..1.
  """
  video = media.encode_video(scene.frames, fps=scene.fps)
  audio = media.encode_flac(scene.audio, scene.sample_rate)
  words = [
    {"word": word, "start": round(start, 4), "end": round(end, 4)}
    for word, start, end in scene.words
  ]
  events = [
    dataclasses.asdict(event)
    | {"time": round(event.time, 5), "strength": round(event.strength, 3)}
    for event in scene.events
  ]
  return schema.make_record(
    id=id,
    video=video,
    audio=audio,
    words=words,
    events=events,
    **{field: getattr(scene, field) for field in _SCENE_FIELDS},
    licence=LICENCE,
    source=f"{SOURCE} seed={scene.seed}",
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
  ordered: float = 0.0,
  action: str = "",
) -> Iterator[dict]:
  """Yields records `start` to `stop` (excluded) of a set of `num` scenes.

  Record i is the scene of seed `seed * 1_000_003 + i`. Its content does not
  depend on the other records, so that workers can divide a set by index. See
  `make_scene` and `split_of` for the other arguments.
  """
  for index in range(start, num if stop is None else stop):
    scene = make_scene(
      seed * 1_000_003 + index,
      seconds=seconds,
      fps=fps,
      size=size,
      sample_rate=sample_rate,
      ordered=ordered,
      action=action or None,
    )
    split = split_of(index, num, held_out=held_out)
    yield to_record(scene, f"scene-{seed}-{index:06d}", split=split)
