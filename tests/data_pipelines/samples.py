"""Small clips, records and data sets with known content for these tests."""

from concurrent import futures
import hashlib
import pathlib

import numpy as np
import soundfile

from data_pipelines import schema, source
from data_pipelines.assemble import OutputOptions, Plan, assemble
from data_pipelines.clips import clip_facts
from data_pipelines.loader_config import LoaderConfig
from data_pipelines.writer import Outcome
from v2a_jax import media
from v2a_jax.media import container

FILE_RATE = 16_000  # Hz, of the files of `write_clip`
RATE, FPS = 8_000, 10  # of the records of `clip_record`


def click(seconds, at, *, rate=FILE_RATE, channels=1):
  """Silence with a click of 80 samples that begins at `at` seconds."""
  audio = np.zeros((round(seconds * rate), channels), np.float32)
  audio[round(at * rate) :][:80] = 0.5
  return audio


def write_clip(path, *, seconds=1.0, size=(32, 48), flash=0.5, **settings):
  """Writes a file in which a flash and a click begin at the same time."""
  fps = settings.pop("fps", 20)
  times = np.arange(round(seconds * fps)) / fps
  frames = np.zeros((len(times), *size, 3), np.uint8)
  frames[times >= flash - 1e-6] = 255
  path.parent.mkdir(parents=True, exist_ok=True)
  audio = click(seconds, flash)
  settings = {"audio": audio, "sample_rate": FILE_RATE} | settings
  media.encode_video(frames, fps=fps, path=path, **settings)
  return path


def clip_record(index, *, seconds=1.0, **fields):
  """A record that gets brighter and louder: both tell the time in it."""
  count = round(seconds * FPS)
  level = 8 + 240 * np.arange(count) / count
  frames = np.broadcast_to(level[:, None, None, None], (count, 16, 24, 3))
  ramp = np.arange(round(seconds * RATE)) / RATE / 64 + index / 64
  values = dict(
    id=f"clip{index}",
    video=media.encode_video(frames.astype(np.uint8), fps=FPS, crf=0),
    audio=media.encode_flac(ramp[:, None].astype(np.float32), RATE),
    duration=seconds,
    caption=f"clip number {index}",
    audio_caption=f"sound of {index}",
  )
  return schema.make_record(**(values | fields))


def forbid_decoding(monkeypatch):
  """Makes every decoding of media in this process an error."""
  write = soundfile.SoundFile

  def sound_file(file, mode="r", **settings):
    assert mode != "r", "sound is decoded in this process"
    return write(file, mode, **settings)

  def open_input(*_, **__):
    raise AssertionError("media are decoded in this process")

  monkeypatch.setattr(soundfile, "SoundFile", sound_file)
  monkeypatch.setattr(container, "_open", open_input)


def clip_time(example, index, *, seconds):
  """Where the window of a `clip_record` begins, by its frames and its sound."""
  by_frames = (example["frames"][0].mean() - 8) / 240 * seconds
  by_sound = (example["audio"][0, 0] - index / 64) * 64
  return by_frames - example["frame_times"][0], by_sound


def sound_record(index, **fields):
  """A record of 0.1 s of sound, quick to make; its samples hold the index."""
  samples = np.full((800, 1), (index + 1) / 256, np.float32)
  values = dict(
    id=f"sound{index:03d}",
    audio=media.encode_flac(samples, RATE),
    duration=0.1,
    caption=f"sound {index}",
  )
  return schema.make_record(**(values | fields))


def plan_of(records, **changes):
  """(plan, make) of a build whose items are records, one each."""
  by_key = {record["id"]: record for record in records}

  def make(key):
    return Outcome(key=key, clips=[clip_facts(by_key[key])]), [by_key[key]]

  # What the items hold is input of a build, as a file's size and time are.
  inputs = [
    hashlib.sha256(repr(record).encode()).hexdigest() for record in records
  ]
  values = dict(
    keys=list(by_key), unit="clips", settings={}, inputs=inputs, description="x"
  )
  return Plan(**(values | changes)), make


def write(out, records, **options):
  """Writes records as a data set; returns its path."""
  plan, make = plan_of(records)
  assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=OutputOptions(**options),
    log=lambda _: None,
  )
  return str(out)


def read(path, split="all"):
  """Records of a data set by id; digests are checked."""
  opened = source.open_source(path, split, verify=True)
  return {record["id"]: record for record in opened}


def contents(out):
  """Bytes of all files of a data set by their relative names."""
  files = [path for path in pathlib.Path(out).rglob("*") if path.is_file()]
  return {str(path.relative_to(out)): path.read_bytes() for path in files}


def flip_byte(path, place=None):
  """Alters one byte of a file, the one in the middle by default."""
  data = bytearray(pathlib.Path(path).read_bytes())
  data[len(data) // 2 if place is None else place] ^= 255
  pathlib.Path(path).write_bytes(data)


def loader_config(path, **changes) -> LoaderConfig:
  """Settings for sounds of `sound_record`: four a batch, and tiny."""
  settings = dict(
    paths=(path,),
    batch_size=4,
    seconds=0.05,
    fps=5,
    frame_size=4,
    sample_rate=RATE,
    prompt_length=4,
    transcript_length=2,
  )
  return LoaderConfig(**settings | changes)


def film_config(path, **changes) -> LoaderConfig:
  """Settings for films of `clip_record`: a second of them, four a batch."""
  settings = dict(seconds=1.0, frame_size=(8, 12), transcript_length=4)
  return loader_config(path, **settings | changes)


def assert_same(left, right):
  """Two lists of batches are equal, key by key."""
  assert len(left) == len(right)
  for a, b in zip(left, right):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], err_msg=key)
