"""Finds clips that are copies of others, by their fingerprints.

Each clip gives the 64 smallest hashes of its fingerprint's entries: copies
choose the same. Clips that share one are compared with the first clip that has
it, at the lag at which most entries agree: a copy is what differs in at most a
given share of the bits, over half of the shorter one or more. An entry that only
one of the two has (the other is silent, or of one colour) counts as half wrong.

Memory goes by `_TOKENS`, not by the number of clips: sets of more entries are
looked through in several passes.
"""

from collections.abc import Callable, Iterator
import dataclasses

import numpy as np

_SKETCH = 64
_TOKENS = 16_000_000
_OVERLAP = 0.5
# An odd number scatters the entries: multiplicative hashing by the golden ratio.
_GOLDEN = np.uint32(2654435769)


@dataclasses.dataclass(frozen=True)
class Kind:
  """How fingerprints of a kind are compared.

  Attributes:
    words: uint32 words of an entry.
    differ: largest share of bits in which a copy differs.
    least: least number of entries that both have.
  """

  words: int
  differ: float
  least: int


SOUND, PICTURE = Kind(1, 0.2, 20), Kind(2, 0.08, 2)


def find(
  prints: Callable[[int], np.ndarray], count: int, kind: Kind
) -> dict[int, int]:
  """Returns the earlier clip of which each copy is one.

  Args:
    prints: returns the fingerprint of a clip, uint32 words, by its number.
    count: number of clips; the first of several copies is the original.
    kind: how they are compared.
  """
  originals: dict[int, int] = {}
  for clip, before in sorted(set(_pairs(prints, count, kind))):
    known = originals.get(clip, clip)
    if before < known and alike(prints(before), prints(clip), kind):
      originals[clip] = originals.get(before, before)
  return originals


def alike(a: np.ndarray, b: np.ndarray, kind: Kind) -> bool:
  """Says whether two fingerprints are of copies."""
  a, b = a.reshape(-1, kind.words), b.reshape(-1, kind.words)
  lag = _lag(a, b)
  if lag is None:
    return False
  first, end = max(0, -lag), min(len(a), len(b) - lag)
  a_there, b_there = a.any(axis=1), b.any(axis=1)
  mine, yours = a[first:end], b[first + lag : end + lag]
  both = a_there[first:end] & b_there[first + lag : end + lag]
  one = a_there[first:end] ^ b_there[first + lag : end + lag]
  shorter = min(a_there.sum(), b_there.sum())
  if both.sum() < max(kind.least, _OVERLAP * shorter):
    return False
  wrong = np.bitwise_count(mine[both] ^ yours[both]).sum()
  bits = 32 * kind.words
  total = wrong + one.sum() * bits / 2
  return bool(total <= kind.differ * bits * (both.sum() + one.sum()))


def _lag(a: np.ndarray, b: np.ndarray) -> int | None:
  """Returns by how many entries b is late, by most equal words; or None."""
  votes: dict[int, int] = {}
  for word in range(a.shape[1]):
    places: dict[int, list[int]] = {}
    for i, value in enumerate(a[:, word].tolist()):
      if value:
        places.setdefault(value, []).append(i)
    for j, value in enumerate(b[:, word].tolist()):
      # One that stands for long says little of the lag.
      for i in places.get(value, [])[:8]:
        votes[j - i] = votes.get(j - i, 0) + 1
  return max(votes, key=lambda lag: (votes[lag], -abs(lag))) if votes else None


def _pairs(prints, count: int, kind: Kind) -> Iterator[tuple[int, int]]:
  """Yields (clip, earlier clip) of clips that share an entry of the sketch."""
  passes = max(1, -(-count * _SKETCH // _TOKENS))
  for part in range(passes):
    tokens, owners = [], []
    for clip in range(count):
      own = _sketch(prints(clip), kind)
      own = own[own % passes == part] if passes > 1 else own
      tokens.append(own)
      owners.append(np.full(len(own), clip, np.int32))
    token, owner = np.concatenate(tokens), np.concatenate(owners)
    order = np.lexsort((owner, token))
    token, owner = token[order], owner[order]
    new = (
      np.r_[True, token[1:] != token[:-1]] if len(token) else np.zeros(0, bool)
    )
    first = owner[np.flatnonzero(new)][np.cumsum(new) - 1]
    shared = owner != first
    yield from zip(owner[shared].tolist(), first[shared].tolist())


def _sketch(print_: np.ndarray, kind: Kind) -> np.ndarray:
  """Returns the smallest hashes of the words, uint32 [at most 64]."""
  words = print_.reshape(-1, kind.words)
  # The same word in another place is another token.
  place = np.arange(kind.words, dtype=np.uint32) * np.uint32(0x9E3779B1)
  hashes = ((words * _GOLDEN) ^ place)[words != 0]
  return np.unique(hashes)[:_SKETCH]
