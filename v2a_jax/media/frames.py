"""Decoding of the frames of a window, with their presentation times.

No frame rate is assumed. Time zero is the first displayed frame. Only the window
is decoded, and of H.264 no frame that neither is wanted nor serves another.
"""

from collections.abc import Generator, Iterator, Sequence
import dataclasses
from fractions import Fraction
import itertools
import math

import av
import numpy as np

from v2a_jax.media import picture
from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Limits,
  MediaError,
  ReadOptions,
  Source,
  Video,
  more,
  source_name,
)
from v2a_jax.media.container import (
  Decoder,
  SeekError,
  check_pixels,
  find_track,
  has_dts_only,
  open_input,
)

# Seconds by which frames may be early for a window of a larger grid; numbers are
# rounded by less.
EDGE = 1e-9
# Frames are left out if the file has so many times those that are wanted, and no
# more than so many, which are counted first.
_SPARSE, _MOST_SPARSE = 1.5, 1000
_MIN_SEEK = 5  # seconds; below, decoding from the first frame is cheaper


def read_video(
  source: Source,
  *,
  start: float = 0.0,
  duration: float | None = None,
  max_fps: float | None = None,
  grid: float | None = None,
  size: tuple[int, int] | None = None,
  out: np.ndarray | None = None,
  limits: Limits = DEFAULT_LIMITS,
) -> Video:
  """Reads the frames presented in [start, start + duration).

  Args:
    source: path, or bytes of the file.
    start: start of the window in seconds after the first frame.
    duration: length of the window in seconds; None reads to the end.
    max_fps: highest frame rate in Hz: for each k, only the first frame at or
      after grid + k / max_fps is kept, once and with its own time. None keeps
      all frames.
    grid: see above, in seconds after the first frame; None for `start`. With 0,
      the frames of a window are those of the whole file that lie in it.
    size: (height, width) in pixels to which the upright picture is resized by
      area averaging, ignoring its aspect ratio; None keeps its size, with
      square pixels.
    out: uint8 [n, height, width, 3] of `size` that takes the first n frames;
      the frames returned are then a part of it.
    limits: resource limits of the read.

  Returns:
    Frames and their times in seconds after `start`, maybe none.

  Raises:
    MediaError: the file has no video, cannot be decoded, or is over a limit.
    ValueError: an argument is out of range.
  """
  options = ReadOptions(
    start=start,
    duration=duration,
    max_fps=max_fps,
    grid=grid,
    size=size,
    limits=limits,
  )
  return read_with_origin(source, options, out)[0]


def read_videos(
  source: Source,
  *,
  requests: Sequence[ReadOptions],
  limits: Limits = DEFAULT_LIMITS,
) -> list[Video]:
  """Reads windows of one video at several rates and sizes; decodes it once.

  Args:
    source: path, or bytes of the file.
    requests: window, rate and size of each video. Frames between the starts of
      windows are held in memory, so windows should begin together.
    limits: resource limits of the read, in place of those of the requests.

  Returns:
    What `read_video` gives for each request.

  Raises:
    MediaError: see `read_video`.
  """
  name = source_name(source)
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", name, limits=limits)
    decoder = Decoder(container, stream, name, limits)
    timed_frames = decoder.frames()
    origin, first = next(timed_frames)
    orientation = picture.orientation(first)
    timed_frames = itertools.chain([(origin, first)], timed_frames)
    collections = []
    # The copies are used in step, so that few frames are held.
    for options, own in zip(
      requests, itertools.tee(timed_frames, len(requests)), strict=True
    ):
      options = dataclasses.replace(options, limits=limits)
      stored = _stored_size(first, stream, orientation, options)
      selected = _select(
        own,
        options,
        begin=origin + Fraction(options.start),
        tick=stream.time_base,
      )
      room = _empty(stored, stream, orientation, options)
      collections.append(
        _collecting(
          selected, room, stored, orientation, name, limits, grow=True
        )
      )
    del own, selected, timed_frames
    found = _in_step(collections)
  return [
    Video(frames=frames, times=times, damaged=decoder.damaged)
    for frames, times in found
  ]


