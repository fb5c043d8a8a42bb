"""What is being said at each moment: words read at the times of other tokens.

A word says something from its start to its end. A latent inside takes the
word's features and its own place in the word, from 0 to 1; with word i from a_i
to b_i, features h_i, and s(x) a logistic step 1 / (1 + e^(-x / 20 ms)),

  w_i(t) = s(t - a_i) s(b_i - t),          p_i(t) = (t - a_i) / (b_i - a_i)
  x(t)   = Σ_i w_i(t) (W h_i + U cos(π p_i(t) k)_k) / max(1, Σ_i w_i(t))
  out    = conv-SwiGLU(x), nothing far from every word

so words reach the adaptive norms as the frames do, at their time, and predicted
times have a gradient. Phones of neural speech synthesis are read in this way by
their durations (FastSpeech 2, https://arxiv.org/abs/2006.04558).
"""

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.models import layers

EDGE = 0.02  # Seconds in which a word fades in and out.
WAVES = 8  # Cosines of the place inside a word.


class Spoken(nnx.Module):
  """`CondTokens` and times [t] → features of what is said then, [b t d]."""

  def __init__(self, width: int, *, rngs: nnx.Rngs, dtype=None):
    common = dict(rngs=rngs, dtype=dtype)
    self.word = layers.dense(width, width, axes=("embed", None), **common)
    self.place = layers.dense(WAVES, width, axes=(None, "embed"), **common)
    self.mlp = layers.FeedForward(width, width, kernel=3, **common)

  def __call__(self, tokens, times):
    """Reads the words of `tokens` at `times` [t] in seconds: [b t d]."""
    words, starts = tokens.words
    since = times[None, :, None] - starts[:, None, :]
    durations = jnp.maximum(tokens.word_durations, EDGE)[:, None, :]
    inside = jax.nn.sigmoid(since / EDGE)
    inside = inside * jax.nn.sigmoid((durations - since) / EDGE)
    inside = inside * tokens.word_mask[:, None, :]
    share = inside / jnp.maximum(inside.sum(axis=-1, keepdims=True), 1.0)
    place = jnp.clip(since / durations, 0.0, 1.0)
    waves = jnp.cos(jnp.pi * place[..., None] * jnp.arange(WAVES))
    where = jnp.einsum("bts,btsk->btk", share, waves)
    x = share.astype(words.dtype) @ self.word(words)
    return self.mlp(x + self.place(where.astype(words.dtype)))
