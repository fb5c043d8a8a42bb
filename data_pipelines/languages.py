"""The language of a text, by py3langid (https://github.com/adbar/py3langid)."""

import py3langid

# Of shorter texts nobody can tell.
_LEAST_WORDS, _LEAST_LETTERS = 3, 12


def language(text: str) -> str:
  """Returns a code such as `en`, or "" where the text is too short to tell."""
  words = text.split()
  spaced = text.isascii() or len(words) > 1
  if spaced and (len(words) < _LEAST_WORDS or len(text) < _LEAST_LETTERS):
    return ""
  return py3langid.classify(text)[0] if any(map(str.isalpha, text)) else ""