def _in_step(
  collections: Sequence[Generator[float, None, tuple[np.ndarray, np.ndarray]]],
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Runs several of `_collecting` to their ends, always the one that is behind."""
  latest = dict.fromkeys(range(len(collections)), -math.inf)
  found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
  while latest:
    i = min(latest, key=latest.__getitem__)
    try:
      latest[i] = next(collections[i])
    except StopIteration as end:
      found[i] = end.value
      del latest[i]
  return [found[i] for i in range(len(collections))]


def _stored_size(first, stream, orientation, options: ReadOptions):
  """Returns (height, width) before frames are turned upright."""
  if options.size is None:
    return picture.square_size(first, stream.sample_aspect_ratio)
  return orientation.size(*options.size)


def _empty(stored, stream, orientation, options: ReadOptions) -> np.ndarray:
  """Returns an array with room for the frames of the window, as far as allowed."""
  height, width = orientation.size(*stored)
  budget = _budget(height, width, options.limits)
  room = min(_room(stream, options), budget)
  return np.empty((room, height, width, 3), np.uint8)


def read_with_origin(
  source: Source, options: ReadOptions, out: np.ndarray | None = None
) -> tuple[Video, Fraction]:
  """Returns the video and the time of its first frame on the file's clock."""
  if options.start > _MIN_SEEK:
    try:
      return _decode_video(source, options, out, seek=True)
    except (SeekError, MediaError):
      pass  # no usable index: decode from the first frame instead
  elif options.grid is not None and options.max_fps is not None:
    try:
      return _decode_video(source, options, out, sparse=True)
    except _NotSparseError:
      pass
  return _decode_video(source, options, out)


class _NotSparseError(Exception):
  """A video of which every frame has to be decoded."""


def _decode_video(
  source, options: ReadOptions, out, *, seek: bool = False, sparse: bool = False
):
  """Decodes the video; with `sparse`, where it can be, as few frames as will do.

  Raises:
    MediaError: see `read_video`.
    SeekError: a seek would be inexact.
    _NotSparseError: with `sparse`, what was left out is missed.
  """
  name, limits = source_name(source), options.limits
  with open_input(source, limits=limits) as container:
    stream = find_track(container, "video", name, limits=limits)
    decoder = Decoder(container, stream, name, limits)
    chosen = None
    if sparse and _may_be_sparse(container, stream, options):
      chosen = _choose(container, stream, options)
    decoder.needed = chosen
    timed_frames = decoder.frames()
    origin, first = next(timed_frames)
    begin = origin + Fraction(options.start)
    if seek:
      timed_frames = _seek(container, stream, decoder, begin)
    else:
      timed_frames = itertools.chain([(origin, first)], timed_frames)
    orientation = picture.orientation(first)
    stored = _stored_size(first, stream, orientation, options)
    if chosen is None:
      selected = _select(
        timed_frames, options, begin=begin, tick=stream.time_base
      )
    else:
      selected = _chosen(timed_frames, chosen)
    frames = out
    if frames is None:
      frames = _empty(stored, stream, orientation, options)
    frames, times = _collect(
      selected, frames, stored, orientation, name, limits, grow=out is None
    )
  if (
    chosen is not None and decoder.damaged
  ):  # What is concealed depends on the others.
    raise _NotSparseError
  return Video(frames=frames, times=times, damaged=decoder.damaged), origin


def _seek(container, stream, decoder, begin: Fraction):
  """Returns the frames from the last key frame at or before `begin` seconds."""
  container.seek(math.floor(begin / stream.time_base), stream=stream)
  timed_frames = decoder.frames()
  time, frame = next(timed_frames)
  if time > begin:
    raise SeekError
  return itertools.chain([(time, frame)], timed_frames)


def _select(
  frames: Iterator[tuple[Fraction, av.VideoFrame]],
  options: ReadOptions,
  *,
  begin: Fraction,
  tick: Fraction,
) -> Iterator[tuple[float, av.VideoFrame]]:
  """Selects the frames in the window, at most one for each 1 / max_fps.

  Containers round time stamps to a tick (1 ms in Matroska). So a frame that is
  at most one tick, or 1 ms, early for an instant of the grid or for the window
  counts as in time. Where the grid is that of the whole file, no frame is early
  for the window.

  Args:
    frames: (seconds on the container's clock, frame) of each.
    options: window and grid.
    begin: start of the window on the container's clock.
    tick: unit of the time stamps in seconds.

  Yields:
    (seconds after the start of the window, frame).
  """
  # Floats are exact enough: what is decided lies a tick apart.
  slack = edge = min(float(tick), 1e-3) + EDGE
  rate, grid = options.max_fps, 0.0
  if rate is not None and options.grid is not None:
    grid, edge = options.grid - options.start, EDGE
  end = math.inf if options.duration is None else options.duration
  due, latest = (-math.inf if rate is None else grid), -math.inf
  for seconds, frame in frames:
    time = float(seconds - begin)
    if time + edge >= end:
      return
    if time + slack < due or time <= latest:
      continue  # before the next instant of the grid, or running backwards
    if rate is not None:
      due = grid + (math.floor((time + slack - grid) * rate) + 1) / rate
    if time + edge >= 0:
      latest = time
      yield max(time, 0.0), frame


def _may_be_sparse(container, stream, options: ReadOptions) -> bool:
  """Says, by the headers, whether frames can be left out of decoding.

  H.264 has frames that no other frame is made from. A decoder that is told so
  leaves them out where they are not wanted, and the others are the same.
  https://ffmpeg.org/ffmpeg-codecs.html (skip_frame)
  """
  rate = float(stream.average_rate or 0)
  return (
    stream.codec_context.name == "h264"
    and rate >= _SPARSE * options.max_fps
    and 0 < stream.frames <= _MOST_SPARSE
    and not has_dts_only(container)
  )


def _choose(container, stream, options: ReadOptions) -> dict[int, float]:
  """Returns the time stamps of the frames that are wanted, and their seconds.

  Raises:
    _NotSparseError: the file has other frames than its headers say.
  """
  stamps = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
  if len(stamps) != stream.frames:
    raise _NotSparseError
  container.seek(stamps[0], stream=stream)
  base = stream.time_base
  selected = _select(
    ((stamp * base, stamp) for stamp in stamps),
    options,
    begin=stamps[0] * base + Fraction(options.start),
    tick=base,
  )
  return {stamp: time for time, stamp in selected}


def _chosen(timed_frames, chosen: dict[int, float]):
  """Yields (seconds, frame) of those that `_choose` has chosen."""
  left = len(chosen)
  for _, frame in timed_frames:
    if frame.pts in chosen:
      left -= 1
      yield chosen[frame.pts], frame
      if not left:
        return
  if left:
    raise _NotSparseError


def _room(stream, options: ReadOptions) -> int:
  """Returns the number of frames that the window should have, and a few more."""
  seconds = options.duration or math.inf
  if stream.duration:
    claimed = float(stream.duration * stream.time_base) - options.start
    seconds = min(seconds, max(claimed, 0.0))
  rate = min(float(stream.average_rate or 0), options.max_fps or math.inf)
  return math.ceil(seconds * rate) + 2 if seconds < math.inf else 0


def _budget(height: int, width: int, limits: Limits) -> int:
  """Returns the largest number of frames that a read may return."""
  return min(limits.frames, limits.memory_bytes // (6 * height * width))


def _collect(*args, **options) -> tuple[np.ndarray, np.ndarray]:
  """Returns what `_collecting` returns at its end."""
  return _in_step([_collecting(*args, **options)])[0]


def _collecting(
  timed_frames: Iterator[tuple[float, av.VideoFrame]],
  frames: np.ndarray,
  stored: tuple[int, int],
  orientation: picture.Orientation,
  name: str,
  limits: Limits,
  *,
  grow: bool,
) -> Generator[float, None, tuple[np.ndarray, np.ndarray]]:
  """Writes upright RGB frames to an array, and yields the time of each then.

  Returns those frames and their times.

  Args:
    timed_frames: (seconds, frame) of each.
    frames: uint8 [n, height, width, 3], which takes the first n.
    stored: (height, width) before the frames are turned upright.
    orientation: turns them.
    name: what errors call the file.
    limits: resource limits of the read.
    grow: make the array longer if there are more frames; so that a long clip
      is never held twice, it is one array all the time.
  """
  scaler, times = picture.Scaler(*stored), []
  _, height, width, _ = frames.shape
  budget = _budget(height, width, limits)
  for time, frame in timed_frames:
    count = len(times)
    if count >= budget:
      raise MediaError(
        name,
        f"has over {budget:,} frames of {width} x {height} in the window",
        "read a shorter window, a lower frame rate or a smaller size, or"
        f" {more('frames, .memory_bytes')}",
      )
    check_pixels(frame.width, frame.height, name, limits)
    if count == len(frames):
      if not grow:
        break
      room = min(count + count // 4 + 16, budget)
      frames.resize((room, height, width, 3), refcheck=False)
    frames[count] = orientation.turn(scaler(frame))
    times.append(time)
    yield time
  if grow:
    frames.resize((len(times), height, width, 3), refcheck=False)
  return frames[: len(times)], np.array(times, np.float64)
