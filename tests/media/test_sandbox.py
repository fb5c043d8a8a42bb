import concurrent.futures
import ctypes
import functools
import os
import pathlib
import re
import subprocess
import sys
import time

import av
from media_synthetic import click, numbered
import numpy as np
import pytest

from v2a_jax import media

_STATUS = "/proc/self/status"  # Linux

_QUICK = media.Limits(seconds=1.0, memory_bytes=1 << 30)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return media.encode_video(
    numbered(20),
    fps=10,
    audio=click(32_000, 500),
    sample_rate=16_000,
    path=tmp_path_factory.mktemp("clips") / "clip.mp4",
  )


def test_only_the_documented_files_decode_in_their_own_process():
  root = pathlib.Path(__file__).parents[2]
  unsafe = re.compile(r"media\.(probe|read_videos?|read_audio|decode_flac)\(")
  found = {
    path.name
    for room in ("data_pipelines", "launch", "v2a_jax")
    for path in (root / room).rglob("*.py")
    if unsafe.search(path.read_text())
  }
  text = (root / "docs/reading_files.md").read_text()
  told = re.search(r"\*\*Not in it\*\*.*?\((.*?);", text, re.DOTALL)[1]
  assert found == set(re.findall(r"\w+\.py", told))


def test_a_clip_is_read_as_by_the_functions_of_this_process(clip):
  settings = {"sample_rate": 8000, "max_fps": 5, "size": (16, 16)}
  read = media.read_clip(clip, **settings, start=0.5, duration=1.0)
  video = media.read_video(
    clip, max_fps=5, size=(16, 16), start=0.5, duration=1.0
  )
  audio = media.read_audio(clip, sample_rate=8000, start=0.5, duration=1.0)
  np.testing.assert_array_equal(read.video.frames, video.frames)
  np.testing.assert_array_equal(read.video.times, video.times)
  np.testing.assert_array_equal(read.audio.samples, audio.samples)
  assert read.info == media.probe(clip) == media.probe_limited(clip)
  assert read.video.frames.flags.writeable
  same = media.read_clip(clip.read_bytes(), **settings)
  assert same.info == read.info


def test_a_missing_stream_is_none():
  silent = media.encode_video(numbered(3), fps=10)
  assert media.read_clip(silent, sample_rate=8000).audio is None
  flac = media.encode_flac(click(800, 0), 8000)
  assert media.read_clip(flac, sample_rate=8000).video is None


@pytest.mark.parametrize(
  ("function", "argument", "reason"),
  [
    (time.sleep, 60, "takes over 1 s"),
    (eval, "[0 for _ in iter(int, 1)]", "takes over 1 s of work"),
    (ctypes.string_at, 0, "crashes the decoder .SIGSEGV"),
    (os._exit, 3, "ended with code 3"),
    (bytearray, 8 << 30, "needs over 1,024 MiB"),
    (int, "x", "x: ValueError: invalid literal"),
  ],
)
def test_failures_are_one_line_and_the_next_call_works(
  clip, function, argument, reason
):
  with pytest.raises(media.MediaError, match=reason) as e:
    media.run_limited(function, argument, limits=_QUICK)
  assert "\n" not in str(e.value)
  assert media.probe_limited(clip, limits=_QUICK).fps == 10


def test_errors_of_the_reader_are_passed_on(tmp_path):
  with pytest.raises(media.MediaError, match="there is no such file") as e:
    media.read_clip(tmp_path / "no.mp4", sample_rate=8000)
  assert e.value.name.endswith("no.mp4") and e.value.advice


def test_a_loop_that_allocates_is_stopped():
  limits = media.Limits(seconds=20, memory_bytes=300 << 20)
  with pytest.raises(media.MediaError, match="needs over 300 MiB"):
    media.run_limited(np.ones, 10**9, limits=limits)
  # This is a new child, so its peak memory is small. (`ru_maxrss` would start
  # from the size of the process that forked it.)
  status = media.run_limited(pathlib.Path.read_text, pathlib.Path(_STATUS))
  peak_kib = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
  assert peak_kib < 1 << 20


