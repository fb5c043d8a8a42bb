"""Encoded conditions: token streams with times."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class CondTokens:
  """Encoded conditions; an absent one is already its learned null.

  Attributes:
    video: [b m d], one token a frame of the semantic stream.
    video_times: [b m], seconds.
    video_mask: bool [b m].
    text: [b l d], prompt then transcript.
    text_times: [b l], seconds; 0 for the prompt.
    text_mask: bool [b l].
    sync: [b n d], one token a frame of the synchronisation stream, input of the
      adaptive norms. With one stream for both, `video`.
    sync_times: [b n], seconds.
    sync_mask: bool [b n].
    summary: [b d], feature of the whole clip.
    word_durations: [b s], duration in seconds of each of the transcript's
      tokens, the last s of the text.
    word_mask: bool [b s], all False where nothing is to be said.
    spans: (onsets [b s], durations [b s]) in seconds that the aligner predicts for
      the transcript's tokens; None without an aligner.
  """

  video: Any
  video_times: Any
  video_mask: Any
  text: Any
  text_times: Any
  text_mask: Any
  sync: Any
  sync_times: Any
  sync_mask: Any
  summary: Any
  word_durations: Any
  word_mask: Any
  spans: Any = None

  @property
  def words(self):
    """Tokens of the transcript [b s d], and the times at which they begin."""
    s = self.word_mask.shape[1]
    return self.text[:, -s:], self.text_times[:, -s:]

  def sync_at(self, times):
    """Reads the synchronisation features at times [t]: [b t d]."""
    return read_at(times, self.sync, self.sync_times, self.sync_mask)


def read_at(times, features, at, mask, *, width: float = 0.02):
  """Interpolates features of frames at other times.

  A normalised Gaussian kernel over time fits any frame rate, variable rates and
  missing frames; far from every frame it gives the nearest one.

  Args:
    times: [t], seconds.
    features: [b n d].
    at: [b n], the features' own times, seconds.
    mask: bool [b n]; True somewhere in every row.
    width: standard deviation of the kernel, seconds.

  Returns:
    [b t d].
  """
  gap = times[None, :, None] - at[:, None, :]
  score = -0.5 * jnp.square(gap / width)
  score = jnp.where(mask[:, None, :], score, -jnp.inf)
  weight = jax.nn.softmax(score, axis=-1).astype(features.dtype)
  return weight @ features


def or_null(tokens, mask, null):
  """Replaces the tokens of an absent condition by one learned null token.

  Args:
    tokens: [b n d].
    mask: bool [b n].
    null: [d].

  Returns:
    (tokens, mask); rows whose mask was all False have the null token, and True
    at position 0.
  """
  present = mask.any(axis=1)
  first = jnp.arange(mask.shape[1]) == 0
  tokens = jnp.where(present[:, None, None], tokens, null.astype(tokens.dtype))
  return tokens, jnp.where(present[:, None], mask, first)
