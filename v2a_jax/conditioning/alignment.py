"""When each word is said, found from the words and the picture.

With v(t) a feature of the picture at time t and h_i one of token i, after both
have attended to one another:

  r(t)    = softmax_t(a · v(t))            how fast speech runs on
  P(t)    = Σ_{t' <= t} r(t')              how much of it is over
  w_i     = softmax_i(b · h_i)             how long token i takes
  onset_i = P^{-1}(Σ_{k<i} w_k + w_i / 2)

Tokens come one after another inside the window whatever is learned; with a and
b zero, as at first, they are spread evenly. Everything is differentiable, so
known onsets and the generator's own loss both teach it.

A rate that is summed up until the next token is due is continuous
integrate-and-fire (Dong and Xu, https://arxiv.org/abs/1905.11235), lengths that
are summed up are the durations of FastSpeech 2 (https://arxiv.org/abs/2006.04558)
and Non-Attentive Tacotron (https://arxiv.org/abs/2010.04301).
"""

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.conditioning import tokens as tokens_lib
from v2a_jax.models import attention, layers

CELL = 0.04  # seconds of the grid on which the rate is summed up
# Share of P that runs on evenly: bounds how far its change moves an onset.
EVEN = 0.05
# Seconds: a time without a frame so near lies outside of the clip.
NEAR = 0.5


class Aligner(nnx.Module):
  """Transcript tokens and frames → onsets in seconds."""

  def __init__(self, config, *, rngs, dtype):
    self.seconds = config.seconds
    self.blocks = attention.self_attention_stack(
      config, config.aligner_depth, rngs=rngs, dtype=dtype
    )
    self.norm = layers.RMSNorm(config.width, rngs=rngs)
    head = lambda: layers.dense(
      config.width, 1, axes=("embed", None), rngs=rngs, use_bias=True, zero=True
    )
    self.rate, self.length = head(), head()

  def __call__(self, words, words_mask, video, video_times, video_mask):
    """Predicts onsets.

    Args:
      words: [b s d], features of the transcript's tokens.
      words_mask: bool [b s], the first ones of each row.
      video: [b n d].
      video_times: [b n], seconds.
      video_mask: bool [b n]; a row all False is a clip without a picture.

    Returns:
      float32 [b s], seconds; never falling along a row. Where no token is, they
      mean nothing.
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
    lengths = shares(self.length(x[:, n:])[..., 0], words_mask)
    over, edges = self._progress(self.rate(x[:, :n]), video_times, video_mask)
    place = jnp.cumsum(lengths, axis=1) - lengths / 2
    return jax.vmap(jnp.interp, (0, 0, None))(place, over, edges)

  def _progress(self, rate, times, mask):
    """P [b g + 1] at the edges [g + 1] of a grid, of rates [b n 1]."""
    count = round(self.seconds / CELL)
    edges = jnp.linspace(0.0, self.seconds, count + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    none = ~mask.any(axis=1, keepdims=True)
    rate = jnp.where(mask[..., None], rate, 0.0)  # no picture: even
    read = tokens_lib.read_at(middle, rate, times, mask | none)[..., 0]
    gap = jnp.abs(middle[None, :, None] - times[:, None, :])
    exists = ((gap < NEAR) & mask[:, None, :]).any(axis=2) | none
    rates = (1 - EVEN) * shares(read, exists) + EVEN * shares(0 * read, exists)
    return jnp.pad(jnp.cumsum(rates, axis=1), ((0, 0), (1, 0))), edges


def shares(logits, mask):
  """Softmax of [b n] over the places of a mask; even where there are none."""
  return jax.nn.softmax(jnp.where(mask, logits, -1e9), axis=-1)