def test_the_child_is_reused_and_threads_have_their_own(clip):
  first = media.run_limited(os.getpid)
  assert first == media.run_limited(os.getpid) != os.getpid()
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    read = functools.partial(media.read_clip, sample_rate=8000)
    clips = list(pool.map(read, [clip] * 12))
  assert len({c.audio.samples.tobytes() for c in clips}) == 1


def test_output_of_the_function_does_not_mix_with_the_replies(clip):
  assert media.run_limited(os.write, 1, b"noise\n" * 99) == 594
  assert media.probe_limited(clip).fps == 10


def test_the_child_never_loads_jax_and_dies_with_its_parent():
  code = (
    "import os, sys\n"
    "from v2a_jax import media\n"
    "assert 'jax' not in sys.modules\n"
    "print(media.run_limited(os.getpid))\n"
    'print(media.run_limited(eval, \'"jax" in __import__("sys").modules\'))\n'
    "os.kill(os.getpid(), 9)\n"
  )
  env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=env
  ).stdout.split()
  assert out[1] == "False"
  for _ in range(100):
    if not os.path.exists(f"/proc/{out[0]}"):
      return
    time.sleep(0.05)
  with open(f"/proc/{out[0]}/stat", encoding="ascii") as file:
    assert file.read().split()[2] == "Z"  # a zombie: ended, not yet reaped


def _repeated(path, out, times: int) -> None:
  """Writes a file with the packets of another, so many times in a row."""
  with av.open(str(path)) as source, av.open(str(out), "w") as target:
    stream = source.streams.video[0]
    copy = target.add_stream_from_template(stream)
    packets = [
      (p.pts, p.dts, p.duration, p.is_keyframe, bytes(p))
      for p in source.demux(stream)
      if p.size
    ]
    length = sum(packet[2] for packet in packets)
    for turn in range(times):
      for pts, dts, duration, is_keyframe, data in packets:
        packet = av.Packet(data)
        packet.stream, packet.time_base = copy, stream.time_base
        packet.pts, packet.dts = pts + turn * length, dts + turn * length
        packet.duration, packet.is_keyframe = duration, is_keyframe
        target.mux(packet)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
  """Fifty minutes at 25 Hz, 75,000 frames."""
  folder = tmp_path_factory.mktemp("long")
  short = media.encode_video(numbered(50), fps=25, path=folder / "short.mp4")
  _repeated(short, folder / "long.mp4", 1500)
  return folder / "long.mp4"


def test_a_long_clip_earns_the_time_that_it_takes(long_clip):
  # Its frames take several times as long as work without frames may.
  limits = media.Limits(seconds=1.0)
  read = media.limited(media.read_video)
  video = read(long_clip, size=(8, 8), max_fps=25, limits=limits)
  assert video.frames.shape == (75_000, 8, 8, 3)
  assert video.times[-1] == pytest.approx(75_000 / 25 - 0.04)


def test_messages_name_the_flag_that_allows_more(long_clip):
  read = functools.partial(media.limited(media.read_video), size=(8, 8))
  for field, value, words in (
    ("decoded_pixels", 1e6, "has over 0.001 billion pixels"),
    ("frames", 100, "has over 100 frames"),
    ("duration", 60, "claims to last 3,000 s"),
  ):
    limits = media.Limits(**{field: value})
    with pytest.raises(media.MediaError, match=words) as e:
      read(long_clip, limits=limits)
    assert "--read_limits=2" in str(e.value) and field in str(e.value)
  assert media.Limits().scaled(2) == media.Limits(
    seconds=60.0,
    memory_bytes=4 << 30,
    file_bytes=16 << 30,
    pixels=2 * 8192 * 4320,
    decoded_pixels=8e11,
    duration=8 * 3600.0,
    frames=1_000_000,
  )
