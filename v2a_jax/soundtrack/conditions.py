"""Conditions of the windows of a video: prompts, words, frames, features.

Each window has them on its own clock, as the clips of the training data had.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import numpy as np
from scipy import ndimage

from data_pipelines import example as example_lib
from data_pipelines.decoding import Media
from data_pipelines.tokenizer import with_times
from v2a_jax import media
from v2a_jax.batch import Conditioning
from v2a_jax.experiment.footage import Footage
from v2a_jax.experiment.load import Trained
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack.request import Request

PROMPT_FADE = 0.1  # seconds, from one prompt to the next


class WindowEncoder:
  """Makes the conditions of windows, for one model.

  Attributes:
    loader_config: settings that turn a record into an example for the model.
    tokenizer: that of transcripts; None where the model speaks no words.
    prompt_tokenizer: that of prompts.
    speaks: whether the model reads a transcript.
    diffuses: whether it is a diffusion model.
  """

  def __init__(self, trained: Trained, latent_rate: float):
    """Takes a loaded model, and the latents a second of its codec."""
    experiment = trained.experiment
    self._rate = latent_rate
    self.tokenizer = trained.tokenizers.get("tokenizer")
    self.prompt_tokenizer = trained.tokenizers.get(
      "prompt_tokenizer", self.tokenizer
    )
    # The model's tokenizers, wherever its training data is now, and frames.
    self.loader_config = dataclasses.replace(
      experiment.data, **trained.tokenizer_files, features=0, frames=True
    )
    self.speaks = experiment.conditioner.reads_transcript
    self.diffuses = experiment.sampler.family == "diffusion"
    self._footage = None
    if experiment.conditioner.views:
      self._footage = Footage(
        trained.model.conditioner, seconds=self.loader_config.seconds
      )

  @property
  def see(self) -> Callable[[bytes], np.ndarray] | None:
    """Encodes a video's bytes to features of its frames, float32 [n f].

    None where the model encodes the frames of its loader.
    """
    if not self._footage:
      return None
    return functools.partial(
      self._footage.packed, **_confined(media.DEFAULT_LIMITS)
    )

  def sets(
    self,
    path,
    picture: media.Video,
    windows: Windows,
    request: Request,
    limits: media.Limits,
    *,
    begin: int = 0,
    total: int | None = None,
  ) -> tuple[list[Conditioning], np.ndarray | None]:
    """Makes the conditions of all windows, a set for each prompt.

    Args:
      path: path of the video.
      picture: its frames.
      windows: tiling of the video, or of a part of it, by windows.
      request: what is asked for.
      limits: resource limits of reading the video.
      begin: latent of the video at which the first window begins.
      total: number of latents of the video; None for those of the windows.

    Returns:
      (conditions of each set; shares float32 [sets windows.total] of the sets
      at each latent, None for one set).
    """
    texts, shares = self._prompts(request, windows, begin)
    where = {"begin": begin, "total": total}
    conds = [
      self.conditions(picture, windows, request, t, **where) for t in texts
    ]
    if self._footage:
      features = [
        self._footage.features(
          path, start=(begin + start) / self._rate, **_confined(limits)
        )
        for start in windows.starts
      ]
      features = jax.tree.map(lambda *x: np.stack(x), *features)
      conds = [c.replace(frames=None, features=features) for c in conds]
    return conds, shares

  def _prompts(self, request: Request, windows: Windows, begin: int):
    """Lays prompts out over time.

    Returns:
      (prompts of each set of conditions, one for each window; shares float32
      [sets windows.total] of the sets at each latent, None for one set).
    """
    rate = self._rate
    texts = [request.prompt, *(text for _, _, text in request.prompts)]
    times = (begin + np.arange(windows.total) + 0.5) / rate
    owner = np.zeros(windows.total, int)
    for index, (start, end, _) in enumerate(request.prompts, start=1):
      owner[(start <= times) & (times < end)] = index
    used = sorted(set(owner.tolist()))
    if not self.diffuses or len(used) == 1:
      # Each window by the prompt of most of its latents.
      most = [
        np.bincount(owner[start : start + windows.length]).argmax()
        for start in windows.starts
      ]
      return [[texts[index] for index in most]], None
    shares = np.stack([owner == index for index in used]).astype(np.float32)
    width = max(round(PROMPT_FADE * rate), 1)
    shares = ndimage.uniform_filter1d(shares, width, axis=1, mode="nearest")
    return [[texts[index]] * windows.count for index in used], shares

  def conditions(
    self,
    picture: media.Video,
    windows: Windows,
    request: Request,
    prompts: list[str],
    *,
    begin: int = 0,
    total: int | None = None,
  ) -> Conditioning:
    """Makes the conditions of every window, on each window's own clock.

    `prompts` has one text for each window; see `sets` for the others.
    """
    window = self.loader_config.window
    whole = Media(
      0.0,
      picture.frames,
      picture.times,
      np.zeros((0, window.channels), np.float32),
    )
    rate = self._rate
    words = request.words or [
      {"word": word} for word in request.transcript.split()
    ]
    words = with_times(words, (total or windows.total) / rate)
    length = window.transcript_length
    rows = []
    for start, text in zip(windows.starts, prompts, strict=True):
      seconds = (begin + start) / rate
      prompt, prompt_mask = self.prompt_tokenizer.encode(
        text, window.prompt_length
      )
      if self.speaks:
        spoken = self.tokenizer.encode_words(
          example_lib.words_inside(words, seconds, window.seconds),
          length,
          window.seconds,
        )
      else:
        blank = example_lib.blank_example(window, index=0)
        spoken = {name: blank[name] for name in example_lib.SPOKEN}
      rows.append(
        Conditioning(
          **example_lib.cut_frames(whole, window, seconds),
          prompt=prompt,
          prompt_mask=prompt_mask,
          **spoken,
          transcript_timed=np.bool_(bool(request.words)),
          presence=request.presence,
        )
      )
    return jax.tree.map(lambda *x: np.stack(x), *rows)

  def negative(self, request: Request, rows: int):
    """Encodes the negative prompt for so many rows; None without one."""
    if not request.negative_prompt:
      return None
    encoded = self.prompt_tokenizer.encode(
      request.negative_prompt, self.loader_config.window.prompt_length
    )
    return tuple(np.tile(x, (rows, 1)) for x in encoded)


def _confined(limits: media.Limits) -> dict[str, Callable]:
  """Returns the readers of footage that run in the confined child."""
  part = functools.partial
  return {
    "read": part(media.limited(media.read_video), limits=limits),
    "probe": part(media.probe_limited, limits=limits),
  }
