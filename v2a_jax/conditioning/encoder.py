"""Frames, prompt, transcript and presence flags → `CondTokens`.

Each condition is optional: what is absent becomes its own learned null, here
and nowhere else, so dropping a condition in training, leaving it out in use
and the unconditional branches of guidance are the same computation.
"""

import dataclasses

from flax import nnx
import jax.numpy as jnp

from v2a_jax.batch import PRESENCE, Conditioning
from v2a_jax.conditioning import alignment, text, video
from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.models import layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionerConfig:
  """Sizes of the condition encoders.

  Attributes:
    width: of the tokens handed to the backbone; equals its width.
    num_heads: of the temporal and text blocks.
    vocab_size: of the sentencepiece model, at most.
    patch_size: pixels; divides the frame's height and width.
    spatial_width: width inside a frame.
    spatial_heads: heads inside a frame.
    spatial_depth: blocks inside a frame.
    pool_queries: learned queries that read a frame.
    temporal_depth: blocks along time.
    text_depth: blocks over prompt and transcript.
    prompt_encoder: a published one that reads the prompt instead, or None.
    aligner_depth: blocks of the aligner, which finds the words' times where
      they are not known (`alignment.py`); 0 for none.
    seconds: length of the window in which it places them.
    remat: rematerialisation policy, see `layers.REMAT_POLICIES`.
    unroll: blocks unrolled in each scan.
    dtype: of the computation.
  """

  width: int
  num_heads: int
  vocab_size: int = 1024
  patch_size: int = 8
  spatial_width: int = 64
  spatial_heads: int = 2
  spatial_depth: int = 1
  pool_queries: int = 4
  temporal_depth: int = 2
  text_depth: int = 1
  prompt_encoder: text.PromptEncoderConfig | None = None
  aligner_depth: int = 0
  seconds: float = 0.0
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"


class Conditioner(nnx.Module):
  """`Conditioning` → `CondTokens`."""

  def __init__(self, config: ConditionerConfig, *, rngs: nnx.Rngs):
    self.config = config
    dtype = jnp.dtype(config.dtype)
    self.video = video.VideoEncoder(config, rngs=rngs, dtype=dtype)
    self.text = text.TextEncoder(config, rngs=rngs, dtype=dtype)
    self.prompt = config.prompt_encoder and text.PromptEncoder(
      config.prompt_encoder, width=config.width, rngs=rngs, dtype=dtype
    )
    null = lambda: layers.learned((config.width,), axes=("embed",), rngs=rngs)
    self.null_video, self.null_prompt = null(), null()
    self.null_transcript = null()
    self.presence = layers.learned(
      (len(PRESENCE), 3, config.width), axes=(None, None, "embed"), rngs=rngs
    )
    self.summary = layers.dense(
      3 * config.width,
      config.width,
      axes=("embed", None),
      rngs=rngs,
      dtype=dtype,
    )

    self.aligner = config.aligner_depth and alignment.Aligner(
      config, rngs=rngs, dtype=dtype
    )

  def _word_times(self, cond: Conditioning, *video):
    """When the transcript's tokens are said, [b s], and the aligner's own
    guess for all of them, or None; from video tokens, times and mask."""
    if not self.aligner:
      return cond.transcript_times, None
    words = self.text.look_up(cond.transcript, 1)
    onsets = self.aligner(words, cond.transcript_mask, *video)
    timed = cond.transcript_timed[:, None]
    return jnp.where(timed, cond.transcript_times, onsets), onsets

  def __call__(self, cond: Conditioning) -> tokens_lib.CondTokens:
    frames = self.video(cond.frames, cond.frame_times, cond.frame_mask)
    frames, video_mask = tokens_lib.or_null(
      frames, cond.frame_mask, self.null_video[...]
    )
    start = jnp.zeros(cond.prompt.shape, jnp.float32)
    prompt, prompt_mask = tokens_lib.or_null(
      self.prompt(cond.prompt, cond.prompt_mask)
      if self.prompt
      else self.text(cond.prompt, start, cond.prompt_mask, segment=0),
      cond.prompt_mask,
      self.null_prompt[...],
    )
    word_times, onsets = self._word_times(
      cond, frames, cond.frame_times, cond.frame_mask
    )
    words, words_mask = tokens_lib.or_null(
      self.text(cond.transcript, word_times, cond.transcript_mask, segment=1),
      cond.transcript_mask,
      self.null_transcript[...],
    )
    flags = self.presence[...][jnp.arange(len(PRESENCE)), cond.presence]
    summary = jnp.concatenate(
      [
        mean(frames, video_mask),
        mean(prompt, prompt_mask),
        flags.sum(axis=1).astype(frames.dtype),
      ],
      axis=-1,
    )
    return tokens_lib.CondTokens(
      video=frames,
      video_times=cond.frame_times,
      video_mask=video_mask,
      text=jnp.concatenate([prompt, words], axis=1),
      text_times=jnp.concatenate([start, word_times], axis=1),
      text_mask=jnp.concatenate([prompt_mask, words_mask], axis=1),
      sync=frames,
      summary=self.summary(summary),
      onsets=onsets,
    )

  def flops(self, cond: Conditioning) -> int:
    """Of one example's forward pass, for conditions of these shapes."""
    _, n, h, w, _ = cond.frames.shape
    patches = (h // self.config.patch_size) * (w // self.config.patch_size)
    words = cond.transcript.shape[1]
    return (
      self.video.flops(n, patches)
      + (self.aligner.flops(n, words) if self.aligner else 0)
      + (self.prompt or self.text).flops(cond.prompt.shape[1])
      + self.text.flops(words)
      + layers.matmul_flops(self.summary, 1)
    )


def mean(x, mask):
  """Mean over the tokens of x [b n d] that are there."""
  weight = mask[..., None].astype(x.dtype)
  return (x * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)
