"""Frames, prompt, transcript and presence flags → `CondTokens`.

Each condition is optional. An absent one becomes its own learned null, here and
nowhere else, so dropping a condition in training, omitting it in use and the
unconditional branches of guidance are the same computation.
"""

import dataclasses
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.batch import PRESENCE, Conditioning
from v2a_jax.conditioning import alignment, text, video
from v2a_jax.conditioning import semantic as semantic_lib
from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.models import layers
from v2a_jax.models import lora as lora_lib
from v2a_jax.parallel import sharding

TUNE = ("full", "lora", "frozen")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionerConfig(video.PixelConfig):
  """Sizes of the condition encoders; see also `PixelConfig`.

  Attributes:
    vocab_size: number of token embeddings; at least the tokenizer's ids.
    text_depth: number of blocks over prompt and transcript.
    semantic: second, slower stream of the frames, whose tokens the backbone
      attends to; without a name the first stream serves for both.
    tune: training of the frame part (`embed_frames`) of the semantic stream, or
      of the only one: `full`, `lora` (a change of low rank) or `frozen`.
    lora: low-rank adaptation of that frame part, for `tune="lora"`.
    prompt_encoder: published network that reads the prompt; without a name the
      text encoder does.
    aligner_depth: number of blocks of the aligner, which predicts unknown times
      of words (`alignment.py`); 0 for no aligner.
    width: number of features of a condition token; the backbone's width.
    num_heads: number of attention heads of temporal and text blocks.
    seconds: length of the window in seconds, for the aligner.
    attention: implementation of attention, see `attend.py`.
    remat: rematerialisation policy, see `layers.REMAT_POLICIES`.
    unroll: number of blocks unrolled in each scan.
    dtype: dtype of the computation.
  """

  reads_transcript: ClassVar[bool] = True
  views: ClassVar[tuple] = ()  # Frames are those of the loader.

  vocab_size: int = 1024
  text_depth: int = 1
  semantic: semantic_lib.SemanticConfig = semantic_lib.SemanticConfig()
  tune: str = "full"
  lora: lora_lib.LoraConfig = lora_lib.LoraConfig()
  prompt_encoder: text.PromptEncoderConfig = text.PromptEncoderConfig()
  aligner_depth: int = 0
  width: int = settings.derived("model.width")
  num_heads: int = settings.derived("model.num_heads")
  seconds: float = settings.derived("data.seconds", default=0.0)
  attention: str = settings.derived("model.attention", default="auto")
  remat: str = settings.derived("model.remat", default="none")
  unroll: int = settings.derived("model.unroll", default=1)
  dtype: str = settings.derived("model.dtype", default="float32")

  def __post_init__(self):
    super().__post_init__()
    settings.check(
      self,
      vocab_size="[1, inf)",
      text_depth="[0, inf)",
      aligner_depth="[0, inf)",
    )
    settings.choose(self, tune=TUNE)
    if (self.tune == "lora") != bool(self.lora.rank):
      raise settings.SettingError(
        f"tune={self.tune!r} with lora.rank={self.lora.rank}: set a rank such"
        " as 8 with tune='lora', and 0 otherwise"
      )

  @property
  def reads_frames(self) -> bool:
    """Whether frames are read beside their cached features."""
    return bool(self.semantic.name)

  def make(self, *, rngs: nnx.Rngs) -> "Conditioner":
    """Makes the encoders, with the frame part frozen or adapted by `tune`."""
    conditioner = Conditioner(self, rngs=rngs)
    stream = conditioner.tuned_encoder
    if self.tune == "frozen":
      lora_lib.freeze(stream, parts=stream.frame_part)
    elif self.tune == "lora":
      lora_lib.adapt(stream, self.lora, rngs=rngs, parts=stream.frame_part)
    return conditioner


