"""A multimodal diffusion transformer over audio latents.

Joint blocks (MM-DiT, arXiv:2403.03206) let audio, video and text tokens attend
to one another, each stream with weights of its own; audio-only blocks follow
(arXiv:2412.15322). Every norm of the audio stream is modulated per token by
diffusion time, the clip's summary and the synchronisation features read at the
token's own time. All rotary positions are in seconds.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.models import attention, layers
from v2a_jax.parallel.sharding import constrain


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig:
  """Sizes of a diffusion transformer.

  Attributes:
    width: of every token.
    num_heads: heads of width / num_heads.
    joint_depth: blocks over audio, video and text.
    depth: audio-only blocks that follow.
    mlp_dim: hidden size of the audio feed-forward.
    channels: of a latent.
    modulation_rank: rank of the per-block modulation map; 0 is full rank.
    infill: latents that are known come in beside the noisy ones.
    representation: numbers a latent of a teacher's features that are said
      beside (`pretrained/teacher.py`); 0 for no teacher.
    average: the end of an interval comes in beside the diffusion time, for
      average velocities (`objectives/mean_flow.py`).
    remat: rematerialisation policy, see `layers.REMAT_POLICIES`.
    unroll: blocks unrolled in each scan.
    dtype: of the computation.
  """

  width: int
  num_heads: int
  joint_depth: int
  depth: int
  mlp_dim: int
  channels: int
  modulation_rank: int = 0
  infill: bool = False
  average: bool = False
  representation: int = 0
  remat: str = "none"
  unroll: int = 1
  dtype: str = "float32"


class Modulation(nnx.Module):
  """Adaptive-norm scale, shift and gate per token (adaLN-zero,
  arXiv:2212.09748); `parts` triples from a condition [b t d]."""

  def __init__(self, width, parts, *, rank, rngs, dtype):
    self.parts = parts
    self.down = rank and layers.dense(
      width, rank, axes=("embed", None), rngs=rngs, dtype=dtype
    )
    self.up = layers.dense(
      rank or width,
      3 * parts * width,
      axes=(None, "embed"),
      rngs=rngs,
      use_bias=True,
      zero=True,
      dtype=dtype,
    )

  def __call__(self, condition):
    x = jax.nn.silu(condition)
    x = self.up(self.down(x) if self.down else x)
    return jnp.split(x, 3 * self.parts, axis=-1)


def modulate(x, shift, scale):
  return layers.rms_norm(x) * (1 + scale) + shift


class AudioBlock(nnx.Module):
  """Self-attention and conv-SwiGLU over the audio tokens alone."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    c = config
    self.modulation = Modulation(
      c.width, 2, rank=c.modulation_rank, rngs=rngs, dtype=dtype
    )
    self.attention = attention.Projection(
      c.width, c.num_heads, c.width // c.num_heads, rngs=rngs, dtype=dtype
    )
    self.mlp = layers.FeedForward(
      c.width, c.mlp_dim, kernel=3, rngs=rngs, dtype=dtype
    )

  def __call__(self, x, times, mask, condition):
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(
      condition
    )
    q, k, v = self.attention(modulate(x, shift_a, scale_a), times)
    x = x + gate_a * self.attention.out(attention.attend(q, k, v, mask=mask))
    x = x + gate_m * self.mlp(modulate(x, shift_m, scale_m), mask=mask)
    return constrain(x, "batch", "length", "embed")


class CondStream(nnx.Module):
  """A condition's own half of a joint block: plain pre-norm."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    c = config
    self.norm_attention = layers.RMSNorm(c.width, rngs=rngs)
    self.norm_mlp = layers.RMSNorm(c.width, rngs=rngs)
    self.attention = attention.Projection(
      c.width, c.num_heads, c.width // c.num_heads, rngs=rngs, dtype=dtype
    )
    self.mlp = layers.FeedForward(c.width, 2 * c.width, rngs=rngs, dtype=dtype)

  def project(self, x, times):
    return self.attention(self.norm_attention(x), times)

  def finish(self, x, attended):
    x = x + self.attention.out(attended)
    return x + self.mlp(self.norm_mlp(x))


class JointBlock(nnx.Module):
  """One attention over audio, video and text, with weights per stream."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    self.audio = AudioBlock(config, rngs=rngs, dtype=dtype)
    self.video = CondStream(config, rngs=rngs, dtype=dtype)
    self.text = CondStream(config, rngs=rngs, dtype=dtype)

  def __call__(self, streams, times, mask, condition):
    x, video, text = streams
    audio_times, video_times, text_times = times
    modulation = self.audio.modulation(condition)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
    parts = (
      self.audio.attention(modulate(x, shift_a, scale_a), audio_times),
      self.video.project(video, video_times),
      self.text.project(text, text_times),
    )
    q, k, v = (jnp.concatenate(p, axis=1) for p in zip(*parts))
    attended = attention.attend(q, k, v, mask=jnp.concatenate(mask, axis=1))
    ends = [x.shape[1], x.shape[1] + video.shape[1]]
    for_audio, for_video, for_text = jnp.split(attended, ends, axis=1)
    x = x + gate_a * self.audio.attention.out(for_audio)
    x = x + gate_m * self.audio.mlp(modulate(x, shift_m, scale_m), mask=mask[0])
    video = self.video.finish(video, for_video)
    text = self.text.finish(text, for_text)
    return constrain(x, "batch", "length", "embed"), video, text


