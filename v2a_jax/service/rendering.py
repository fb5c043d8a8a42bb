"""Markdown as HTML, for the page."""

from markdown_it import MarkdownIt

_DEEPER = 2  # levels: headings of a text stand under those of the page


def html(text: str) -> str:
  """Returns Markdown as HTML; HTML in it is shown as text."""
  markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
  tokens = markdown.parse(text)
  for token in tokens:
    token.attrs.pop("style", None)  # The page allows none.
    if token.type in ("heading_open", "heading_close"):
      token.tag = f"h{min(int(token.tag[1]) + _DEEPER, 6)}"
  return markdown.renderer.render(tokens, markdown.options, {})
