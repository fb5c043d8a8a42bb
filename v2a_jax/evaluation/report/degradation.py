"""What worse pictures cost a model: its sounds for the picture as it is against
its sounds for a worse one, clip by clip.

All rows and metrics of quality are one family, corrected by Holm.
"""

from collections.abc import Sequence

from v2a_jax.evaluation.report.columns import Column, quality
from v2a_jax.evaluation.report.differences import in_words, of_pairs, row_of
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
  """Writes on which metrics each run differs with worse pictures."""
  rows = [(run, row) for run in runs for row in PICTURES if row_of(run, row)]
  pairs = [((run, GENERATED), (run, row)) for run, row in rows]
  gaps = of_pairs(quality(columns), pairs)
  sentences, equal = [], {}
  for (run, row), own in zip(rows, gaps):
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
