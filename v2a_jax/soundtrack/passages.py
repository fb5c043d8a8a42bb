"""Passages: runs of windows that are generated together, one after another.

A video is made passage by passage, so that memory does not grow with its length.
A passage continues the one before it: it begins half a window early, and what
was made there is known to the model. At a cut it begins anew, so that no window
reaches over it.
"""

from collections.abc import Iterator, Sequence
import dataclasses

from v2a_jax.sampling.windows import Windows

MAX_WINDOWS = 16  # of one passage: 34 s by windows of 4 s


@dataclasses.dataclass(frozen=True)
class Passage:
  """A run of windows; all numbers are latents.

  Attributes:
    begin: first latent, of the whole video.
    end: first latent after it that exists for the model: the next cut, or the
      end of the video or of the windows.
    prefix: number of latents at its beginning that are known.
    windows: tiling by windows, which may reach beyond `end`.
  """

  begin: int
  end: int
  prefix: int
  windows: Windows


def plan(
  total: int, *, length: int, cuts: Sequence[int] = ()
) -> Iterator[Passage]:
  """Yields the passages of a video.

  Args:
    total: number of latents of the video.
    length: latents per window.
    cuts: first latents of shots, in order.
  """
  edges = sorted({0, *(cut for cut in cuts if 0 < cut < total), total})
  for first, end in zip(edges, edges[1:]):
    begin, prefix = first, 0
    while begin + prefix < end:
      windows = Windows.cover(end - begin, length=length)
      if windows.count > MAX_WINDOWS:
        windows = dataclasses.replace(windows, count=MAX_WINDOWS)
      stop = min(begin + windows.total, end)
      yield Passage(begin, stop, prefix, windows)
      prefix = windows.length - windows.stride
      begin = stop - prefix
