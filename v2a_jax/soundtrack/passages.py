"""Passages: runs of windows that are generated together, one after another.

A video is made passage by passage, so that memory does not grow with its length.
A passage continues the one before it: it begins half a window early, and what
was made there is known to the model. A diffusion model holds the first half of
that for good and lets go of the rest step by step, later for what is earlier, so
that one passage turns into the next without an edge. At a cut a passage begins
anew, so that no window reaches over it.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

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
    settled: how many of these, the first ones, are not made again.
    windows: tiling by windows, which may reach beyond `end`.
  """

  begin: int
  end: int
  prefix: int
  settled: int
  windows: Windows

  @property
  def held_until(self) -> np.ndarray:
    """Diffusion time until which each latent is held, float32 [windows.total].

    1 is for good, 0 for not at all.
    """
    latents = np.arange(self.windows.total, dtype=np.float32)
    ramp = self.prefix - self.settled + 1
    return np.clip((self.prefix - latents) / ramp, 0, 1)


def plan(
  total: int,
  *,
  length: int,
  cuts: Sequence[int] = (),
  diffusion: bool = True,
) -> Iterator[Passage]:
  """Yields the passages of a video.

  Args:
    total: number of latents of the video.
    length: latents per window.
    cuts: first latents of shots, in order.
    diffusion: whether a diffusion model makes them; a model of tokens writes on
      from all that it knows, so all of it is settled.
  """
  edges = sorted({0, *(cut for cut in cuts if 0 < cut < total), total})
  for first, end in zip(edges, edges[1:]):
    begin, prefix = first, 0
    while begin + prefix < end:
      windows = Windows.cover(end - begin, length=length)
      if windows.count > MAX_WINDOWS:
        windows = dataclasses.replace(windows, count=MAX_WINDOWS)
      stop = min(begin + windows.total, end)
      settled = prefix - prefix // 2 if diffusion else prefix
      yield Passage(begin, stop, prefix, settled, windows)
      prefix = windows.length - windows.stride
      begin = stop - prefix