def beside_known(noisy, known):
  """Joins noisy [b t c] with the known latents and their mask: [b t 2c+1].

  Args:
    noisy: [b t c].
    known: (latents [b t c], bool [b t]), or None.
  """
  if known is None:
    return jnp.pad(noisy, ((0, 0), (0, 0), (0, noisy.shape[-1] + 1)))
  there = known[1][..., None].astype(noisy.dtype)
  return jnp.concatenate([noisy, known[0] * there, there], axis=-1)


class RepresentationHead(nnx.Module):
  """Audio tokens [b t d] → what a teacher would hear [b t f]."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    c = config
    self.norm = layers.RMSNorm(c.width, rngs=rngs)
    self.mlp = layers.FeedForward(c.width, 2 * c.width, rngs=rngs, dtype=dtype)
    self.out = layers.dense(
      c.width, c.representation, axes=("embed", None), rngs=rngs, dtype=dtype
    )

  def __call__(self, x):
    return self.out(x + self.mlp(self.norm(x))).astype(jnp.float32)


class DiT(nnx.Module):
  """(noisy latents, diffusion time, condition tokens) → prediction."""

  def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    dtype = jnp.dtype(c.dtype)
    self.embed = layers.dense(
      3 * (2 * c.channels + 1 if c.infill else c.channels),
      c.width,
      axes=(None, "embed"),
      rngs=rngs,
      use_bias=True,
      dtype=dtype,
    )
    self.time = layers.dense(
      c.width,
      c.width,
      axes=(None, "embed"),
      rngs=rngs,
      use_bias=True,
      dtype=dtype,
    )
    self.interval = c.average and layers.dense(
      c.width, c.width, axes=(None, "embed"), rngs=rngs, zero=True, dtype=dtype
    )
    self.joint = layers.Stack(
      lambda rngs: JointBlock(c, rngs=rngs, dtype=dtype),
      c.joint_depth,
      rngs=rngs,
      remat=c.remat,
      unroll=c.unroll,
    )
    self.audio = layers.Stack(
      lambda rngs: AudioBlock(c, rngs=rngs, dtype=dtype),
      c.depth,
      rngs=rngs,
      remat=c.remat,
      unroll=c.unroll,
    )
    self.head = c.representation and RepresentationHead(
      c, rngs=rngs, dtype=dtype
    )
    self.final = Modulation(
      c.width, 1, rank=c.modulation_rank, rngs=rngs, dtype=dtype
    )
    self.out = layers.dense(
      c.width,
      c.channels,
      axes=("embed", None),
      rngs=rngs,
      use_bias=True,
      zero=True,
      dtype=dtype,
    )

  def __call__(
    self,
    noisy_latents,
    time,
    tokens,
    *,
    times,
    mask=None,
    known=None,
    until=None,
    represent=False,
  ):
    """Predicts from noisy latents.

    Args:
      noisy_latents: [b t c].
      time: [b], diffusion time; 1 is data.
      tokens: `CondTokens` of the same batch.
      times: [t], seconds of each latent.
      mask: bool [b t], True where the clip exists; None for everywhere.
      known: (latents [b t c], bool [b t]), what is known of the answer; read
        only by a model with `infill`. None for nothing.
      until: [b], end of the interval whose average velocity is predicted; read
        only by a model with `average`. None for `time` itself.
      represent: whether to say what a teacher would hear, too; for a model with
        `representation`.

    Returns:
      float32 [b t c]; with `represent` also [b t f].
    """
    if mask is None:
      mask = jnp.ones(noisy_latents.shape[:2], bool)
    if self.config.infill:
      noisy_latents = beside_known(noisy_latents, known)
    x = layers.neighbours(noisy_latents, 3, mask=mask)
    x = constrain(self.embed(x), "batch", "length", "embed")
    # The slope along time is part of an average velocity, so there it is mild.
    scale = 10.0 if self.config.average else 1000.0
    clock = self.time(layers.sinusoidal(time, self.config.width, scale=scale))
    if self.interval and until is not None:
      length = layers.sinusoidal(until - time, self.config.width, scale=scale)
      clock = clock + self.interval(length)
    condition = (clock + tokens.summary)[:, None] + tokens.sync_at(times)
    times = jnp.broadcast_to(times, x.shape[:2])
    x, _, _ = self.joint(
      (x, tokens.video, tokens.text),
      (times, tokens.video_times, tokens.text_times),
      (mask, tokens.video_mask, tokens.text_mask),
      condition,
    )
    heard = self.head(x) if represent else None
    x = self.audio(x, times, mask, condition)
    shift, scale, _ = self.final(condition)
    x = self.out(modulate(x, shift, scale)).astype(jnp.float32)
    return (x, heard) if represent else x

  def flops(self, length: int, frames: int, text: int, *, sync: int) -> int:
    """Of one example's forward pass over `length` latents.

    Tokens to attend to are of so many `frames`; `sync` are read by time.
    """
    c, joint = self.config, self.joint.blocks
    total = length + frames + text
    linear = (
      layers.matmul_flops(self.embed, length)
      + layers.matmul_flops(self.time, 1)
      + layers.matmul_flops(self.interval or None, 1)
      + layers.matmul_flops(joint and joint.audio, length)
      + layers.matmul_flops(joint and joint.video, frames)
      + layers.matmul_flops(joint and joint.text, text)
      + layers.matmul_flops(self.audio, length)
      + layers.matmul_flops(self.final, length)
      + layers.matmul_flops(self.out, length)
      + layers.matmul_flops(self.head or None, length)
    )
    attended = c.joint_depth * layers.attention_flops(total, total, c.width)
    attended += c.depth * layers.attention_flops(length, length, c.width)
    read = 2 * length * sync * c.width
    return linear + attended + read
