"""Text in Markdown that shows as it is: no markup, no HTML, one line.

https://spec.commonmark.org/0.31.2/#backslash-escapes
"""

import re
from typing import Any

import markupsafe

_SPECIAL = re.compile(r"[\\`*\[\]|~#!$]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# Between letters an underscore is only an underscore.
_UNDERSCORE = re.compile(r"(?<!\w)_|_(?!\w)")
_LIST = re.compile(r"([-+]|\d{1,9}[.)])(?=\s|$)")
_LINK = re.compile(r"\b(https?|ftp|www|mailto|xmpp)([:.])", re.IGNORECASE)


def escape(text: Any) -> markupsafe.Markup:
  """Escapes what has a meaning in Markdown or HTML; `Markup` stays as it is."""
  if isinstance(text, markupsafe.Markup):
    return text
  line = _one_line(text)
  line = _SPECIAL.sub(r"\\\g<0>", line.translate(_ENTITIES))
  line = _LINK.sub(r"\1&#8203;\2", _UNDERSCORE.sub(r"\\_", line))
  if item := _LIST.match(line):  # would begin a list
    line = line[: item.end() - 1] + "\\" + line[item.end() - 1 :]
  return markupsafe.Markup(line)


def code(text: Any) -> markupsafe.Markup:
  """Shows text in a code span, which may stand in a table."""
  line = _one_line(text).replace("`", "'").replace("|", "\\|")
  return markupsafe.Markup(f"`{line}`" if line else "")


def _one_line(text: Any) -> str:
  printable = (c if c.isprintable() else " " for c in str(text))
  return " ".join("".join(printable).split())
