"""report.md shows names and reasons as they are, whatever they hold."""

import pytest
from report_results import write_results

from v2a_jax.evaluation.report import markdown
from v2a_jax.evaluation.report import page as report

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "![x](http://example.com/a.png)",
  "[click](javascript:alert(1))",
  "**bold** _slanted_ ~~gone~~ a_b_c",
  "a|b|c",
  "`code` ``and`` more",
  "# head",
  "- item",
  "1. item",
  "> quote",
  "&lt;b&gt; &amp;",
  "two\nlines\n\n# and a head",
  "\\[x\\]\\",
  "http://example.com",
  "<http://example.com>",
  "line\x85next\u2028end",
]
PLAIN = {"text", "softbreak"}


def _render(text):
  return markdown_it.MarkdownIt("commonmark").enable("table").parse(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_is_only_text(text):
  for place in ("{}", "* {}", "before {} after"):
    tokens = _render(place.format(markdown.escape(text)))
    leaves = [t for token in tokens for t in token.children or [token]]
    kinds = {t.type for t in leaves} - {
      *("paragraph_open", "paragraph_close", "bullet_list_open"),
      *("bullet_list_close", "list_item_open", "list_item_close"),
      *("text_special",),
    }
    assert kinds <= PLAIN
    shown = "".join(t.content for t in leaves if t.type in PLAIN)
    expected = " ".join(
      "".join(c if c.isprintable() else " " for c in text).split()
    )
    assert expected in shown.replace("\u200b", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_code_span_is_one_cell(text):
  table = f"| a | b |\n|---|---|\n| {markdown.code(text)} | x |\n"
  tokens = _render(table)
  cells = [t for t in tokens if t.type == "inline"]
  assert len(cells) == 4
  (span,) = cells[2].children
  assert span.type == "code_inline"


def test_a_report_of_hostile_results_holds_no_markup(tmp_path):
  bad = " ".join(HOSTILE)
  failures = [{"id": bad, "reason": bad}]
  paths = [
    write_results(
      tmp_path / name, bad, with_media=0, failures=failures, clips=4
    )
    for name in "ab"
  ]
  out = report.write_report(paths, tmp_path / "report.html")
  tokens = _render(out.with_suffix(".md").read_text())
  leaves = [t for token in tokens for t in token.children or [token]]
  kinds = {t.type for t in leaves}
  assert not kinds & {"html_block", "html_inline", "image", "link_open"}
  heads = [t.tag for t in tokens if t.type == "heading_open"]
  assert heads[0] == "h1" and heads.count("h1") == 1
  assert "table_open" in kinds
