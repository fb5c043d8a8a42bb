"""Damaged files, given to the commands that read them.

A command may do its work or refuse the file in one line. What must not happen is
another exception, which a user would see as a traceback, or a hang.
"""

from collections.abc import Callable
import contextlib
import io
import json
import pathlib
import random
import shutil

import numpy as np

from launch import cli, generate
from tests.evaluation.report_results import write_results
from tests.soak.rounds import Tally, repeat
from v2a_jax import media
from v2a_jax.evaluation.report import page
from v2a_jax.soundtrack.request import Request
from v2a_jax.weights import bundle, torch_file

RATE = 16_000
CONTAINERS = ("mp4", "mkv", "mov", "webm")


def mutate(data: bytes, rng: random.Random) -> bytes:
  """Damages bytes in one of seven ways."""
  out = bytearray(data)
  at = rng.randrange(max(len(out), 1))
  length = min(rng.choice((1, 4, 64, 4096)), len(out))
  way = rng.randrange(7)
  if way == 0:
    for _ in range(rng.choice((1, 8, 64))):
      out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
  elif way == 1:
    del out[at:]
  elif way == 2:
    out[at:at] = out[at : at + length]
  elif way == 3:
    out[at : at + length] = bytes(len(out[at : at + length]))
  elif way == 4:
    out[at:at] = rng.randbytes(length)
  elif way == 5:
    del out[at : at + length]
  else:
    out[at : at + length] = rng.randbytes(len(out[at : at + length]))
  return bytes(out)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
  """Damages a text's bytes, or puts odd values for its numbers and strings."""
  if rng.random() < 0.5:
    return mutate(data, rng)
  odd = rng.choice(
    (b"1e999", b"-1", b"null", b"{}", b"[]", b'""', b"NaN", b"99999999999", b"[1]")
  )  # fmt: skip
  cuts = [i for i, c in enumerate(data) if c in b":,"]
  if not cuts:
    return odd
  at = rng.choice(cuts) + 1
  end = min([i for i in cuts if i > at] or [len(data)])
  return data[:at] + odd + data[end:]


def quietly(action: Callable[[], object]) -> str:
  """Runs what a command runs; says how it ended.

  Raises:
    AssertionError: by an exception that a user would see as a traceback.
  """
  said = io.StringIO()
  try:
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
      code = action()
  except Exception as error:
    assert cli.is_expected(error), f"{type(error).__name__}: {error}"
    assert "\n" not in cli.one_line(error)
    return "refused"
  if isinstance(code, int) and code not in (0, 1):
    assert "Traceback" not in said.getvalue(), said.getvalue()[-300:]
    return "refused"
  return "read"


def sources(folder: pathlib.Path) -> list[bytes]:
  """Makes a clip of a second in each container, and its sound in two."""
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 255, (12, 32, 32, 3), dtype=np.uint8)
  sound = (0.1 * rng.normal(size=(RATE, 1))).clip(-1, 1).astype(np.float32)
  silent = folder / "silent.mp4"
  media.encode_video(frames, fps=12.0, path=silent)
  made = []
  for suffix in CONTAINERS:
    out = media.mux(
      silent, sound, sample_rate=RATE, out=folder / f"clip.{suffix}"
    )
    made.append(out.read_bytes())
  wav = folder / "sound.wav"
  media.write_wav(wav, sound, RATE)
  return [*made, wav.read_bytes(), media.encode_flac(sound, RATE)]


