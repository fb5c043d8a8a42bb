"""Which true sound each sound depends on, where both are of the same clips.

A distance of sets to the judged clips' own true sounds has to know which sounds
depend on each other: they are drawn together where few clips are extrapolated
to many (extrapolation.py), and left out of pairs that must be independent
(kernel.py). A sound made for a clip depends on that clip's true sound. But
the sounds of a system that retrieves, or of a folder with wrong names, may be
the true sounds of other judged clips. Taken for independent of them, such a set
comes out nearer to the truth than the truth itself, under 0.

So a sound is paired with another clip's true sound where it is a copy of it: far
nearer, by the means of their embeddings, than to any other true sound. "Far" is
the ratio to the second nearest, as Lowe, "Distinctive image features from
scale-invariant keypoints", 2004, tells matches from chance.
"""

import numpy as np
from scipy.spatial import distance

from v2a_jax.hearing.embeddings import Features, joined

_RATIO = 0.6
_BLOCK = 1024  # clips


def paired(features: Features, truth: Features) -> Features:
  """Returns the true sounds in the order of what depends on them.

  Args:
    features: of the sounds of all clips.
    truth: of the true sounds of the same clips, in the same order.
  """
  order = pairs(features, truth)
  if np.array_equal(order, np.arange(len(order))):
    return truth
  parts = truth.split()
  return joined([parts[i] for i in order])


def pairs(features: Features, truth: Features) -> np.ndarray:
  """Returns the index of the true sound that each sound is paired with.

  int [clips], each index once. Arguments are those of `paired`.
  """
  made, true = _means(features), _means(truth)
  count = len(true)
  found, free = np.full(count, -1), np.ones(count, bool)
  for _, i, j in sorted(_copies(made, true)):
    if free[j]:
      found[i], free[j] = j, False
  own = np.flatnonzero((found < 0) & free)
  found[own], free[own] = own, False
  found[found < 0] = np.flatnonzero(free)
  return found


def _copies(made: np.ndarray, true: np.ndarray):
  """Yields distance, sound and true sound of copies."""
  if len(true) < 3:
    return
  for start in range(0, len(made), _BLOCK):
    apart = distance.cdist(made[start : start + _BLOCK], true)
    nearest = np.argpartition(apart, 1, axis=1)[:, :2]
    rows = np.arange(len(apart))
    first, second = (apart[rows, nearest[:, k]] for k in (0, 1))
    for i in np.flatnonzero(first < _RATIO * second):
      yield first[i], start + i, nearest[i, 0]


def _means(features: Features) -> np.ndarray:
  """Returns the mean embedding of each clip, float64 [clips, d]."""
  sizes = np.bincount(features.clips)[:, None]
  totals = np.zeros((len(sizes), features.vectors.shape[1]))
  np.add.at(totals, features.clips, features.vectors)
  return totals / sizes
