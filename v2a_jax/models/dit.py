"""A multimodal diffusion transformer over audio latents.

Joint blocks (MM-DiT, arXiv:2403.03206) let audio, video and text tokens attend
to one another, each stream with weights of its own; audio-only blocks follow
(arXiv:2412.15322). Every norm of the audio stream is modulated per token by
diffusion time, the clip's summary, and the synchronisation features and words
read at the token's own time. All rotary positions are in seconds.
"""

import dataclasses
import functools
from typing import ClassVar

from flax import nnx
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import attention, config, layers
from v2a_jax.models.attend import attend
from v2a_jax.models.spoken import Spoken
from v2a_jax.parallel.sharding import by_token


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig(config.TransformerConfig):
  """Sizes of a diffusion transformer; see also `TransformerConfig`.

  Attributes:
    joint_depth: number of blocks over audio, video and text.
    depth: number of audio-only blocks after the joint ones.
    mlp_dim: hidden size of the audio stream's feed-forward layers.
    infill: whether known latents are an input beside the noisy ones.
    average: whether the end of an interval is an input beside the diffusion
      time, for average velocities (`objectives/mean_flow.py`).
    channels: number of channels of a latent.
    representation: number of a teacher's features that are regressed for each
      latent (`objectives/teacher.py`); 0 for no head.
  """

  family: ClassVar[str] = "diffusion"
  target: ClassVar[str] = "latents"

  joint_depth: int
  infill: bool = False
  average: bool = False
  channels: int = settings.derived("codec.latent_dim")
  representation: int = settings.derived(
    "objective.representation_dim", default=0
  )

  def __post_init__(self):
    super().__post_init__()
    settings.check(self, joint_depth="[0, inf)", channels="[1, inf)")
    if self.average and self.attention not in ("auto", "xla"):
      raise settings.SettingError(
        f"attention={self.attention!r} has no derivative by time, which"
        " average=True needs: use auto or xla"
      )

  @property
  def implementation(self) -> str:
    """Implementation of attention: fused kernels have no `jax.jvp`."""
    return "xla" if self.average else self.attention

  def make(self, *, rngs: nnx.Rngs) -> "DiT":
    """Makes the backbone."""
    return DiT(self, rngs=rngs)


class AudioBlock(nnx.Module):
  """Self-attention and conv-SwiGLU over the audio tokens alone."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    c, common = config, dict(rngs=rngs, dtype=dtype)
    rank = c.modulation_rank
    self.implementation = c.implementation
    self.modulation = layers.Modulation(c.width, 2, rank=rank, **common)
    self.attention = attention.Projection(c.width, c.num_heads, **common)
    self.mlp = layers.FeedForward(c.width, c.mlp_dim, kernel=3, **common)

  def project(self, x, times, modulation):
    """Maps x [b t d] at times [b t] to q, k, v of [b t h k]."""
    shift, scale = modulation[:2]
    return self.attention(layers.modulate(x, shift, scale), times)

  def attend(self, q, k, v, mask):
    """Attends from queries [b t h k] to keys [b s h k] of mask bool [b s]."""
    return attention.attend(
      q, k, v, mask=mask, implementation=self.implementation
    )

  def finish(self, x, attended, mask, modulation):
    """Adds the attention's output [b t d], then the feed-forward's, to x."""
    gate_a, shift, scale, gate_m = modulation[2:]
    x = x + gate_a * self.attention.out(attended)
    return x + gate_m * self.mlp(layers.modulate(x, shift, scale), mask=mask)

  def __call__(self, x, times, mask, condition):
    modulation = self.modulation(condition)
    q, k, v = self.project(x, times, modulation)
    attended = attend(q, k, v, mask=mask, implementation=self.implementation)
    return self.finish(x, attended, mask, modulation)


class JointBlock(nnx.Module):
  """One attention over audio, video and text, with weights per stream."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    self.audio = AudioBlock(config, rngs=rngs, dtype=dtype)
    stream = lambda: attention.SelfAttentionBlock(
      config.width,
      config.num_heads,
      rngs=rngs,
      dtype=dtype,
      implementation=config.implementation,
    )
    self.video, self.text = stream(), stream()

  def __call__(self, streams, times, mask, condition):
    audio, video, text = streams
    audio_times, video_times, text_times = times
    modulation = self.audio.modulation(condition)
    parts = (
      self.audio.project(audio, audio_times, modulation),
      self.video.project(video, video_times),
      self.text.project(text, text_times),
    )
    queries, *parts = zip(*parts)
    k, v = (attention.join_keys(p) for p in parts)
    see = functools.partial(
      attend,
      k=k,
      v=v,
      mask=jnp.concatenate(mask, axis=1),
      implementation=self.audio.implementation,
    )
    for_audio, for_video, for_text = map(see, queries)
    return (
      self.audio.finish(audio, for_audio, mask[0], modulation),
      self.video.finish(video, for_video),
      self.text.finish(text, for_text),
    )


