"""Classifier-free guidance with a separate scale for each condition.

With c all conditions, c∖i all but i, and c(n) all with the negative prompt in
the prompt's place, the guided output of one step is

  out(c) + Σ_i (s_i - 1) [out(c) - out(c∖i)] + (s_n - 1) [out(c) - out(c(n))]
         + (s_j - 1) [out(c) - out(n)]

a linear combination of branches whose weights sum to one. A scale of 1 means no
guidance and adds no branch. The last term is joint guidance: n has the negative
prompt, if there is one, and no other condition. With no other scale it is
s_j out(c) + (1 - s_j) out(n), the guidance of most published models; the branch
of s_n keeps the video instead. Follows Ho & Salimans, arXiv:2207.12598;
separate scales as in Brooks et al., arXiv:2211.09800. All branches run as one
batch.
"""

import dataclasses

import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.batch import CONDITIONS, Conditioning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
  """Guidance scales; 1 is no guidance, higher ones follow a condition closer.

  Attributes:
    video: scale of the video.
    prompt: scale of the prompt.
    transcript: scale of the transcript.
    negative_prompt: scale of the guidance away from the negative prompt.
    joint: scale of all conditions together, away from the negative prompt
      without video or, if there is none, from no condition.
  """

  video: float = 1.0
  prompt: float = 1.0
  transcript: float = 1.0
  negative_prompt: float = 1.0
  joint: float = 1.0

  def __post_init__(self):
    names = ("video", "prompt", "transcript", "negative_prompt", "joint")
    settings.check(self, **dict.fromkeys(names, "[0, inf)"))

  def branches(self, cond: Conditioning, negative=None):
    """Stacks the branches along the batch.

    Args:
      cond: conditions of b examples.
      negative: (ids int [b l], mask bool [b l]) of negative prompts, or None.

    Returns:
      (conditions of k·b examples, weights [k]); branch 0 has every condition.
    """
    conds, weights = [cond], [1.0]

    def push_from(other, scale):
      conds.append(other)
      weights.append(1.0 - scale)
      weights[0] += scale - 1.0

    for name in ("video", "prompt", "transcript"):
      if getattr(self, name) != 1.0:
        push_from(cond.without(name), getattr(self, name))
    if negative is not None and self.negative_prompt != 1.0:
      ids, mask = negative
      worse = cond.replace(prompt=ids, prompt_mask=mask)
      push_from(worse, self.negative_prompt)
    if self.joint != 1.0:
      nothing = cond.without(*CONDITIONS)
      if negative is not None:
        ids, mask = negative
        nothing = nothing.replace(prompt=ids, prompt_mask=mask)
      push_from(nothing, self.joint)
    stacked = jax.tree.map(lambda *x: jnp.concatenate(x), *conds)
    return stacked, jnp.asarray(weights, jnp.float32)


def spread(x, weights):
  """Repeats [b ...] for each of k branches: [k·b ...]."""
  return jnp.tile(x, (weights.shape[0],) + (1,) * (x.ndim - 1))


def within(weights, inside):
  """Returns the weights [k] where a bool holds, else those of no guidance."""
  alone = jnp.zeros_like(weights).at[0].set(1.0)
  return jnp.where(inside, weights, alone)


def rescaled(guided, outputs, share):
  """Brings the deviation of guided outputs back to that of branch 0.

  Lin et al., "Common diffusion noise schedules and sample steps are flawed",
  https://arxiv.org/abs/2305.08891, eq. 15 and 16: strong guidance makes outputs
  larger than those that were trained.

  Args:
    guided: [b t c].
    outputs: [k·b t c], of all branches.
    share: share of the change that is made, in [0, 1].

  Returns:
    [b t c].
  """
  spread_of = lambda x: x.std(axis=(1, 2), keepdims=True)
  own = spread_of(outputs[: len(guided)])
  return guided * (1 - share + share * own / spread_of(guided))


def combine(outputs, weights):
  """Sums [k·b ...] over k branches with their weights: [b ...]."""
  k = weights.shape[0]
  return jnp.tensordot(weights, outputs.reshape(k, -1, *outputs.shape[1:]), 1)
