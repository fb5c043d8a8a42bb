"""Shows takes in notebooks: a player for each, with its seed and scores.

The sound is in the page itself as FLAC, at the model's rate, marked with the
watermark and not levelled. All players of a page together have at most
`SOUND_BYTES` of it, so a long sound is heard from its start only. Whatever a
user wrote is escaped and cut; nothing is loaded, and there are no scripts.
"""

import base64
from collections.abc import Iterator
import html

from v2a_jax import media, watermark
from v2a_jax.basics.text import clock

MOST_PLAYERS = 16
SOUND_BYTES = 6 * 2**20  # before base64, which adds a third
_SAMPLE_BYTES = 2
_TEXT = 300  # characters of what is quoted


def of_take(take) -> str:
  """Returns HTML of one `Soundtrack`."""
  return _table([take])


def of_takes(takes) -> str:
  """Returns HTML of `Soundtracks`: all takes for a video, the best first."""
  request = takes.request
  asked = {
    "prompt": request.prompt,
    "not": request.negative_prompt,
    "transcript": request.spoken,
  }
  lines = [f"<b>{_quoted(takes.video.name)}</b>, {clock(takes.seconds)}"]
  lines += [f"{name}: {_quoted(text)}" for name, text in asked.items() if text]
  if takes.rejected:
    lines.append(f"{len(takes.rejected)} more were rejected")
  return f"<div>{'<br>'.join(lines)}</div>{_table(takes.candidates)}"


def _table(takes) -> str:
  """Returns an HTML table with a row for each take."""
  shown = takes[:MOST_PLAYERS]
  names = list(dict.fromkeys(name for take in shown for name in take.scores))
  heads = ["seed", *names, "sound"]
  rows = [f"<tr>{''.join(f'<th>{_quoted(head)}</th>' for head in heads)}</tr>"]
  for take in shown:
    cells = "".join(f"<td>{cell}</td>" for cell in _cells(take, names, shown))
    rows.append(f"<tr>{cells}</tr>")
  more = len(takes) - len(shown)
  note = f"<div>{more} more are in <code>candidates</code></div>" * (more > 0)
  return f"<table>{''.join(rows)}</table>{note}"


def _cells(take, names, shown) -> Iterator[str]:
  """Yields the cells of a take: seed, scores by name, player."""
  yield f"{take.seed}{' (rejected)' * take.rejected}"
  for name in names:
    yield f"{take.scores[name]:.3f}" if name in take.scores else ""
  size = take.sample_rate * take.samples.shape[1] * _SAMPLE_BYTES
  most = SOUND_BYTES * take.sample_rate // (size * len(shown))
  yield _player(take, most)


def _player(take, most: int) -> str:
  """Returns an HTML player of at most so many samples from the start."""
  heard = take.samples[:most]
  marked = watermark.embed(heard, take.sample_rate)
  sound = base64.b64encode(media.encode_flac(marked, take.sample_rate))
  player = (
    '<audio controls preload="metadata"'
    f' src="data:audio/flac;base64,{sound.decode()}"></audio>'
  )
  if len(heard) == len(take.samples):
    return player
  first, whole = (len(x) / take.sample_rate for x in (heard, take.samples))
  return f"{player}<br>the first {first:.1f} of {whole:.1f} s"


def _quoted(text: str) -> str:
  """Returns text that is safe in HTML, at most `_TEXT` characters of it."""
  return html.escape(text if len(text) <= _TEXT else f"{text[:_TEXT]}…")
