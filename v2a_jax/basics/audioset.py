"""Which of AudioSet's 527 classes are speech, music and effects.

Numbers are those of `class_labels_indices.csv`
(https://research.google.com/audioset/download.html). Singing (27 to 37), and
silence, test signals, rooms and noise (500 on) are none of the three.
"""

from collections.abc import Collection

KINDS = {
  "speech": (range(0, 8),),
  "music": (range(137, 283),),
  "effects": (range(8, 27), range(38, 137), range(283, 500)),
}
MUSIC = 137  # the class of all music


def kinds(classes: Collection[int]) -> list[str]:
  """Returns the kinds that one or more of the classes are of."""
  return [kind for kind in KINDS if not {*numbers(kind)}.isdisjoint(classes)]


def numbers(kind: str) -> list[int]:
  """Returns the classes of a kind, ascending."""
  return [number for part in KINDS[kind] for number in part]
