"""The labeller's side of `v2a data annotate`: JSON lines in, JSON lines out.

A request is a line on standard input:

  {"id": "dog_t00010000", "sha256": "…", "seconds": 10.0,
   "video": "/tmp/….mp4", "audio": "/tmp/….flac", "caption": "…",
   "transcript": "…", "label": "…"}

`video` and `audio` are files that stay until the answer, null where the clip has
none; the sound is in `audio`, also if the video's file has a track. An answer is
a line on standard output, in any order:

  {"id": "dog_t00010000", "audio_caption": ["A dog barks."], "speech": false,
   "confidence": 0.8, "by": "captioner@1"}
  {"id": "rain", "error": "why there is nothing to say"}

Values are numbers, true or false, text, lists of texts, or lists of objects.
`words` are [{"word", "start", "end"}] in seconds from the clip's start, captions
one text or several, `transcript` is a text, `speech`, `music` and `effects` are
true or false or 0..1; an answer that has them otherwise is refused. When the
input ends, the labeller ends, with status 0. What it prints on standard error is
shown if it fails.
"""

from collections.abc import Callable, Mapping
import json
import os
import sys
from typing import Any

Request = Mapping[str, Any]


def serve(answer: Callable[[Request], Mapping[str, Any]], *, by: str) -> None:
  """Answers requests one by one until there are no more.

  Args:
    answer: returns the columns of a clip; a ValueError or OSError becomes its
      `error`.
    by: name and version of what answers, such as `silero@6.2`.
  """
  # Libraries that print must not end up among the answers.
  out = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)
  for line in sys.stdin:
    if not line.strip():
      continue
    request = json.loads(line)
    try:
      columns = dict(answer(request))
    except (ValueError, OSError) as error:
      columns = {"error": " ".join(str(error).split()) or type(error).__name__}
    text = json.dumps({"id": request["id"], "by": by, **columns})
    out.write(text + "\n")
    out.flush()
