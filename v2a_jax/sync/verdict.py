"""What the judge's logits say of a clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

IN_TIME_MS = 80.0
_AROUND_MS = 50.0


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Logits of lags and of none, and what they mean.

  Attributes:
    logits: [..., lags + 1], the last of "the sound is not of this picture".
    offsets: lags in ms, ascending.
  """

  logits: jax.Array
  offsets: np.ndarray

  @property
  def probabilities(self) -> jax.Array:
    """Probabilities of lags and of none, [..., lags + 1]."""
    return jax.nn.softmax(self.logits)

  @property
  def none(self) -> jax.Array:
    """Probability that the sound is not of this picture."""
    return self.probabilities[..., -1]

  @property
  def in_time(self) -> jax.Array:
    """Probability that the sound is at most 80 ms early or late."""
    near = np.abs(self.offsets) <= IN_TIME_MS + 1e-6
    return self.probabilities[..., :-1] @ near.astype(np.float32)

  @property
  def offset(self) -> jax.Array:
    """How late the sound is, if it is of this picture, in ms.

    The mean lag within 50 ms of the likeliest, which is between classes.
    """
    logits, lags = self.logits[..., :-1], jnp.asarray(self.offsets)
    peak = lags[jnp.argmax(logits, axis=-1)]
    around = jnp.abs(lags - peak[..., None]) <= _AROUND_MS
    share = jax.nn.softmax(jnp.where(around, logits, -jnp.inf))
    return (share * lags).sum(-1)
