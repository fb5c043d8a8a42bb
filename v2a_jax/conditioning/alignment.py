"""Predicts the times of spoken words from the words and the frames.

With v(t) a feature of the frames at time t and h_i one of token i, after both
have attended to one another:

  r(t)    = softmax_t(a · v(t))            rate of speech
  P(t)    = Σ_{t' <= t} r(t')              share of the speech before t
  w_i     = softmax_i(b · h_i)             share of the speech that token i takes
  onset_i = P^{-1}(Σ_{k<i} w_k + w_i / 2)

The duration of a token is 0.2 e^(c · h_i) seconds.

Tokens follow one another inside the window whatever is learned; with a and b
zero, as at initialisation, they are spread evenly. Everything is
differentiable, so known onsets and the generator's own loss both train it.

Integrating a rate until the next token is due is continuous integrate-and-fire
(Dong and Xu, https://arxiv.org/abs/1905.11235); summing shares up is what the
durations of FastSpeech 2 (https://arxiv.org/abs/2006.04558) and Non-Attentive
Tacotron (https://arxiv.org/abs/2010.04301) do.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.models import attention, layers

CELL = 0.04  # Seconds between the points at which the rate is summed up.
# Share of the rate that is constant; bounds how far an onset can jump.
EVEN = 0.05
# A token's duration in seconds before anything is learned, and the logarithm of
# the most by which it differs.
DURATION, MOST = 0.2, 3.0
# Seconds: a time farther from every frame lies outside of the clip.
NEAR = 0.5


class Aligner(nnx.Module):
  """Transcript tokens and frames → their times in seconds."""

  def __init__(self, config, *, rngs, dtype):
    self.seconds = config.seconds
    self.blocks = attention.self_attention_stack(
      config, config.aligner_depth, rngs=rngs, dtype=dtype
    )
    self.norm = layers.RMSNorm(config.width, rngs=rngs)
    head = lambda: layers.dense(
      config.width, 1, axes=("embed", None), rngs=rngs, use_bias=True, zero=True
    )
    self.rate, self.share, self.duration = head(), head(), head()

  def __call__(self, words, words_mask, video, video_times, video_mask):
    """Predicts the onsets and durations of tokens.

    Args:
      words: [b s d], features of the transcript's tokens.
      words_mask: bool [b s], True for the first tokens of each row.
      video: [b n d].
      video_times: [b n], seconds.
      video_mask: bool [b n]; all False for a clip without frames.

    Returns:
      (onsets, not decreasing along a row, and durations), each float32 [b s] in
      seconds; meaningless where the mask is False.
    """
    even = (jnp.arange(words.shape[1]) + 0.5) * self.seconds
    even = even / jnp.maximum(words_mask.sum(axis=1, keepdims=True), 1)
    x = self.blocks(
      jnp.concatenate([video, words], axis=1),
      jnp.concatenate([video_times, even], axis=1),
      jnp.concatenate([video_mask, words_mask], axis=1),
    )
    x = self.norm(x).astype(jnp.float32)
    n = video.shape[1]
    taken = shares(self.share(x[:, n:])[..., 0], words_mask)
    share, edges = self._progress(self.rate(x[:, :n]), video_times, video_mask)
    middle = jnp.cumsum(taken, axis=1) - taken / 2
    onsets = jax.vmap(jnp.interp, (0, 0, None))(middle, share, edges)
    scale = jnp.clip(self.duration(x[:, n:])[..., 0], -MOST, MOST)
    return onsets, DURATION * jnp.exp(scale)

  def _progress(self, rate, times, mask):
    """Sums rates [b n 1] up: P [b g + 1] at the edges [g + 1] of a grid."""
    count = round(self.seconds / CELL)
    edges = jnp.linspace(0.0, self.seconds, count + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    none = ~mask.any(axis=1, keepdims=True)
    rate = jnp.where(mask[..., None], rate, 0.0)  # Even without frames.
    read = tokens_lib.read_at(middle, rate, times, mask | none)[..., 0]
    gap = jnp.abs(middle[None, :, None] - times[:, None, :])
    exists = ((gap < NEAR) & mask[:, None, :]).any(axis=2) | none
    rates = (1 - EVEN) * shares(read, exists) + EVEN * shares(0 * read, exists)
    return jnp.pad(jnp.cumsum(rates, axis=1), ((0, 0), (1, 0))), edges


def shares(logits, mask):
  """Returns the softmax of [b n] where mask is True; even if nowhere."""
  return jax.nn.softmax(jnp.where(mask, logits, -1e9), axis=-1)