def clips(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Damaged media through generate's reader, the detector and the mux."""
  tally = Tally(
    "damaged media: generate's reader, watermark detect, mux",
    "read, or one line",
  )
  rng, originals = random.Random(seed), sources(folder)
  path, out = folder / "mutant.mp4", folder / "out.mp4"
  silence = np.zeros((RATE, 1), np.float32)

  def read(original: bytes) -> str:
    path.write_bytes(mutate(original, rng))
    ends = [
      quietly(
        lambda: media.read_clip(path, sample_rate=RATE, size=(16, 16)) and 0
      ),
      quietly(lambda: cli.main(["watermark", "detect", str(path)])),
      quietly(
        lambda: media.mux(path, silence, sample_rate=RATE, out=out) and 0
      ),
    ]
    return "read by all" if "refused" not in ends else "refused by some"

  return repeat(tally, (rng.choice(originals) for _ in range(rounds)), read)


def builds(
  folder: pathlib.Path, rounds: int, *, each: int = 20, seed: int = 0
) -> Tally:
  """Data sets of folders in which every file but one is damaged."""
  tally = Tally(
    f"damaged media: data build, {each} at once", "a data set, each drop named"
  )
  rng, originals = random.Random(seed), sources(folder)

  def build(number: int) -> str:
    raw, out = folder / f"raw{number}", folder / f"set{number}"
    raw.mkdir()
    (raw / "good.mp4").write_bytes(originals[0])
    for i in range(each):
      data = mutate(rng.choice(originals), rng)
      (raw / f"{i}.{rng.choice(('mp4', 'mov', 'wav', 'mkv'))}").write_bytes(
        data
      )
    (raw / "table.csv").write_text("file,caption\ngood.mp4,a hiss\n")
    args = ["data", "build", raw, "-o", out, "--captions", raw / "table.csv"]
    end = quietly(lambda: cli.main([str(arg) for arg in args]))
    assert end == "read" and (out / "manifest.json").exists(), f"{raw}: {end}"
    shutil.rmtree(raw)
    shutil.rmtree(out)
    return "built"

  return repeat(tally, range(rounds), build, slowest=30.0 + 3 * each)


def _mutants(name, original: bytes, path: pathlib.Path, read, change):
  """Returns a soak of one file that is damaged and read, again and again."""

  def soak(rounds: int, seed: int) -> Tally:
    tally = Tally(name, "read, or one line")
    rng = random.Random(seed)

    def once(_) -> str:
      path.write_bytes(change(original, rng))
      return quietly(read)

    return repeat(tally, range(rounds), once)

  return soak


def sidecars(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Damaged sidecars, up to where weights would be loaded."""
  video = folder / "clip.mp4"
  video.write_bytes(sources(folder)[0])
  sidecar = {
    "video": str(video),
    "model": {"checkpoint": {"path": "diffusion_tiny", "step": None}},
    "request": {"prompt": "rain", "seed": 1, "num_candidates": 2},
    "delivery": {"keep": 2, "loudness": -23.0, "mark": True, "key_digest": ""},
    "candidates": [{"seed": 1, "sha256_samples": "0" * 64}],
  }
  path = folder / "clip.json"

  def read():
    flags = generate.parsing.Parser(
      "v2a generate", generate.__doc__, generate.ARGUMENTS, generate.EXAMPLE
    ).parse([f"--from={path}", f"--output={folder}"])
    for job in generate.read_sidecar(str(path), flags)[2]:
      Request(**job.request)

  return _mutants(
    "damaged sidecar (generate --from)",
    json.dumps(sidecar).encode(),
    path,
    read,
    mutate_text,
  )(rounds, seed)


def bundles(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Bundles with a damaged config or file of weights."""
  tally = Tally("damaged bundle (config or weights)", "one line")
  rng, original = random.Random(seed), bundle.find("codec_tiny")
  copy = folder / "bundle"
  shutil.copytree(original, copy)

  def read(_) -> str:
    name = rng.choice(("config.json", "weights.safetensors"))
    data = (original / name).read_bytes()
    change = mutate_text if name.endswith("json") else mutate
    damaged = change(data, rng)
    (copy / name).write_bytes(damaged)

    def load():
      bundle.read_config(copy)
      bundle.read_arrays(copy)

    end = quietly(load)
    (copy / name).write_bytes(data)
    return f"{name} {end}"

  return repeat(tally, range(rounds), read)


def captions(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Damaged tables of captions: CSV, JSON lines and Parquet."""
  import pyarrow as pa
  from pyarrow import parquet

  from data_pipelines.captions import read_captions

  tally = Tally("damaged captions file", "read, or one line")
  rng, path = random.Random(seed), folder / "captions"

  table = (
    "file,start,end,caption,tags\n"
    'a.mp4,0,1.5,"a dog barks, twice",dog;bark\n'
    "b.mp4,,,rain on a roof,rain\n"
    "sub/c.mp4,1:02,0:01:04.5,caf\u00e9 noise,\n"
  ).encode()
  columns = {"file": ["a.mp4", "b.mp4"], "caption": [["x", "y"], ["z"]]}
  parquet.write_table(pa.table(columns), path)
  lines = b'{"file": "a.mp4", "caption": ["x", "y"]}\n{"file": "b.mp4"}\n'
  originals = (
    (table, mutate_text),
    (lines, mutate_text),
    (path.read_bytes(), mutate),
  )

  def once(number: int) -> str:
    original, change = originals[number % len(originals)]
    path.write_bytes(change(original, rng))
    files = ["a.mp4", "b.mp4", "sub/c.mp4"]
    return quietly(lambda: read_captions(path, files) and 0)

  return repeat(tally, range(rounds), once)


def results(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Damaged results.json through `v2a report`."""
  path = write_results(folder / "results", "run", clips=3, with_media=0)
  original = path.read_bytes()
  write = lambda: page.write_report([str(path)], folder / "report.html") and 0
  return _mutants(
    "damaged results.json (v2a report)", original, path, write, mutate_text
  )(rounds, seed)


def torch_files(folder: pathlib.Path, rounds: int, *, seed: int = 0) -> Tally:
  """Damaged files of torch; needs torch."""
  import torch

  path = folder / "weights.pt"
  torch.save({"a.weight": torch.randn(8, 4), "b": torch.zeros(3)}, path)
  original = path.read_bytes()
  read = lambda: torch_file.read(path) and 0
  return _mutants("damaged .pt file", original, path, read, mutate)(
    rounds, seed
  )
