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
from v2a_jax.conditioning import semantic as semantic_lib
from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.models import layers

# End to end; a change of low rank; not at all.
TUNE = ("full", "lora", "frozen")


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
    semantic: a second, slower stream of the frames, which gives the tokens that
      are attended to; None leaves that to the first, too.
    tune: how the frame part (`VideoEncoder.look`) of the semantic stream, or of
      the only one, is trained: of `TUNE`.
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
  semantic: semantic_lib.SemanticConfig | None = None
  tune: str = "full"
  prompt_encoder: text.PromptEncoderConfig | None = None
  aligner_depth: int = 0
  seconds: float = 0.0
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"

  def __post_init__(self):
    if self.tune not in TUNE:
      raise ValueError(f"tune={self.tune!r} is not one of {', '.join(TUNE)}")


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
    self.semantic = config.semantic and semantic_lib.make_encoder(
      config, rngs=rngs, dtype=dtype
    )
    if config.semantic:
      self.null_semantic = null()

  @property
  def looking(self) -> nnx.Module:
    """The encoder whose frame part `tune` is about, and may be cached."""
    return self.video if self.semantic is None else self.semantic

  def _streams(self, cond: Conditioning):
    """(tokens, times, mask) of the synchronisation and the semantic stream."""
    if self.semantic is None:
      only = semantic_lib.encode(self.video, cond, self.null_video[...])
      return only, only
    fast = cond.replace(features=None)
    return (
      semantic_lib.encode(self.video, fast, self.null_video[...]),
      semantic_lib.encode(
        self.semantic,
        cond,
        self.null_semantic[...],
        stride=self.config.semantic.stride,
      ),
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
    fast, slow = self._streams(cond)
    sync, sync_times, sync_mask = fast
    frames, frame_times, video_mask = slow
    start = jnp.zeros(cond.prompt.shape, jnp.float32)
    prompt, prompt_mask = tokens_lib.or_null(
      self.prompt(cond.prompt, cond.prompt_mask)
      if self.prompt
      else self.text(cond.prompt, start, cond.prompt_mask, segment=0),
      cond.prompt_mask,
      self.null_prompt[...],
    )
    word_times, onsets = self._word_times(
      cond, sync, sync_times, cond.frame_mask
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
      video_times=frame_times,
      video_mask=video_mask,
      text=jnp.concatenate([prompt, words], axis=1),
      text_times=jnp.concatenate([start, word_times], axis=1),
      text_mask=jnp.concatenate([prompt_mask, words_mask], axis=1),
      sync=sync,
      sync_times=sync_times,
      sync_mask=sync_mask,
      summary=self.summary(summary),
      onsets=onsets,
    )

  def flops(self, cond: Conditioning) -> int:
    """Of one example's forward pass, for conditions of these shapes."""
    return sum(self.stream_flops(cond).values()) + layers.matmul_flops(
      self.summary, 1
    )

  def stream_flops(self, cond: Conditioning) -> dict[str, int]:
    """The same by stream: those of `streams`."""
    n, words = cond.frame_mask.shape[1], cond.transcript.shape[1]
    length = cond.prompt.shape[1]
    looked = self._look_flops(cond)
    if self.semantic is None:
      found = {"video": self.video.follow_flops(n) + looked}
    else:
      size = cond.frames.shape[2:4]
      fast = self.video.look_flops(n, size) + self.video.follow_flops(n)
      slow = self.semantic.follow_flops(self.slow_frames(n)) + looked
      found = {"sync": fast, "semantic": slow}
    found["text"] = self.text.flops(words)
    if self.prompt:
      found["prompt"] = self.prompt.flops(length)
    else:
      found["text"] += self.text.flops(length)
    if self.aligner:
      found["aligner"] = self.aligner.flops(n, words)
    return found

  @property
  def streams(self) -> dict[str, nnx.Module]:
    """`sync` and `semantic`, or `video` for both; `text`, and where there is
    one, what reads the `prompt` instead, and the `aligner`."""
    frames = {"video": self.video}
    if self.semantic is not None:
      frames = {"sync": self.video, "semantic": self.semantic}
    others = dict(text=self.text, prompt=self.prompt, aligner=self.aligner)
    return frames | {k: v for k, v in others.items() if v}

  def _look_flops(self, cond: Conditioning) -> int:
    """Of the frame part that `tune` is about; 0 where it is cached."""
    if cond.features is not None:
      return 0
    n, h, w = cond.frames.shape[1:4]
    return self.looking.look_flops(self.slow_frames(n), (h, w))

  def slow_frames(self, n: int) -> int:
    """Tokens of the semantic stream for n frames."""
    return -(-n // self.config.semantic.stride) if self.config.semantic else n

  def spared_flops(self, cond: Conditioning) -> dict[str, int]:
    """Of a training step on one example, 3 forward passes: what is not done.

    By stream. Nothing goes back through a frozen encoder; with low rank, the
    gradients of the large matrices are left out.
    """
    passes = {"full": 0, "lora": 1, "frozen": 2}[self.config.tune]
    looking = "video" if self.semantic is None else "semantic"
    found = {looking: passes * self._look_flops(cond)}
    if self.prompt:
      found["prompt"] = 2 * self.prompt.encoder.flops(cond.prompt.shape[1])
    return found


def mean(x, mask):
  """Mean over the tokens of x [b n d] that are there."""
  weight = mask[..., None].astype(x.dtype)
  return (x * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)
