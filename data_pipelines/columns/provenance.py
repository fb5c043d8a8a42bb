"""Who says the texts of the records: `provenance`, the columns that a build writes.

A row has `by`, `confidence` where it is known, and `texts`: the captions and the
transcript of the record that come from there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
import pathlib
from typing import Any

from data_pipelines.columns import store
from data_pipelines.columns.values import BY, CONFIDENCE

NAME, TEXTS = "provenance", "texts"


def write(
  folder: pathlib.Path, clips: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
  """Writes who says the texts of a data set; nothing if that is not known.

  Args:
    folder: folder of the data set, which is being finished.
    clips: sha256 and `clips.clip_facts` of each record.

  Raises:
    OSError: the disk is full.
  """
  clips = [(sha256, clip) for sha256, clip in clips if clip.get("said")]
  if not clips:
    return
  with store.Journal(folder, NAME, fresh=True) as journal:
    for sha256, clip in clips:
      texts = defaultdict(list)
      said = dict(zip(clip["texts"], clip["said"]))
      for text, entry in said.items():
        if entry:
          texts[tuple(entry)].append(text)
      for (by, confidence), own in texts.items():
        row = {BY: by, CONFIDENCE: confidence, TEXTS: own}
        journal.add(clip["id"], sha256, row)
    journal.finish(keep=False)