class Conditioner(nnx.Module):
  """`Conditioning` → `CondTokens`."""

  # Encoders that only some models have.
  prompt = aligner = semantic = None

  def __init__(self, config: ConditionerConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    common = dict(rngs=rngs, dtype=jnp.dtype(c.dtype))
    self.video = video.VideoEncoder(c, **common)
    self.text = text.TextEncoder(c, **common)
    if c.prompt_encoder.name:
      self.prompt = text.PromptEncoder(
        c.prompt_encoder, width=c.width, **common
      )
    null = lambda: layers.learned((c.width,), axes=("embed",), rngs=rngs)
    self.null_video, self.null_prompt = null(), null()
    self.null_transcript = null()
    self.presence = layers.learned(
      (len(PRESENCE), 3, c.width), axes=(None, None, "embed"), rngs=rngs
    )
    self.summary = layers.dense(
      3 * c.width, c.width, axes=("embed", None), **common
    )
    if c.aligner_depth:
      self.aligner = alignment.Aligner(c, **common)
    if c.semantic.name:
      self.semantic = semantic_lib.make_encoder(c, **common)
      self.null_semantic = null()

  @property
  def tuned_encoder(self) -> nnx.Module:
    """The encoder whose frame part can be tuned, frozen or cached."""
    return self.video if self.semantic is None else self.semantic

  @property
  def feature_dim(self) -> int:
    """Number of features of a frame that data sets may keep."""
    return self.tuned_encoder.feature_dim

  @property
  def frame_part(self) -> tuple[list, list[tuple[str, ...]]]:
    """What those depend on: settings, and how names of weights begin."""
    stream = self.tuned_encoder
    where = "video" if self.semantic is None else "semantic"
    parts = [("conditioner", where, name) for name in stream.frame_part]
    return [type(stream).__name__, stream.settings, self.config.dtype], parts

  @property
  def streams(self) -> dict[str, nnx.Module]:
    """The encoders by the name of the `jax.named_scope` that each runs in.

    `video` is the only stream of frames; `sync` and `semantic` are two.
    """
    frames = {"video": self.video}
    if self.semantic is not None:
      frames = {"sync": self.video, "semantic": self.semantic}
    others = {
      "text": self.text,
      "prompt": self.prompt,
      "aligner": self.aligner,
    }
    return frames | {k: v for k, v in others.items() if v is not None}

  def _encode_frames(self, cond: Conditioning):
    """Returns (tokens, times, mask) of the sync and of the semantic stream."""
    if self.semantic is None:
      with jax.named_scope("video"):
        only = semantic_lib.encode(self.video, cond, self.null_video[...])
      return only, only
    with jax.named_scope("sync"):
      sync = semantic_lib.encode(
        self.video, cond.replace(features=None), self.null_video[...]
      )
    with jax.named_scope("semantic"):
      semantic = semantic_lib.encode(
        self.semantic,
        cond,
        self.null_semantic[...],
        stride=self.config.semantic.stride,
      )
    return sync, semantic

  def _encode_texts(self, cond: Conditioning, start, word_times):
    """Encodes prompt and transcript.

    Args:
      cond: the conditions.
      start: times [b l] of the prompt, all 0.
      word_times: times [b s] of the transcript in seconds.

    Returns:
      (tokens [b l d] of the prompt, tokens [b s d] of the transcript).
    """
    prompt = (cond.prompt, start, cond.prompt_mask, 0)
    words = (cond.transcript, word_times, cond.transcript_mask, 1)
    if self.prompt is None:
      with jax.named_scope("text"):
        return self.text(prompt, words)
    with jax.named_scope("prompt"):
      encoded = self.prompt(cond.prompt, cond.prompt_mask)
    with jax.named_scope("text"):
      return encoded, *self.text(words)

  def _word_spans(self, cond: Conditioning, *video):
    """Returns onsets and durations of the transcript's tokens, known or predicted.

    Args:
      cond: the conditions.
      *video: tokens, times and mask of the sync stream.

    Returns:
      (onsets [b s] and durations [b s] in seconds, predictions of both or None
      without an aligner).
    """
    known = cond.transcript_times, cond.transcript_durations
    if self.aligner is None:
      return *known, None
    with jax.named_scope("aligner"):
      words = self.text.embed_ids(cond.transcript, 1)
      spans = self.aligner(words, cond.transcript_mask, *video)
    timed = cond.transcript_timed[:, None]
    times, durations = (jnp.where(timed, *both) for both in zip(known, spans))
    return times, durations, spans

  def __call__(self, cond: Conditioning) -> tokens_lib.CondTokens:
    """Encodes all conditions."""
    sync, semantic = self._encode_frames(cond)
    sync, sync_times, sync_mask = sync
    frames, frame_times, frame_mask = semantic
    word_times, word_durations, spans = self._word_spans(
      cond, sync, sync_times, cond.frame_mask
    )
    start = jnp.zeros(cond.prompt.shape, jnp.float32)
    prompt, words = self._encode_texts(cond, start, word_times)
    prompt, prompt_mask = tokens_lib.or_null(
      prompt, cond.prompt_mask, self.null_prompt[...]
    )
    words, words_mask = tokens_lib.or_null(
      words, cond.transcript_mask, self.null_transcript[...]
    )
    (table,) = sharding.gathered(self.presence[...])
    flags = table[jnp.arange(len(PRESENCE)), cond.presence]
    summary = jnp.concatenate(
      [
        mean(frames, frame_mask),
        mean(prompt, prompt_mask),
        flags.sum(axis=1).astype(frames.dtype),
      ],
      axis=-1,
    )
    return tokens_lib.CondTokens(
      video=frames,
      video_times=frame_times,
      video_mask=frame_mask,
      text=jnp.concatenate([prompt, words], axis=1),
      text_times=jnp.concatenate([start, word_times], axis=1),
      text_mask=jnp.concatenate([prompt_mask, words_mask], axis=1),
      sync=sync,
      sync_times=sync_times,
      sync_mask=sync_mask,
      summary=sharding.by_batch(self.summary(sharding.by_batch(summary))),
      word_durations=word_durations,
      word_mask=cond.transcript_mask,
      spans=spans,
    )


def mean(x, mask):
  """Returns the mean of x [b n d] over the tokens of a mask [b n]."""
  weight = mask[..., None].astype(x.dtype)
  return (x * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1.0)
