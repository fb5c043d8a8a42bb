"""What worse pictures cost a model: itself, given the picture as it is, against
itself, given a worse one, clip by clip.

All rows and metrics of quality are one family, corrected by Holm.
"""

from collections.abc import Sequence

from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.report.differences import (
  corrected,
  differences,
  in_words,
  row_of,
)
from v2a_jax.evaluation.report.sentence import Sentence, join
from v2a_jax.evaluation.schema import GENERATED

# Rows of pictures.py, in words.
PICTURES = {
  "compressed_video": "strongly compressed pictures",
  "noisy_video": "noisy pictures",
  "slow_video": "pictures of 5 frames a second",
  "film_video": "pictures as of an old film",
}


def against_worse_pictures(
  runs: Sequence[dict], columns: Sequence[Column]
) -> list[Sentence]:
  """Writes on what each run differs with worse pictures; [] without such."""
  rows = [(run, row) for run in runs for row in PICTURES if row_of(run, row)]
  found = [
    (i, gap)
    for i, (run, row) in enumerate(rows)
    for gap in differences(quality(columns), (run, GENERATED), (run, row))
  ]
  gaps = corrected([gap for _, gap in found])
  sentences, equal = [], {}
  for i, (run, row) in enumerate(rows):
    own = [gap for (j, _), gap in zip(found, gaps) if j == i]
    for sign, word in ((1, "worse"), (-1, "better")):
      if words := in_words(own, sign):
        lead = f"Given {PICTURES[row]}, {run['name']} is {word} on"
        sentences.append(Sentence("tie", lead, words))
    if own and not any(gap.sign for gap in own):
      equal.setdefault(run["name"], []).append(PICTURES[row])
  for name, pictures in equal.items():
    lead = f"Given {join(pictures)}, {name} cannot be told from itself"
    sentences.append(Sentence("tie", lead))
  return sentences