class LastJointBlock(nnx.Module):
  """The last joint block: video and text are read, and go no further."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    self.audio = AudioBlock(config, rngs=rngs, dtype=dtype)
    stream = lambda: attention.KeyValues(
      config.width, config.num_heads, rngs=rngs, dtype=dtype
    )
    self.video, self.text = stream(), stream()

  def __call__(self, streams, times, mask, condition):
    """Returns the audio tokens [b t d]."""
    audio, video, text = streams
    modulation = self.audio.modulation(condition)
    q, *own = self.audio.project(audio, times[0], modulation)
    parts = (own, self.video(video, times[1]), self.text(text, times[2]))
    k, v = (attention.join_keys(p) for p in zip(*parts))
    attended = attend(
      q,
      k,
      v,
      mask=jnp.concatenate(mask, axis=1),
      implementation=self.audio.implementation,
    )
    return self.audio.finish(audio, attended, mask[0], modulation)


def join_known(noisy, known):
  """Joins noisy latents with the known ones and their mask: [b t 2c+1].

  Args:
    noisy: [b t c].
    known: (latents [b t c], bool [b t]), or None for nothing.
  """
  if known is None:
    return jnp.pad(noisy, ((0, 0), (0, 0), (0, noisy.shape[-1] + 1)))
  mask = known[1][..., None].astype(noisy.dtype)
  return jnp.concatenate([noisy, known[0] * mask, mask], axis=-1)


class RepresentationHead(nnx.Module):
  """Audio tokens [b t d] → a teacher's features [b t f]."""

  def __init__(self, config: DiTConfig, *, rngs, dtype):
    c, common = config, dict(rngs=rngs, dtype=dtype)
    self.norm = layers.RMSNorm(c.width, rngs=rngs)
    self.mlp = layers.FeedForward(c.width, 2 * c.width, **common)
    self.out = layers.dense(
      c.width, c.representation, axes=("embed", None), **common
    )

  def __call__(self, x):
    return self.out(x + self.mlp(self.norm(x))).astype(jnp.float32)


class DiT(nnx.Module):
  """(noisy latents, diffusion time, condition tokens) → prediction."""

  def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
    c = self.config = config
    dtype = jnp.dtype(c.dtype)
    common = dict(rngs=rngs, dtype=dtype)
    dense = functools.partial(layers.dense, axes=(None, "embed"), **common)
    stack = functools.partial(
      layers.Stack, rngs=rngs, remat=c.remat, unroll=c.unroll
    )
    inputs = 3 * (2 * c.channels + 1 if c.infill else c.channels)
    self.embed = dense(inputs, c.width, use_bias=True)
    self.time = dense(c.width, c.width, use_bias=True)
    self.interval = dense(c.width, c.width, zero=True) if c.average else None
    self.spoken = Spoken(c.width, **common)
    self.joint = stack(
      lambda rngs: JointBlock(c, rngs=rngs, dtype=dtype),
      max(c.joint_depth - 1, 0),
    )
    self.last_joint = stack(
      lambda rngs: LastJointBlock(c, rngs=rngs, dtype=dtype),
      min(c.joint_depth, 1),
    )
    self.audio = stack(
      lambda rngs: AudioBlock(c, rngs=rngs, dtype=dtype), c.depth
    )
    self.head = RepresentationHead(c, **common) if c.representation else None
    rank = c.modulation_rank
    self.final = layers.Modulation(c.width, 1, rank=rank, **common)
    self.out = dense(
      c.width, c.channels, axes=("embed", None), use_bias=True, zero=True
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
  ):
    """Predicts from noisy latents.

    Args:
      noisy_latents: [b t c].
      time: [b], diffusion time; 1 is data.
      tokens: `CondTokens` of the same batch.
      times: [t], time of each latent in seconds.
      mask: bool [b t], True where the clip exists; None for everywhere.
      known: (latents [b t c], bool [b t]), the latents that are known and
        where; only for a model with `infill`. None for nowhere.
      until: [b], end of the interval whose average velocity is predicted; only
        for a model with `average`. None for `time` itself.

    Returns:
      float32 [b t c].
    """
    _, prediction = self._run(
      noisy_latents, time, tokens, times, mask, known, until
    )
    return prediction

  def represent(self, noisy_latents, time, tokens, *, times, mask, known=None):
    """Predicts, and regresses a teacher's features from the joint blocks.

    Args are those of `__call__`; only for a model with `representation`.

    Returns:
      (prediction float32 [b t c], features float32 [b t f]).
    """
    x, prediction = self._run(
      noisy_latents, time, tokens, times, mask, known, None
    )
    return prediction, self.head(x)

  def _run(self, noisy_latents, time, tokens, times, mask, known, until):
    """Returns (audio tokens [b t d] of the joint blocks, prediction)."""
    if mask is None:
      mask = jnp.ones(noisy_latents.shape[:2], bool)
    if self.config.infill:
      noisy_latents = join_known(noisy_latents, known)
    x = layers.neighbours(noisy_latents, 3, mask=mask)
    x = by_token(self.embed(x))
    # Average velocities are trained on derivatives by time: keep those small.
    scale = 10.0 if self.config.average else 1000.0
    features = functools.partial(
      layers.sinusoidal, size=self.config.width, scale=scale
    )
    clock = self.time(features(time))
    if self.interval is not None and until is not None:
      clock = clock + self.interval(features(until - time))
    condition = (clock + tokens.summary)[:, None] + tokens.sync_at(times)
    condition = condition + self.spoken(tokens, times)
    condition = by_token(condition)
    times = jnp.broadcast_to(times, x.shape[:2])
    arguments = (
      (times, tokens.video_times, tokens.text_times),
      (mask, tokens.video_mask, tokens.text_mask),
      condition,
    )
    x, video, text = self.joint((x, tokens.video, tokens.text), *arguments)
    joint, _ = self.last_joint.scan(
      lambda block, x, _: (block((x, video, text), *arguments), None), x
    )
    x = self.audio(joint, times, mask, condition)
    shift, scale, _ = self.final(condition)
    prediction = self.out(layers.modulate(x, shift, scale))
    return joint, prediction.astype(jnp.float32)
