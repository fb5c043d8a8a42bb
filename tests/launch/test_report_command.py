"""`v2a report`: one page from one or more folders of results."""

import pytest

from launch import cli
from tests.evaluation.report_results import write_results
from tests.launch.commands import refused, succeeds


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """Results of two runs, in two folders of one."""
  root = tmp_path_factory.mktemp("eval")
  write_results(root / "diffusion", "diffusion_run", with_media=2)
  write_results(root / "ar", "ar_run", shift=0.3, with_media=2)
  return root


def test_two_folders_become_one_page(results, tmp_path, capsys):
  page = tmp_path / "report.html"
  shown = succeeds(
    capsys, "report", results / "diffusion", results / "ar", "-o", page
  )
  assert shown == f"{page}\n"
  html = page.read_text()
  assert html.count("<html") == 1
  assert "diffusion_run" in html and "ar_run" in html
  assert "<video" in html and "data:video/mp4;base64," in html
  assert "http://" not in html.replace("http://www.w3.org", "")


def test_files_folders_and_a_folder_of_folders_are_the_same(
  results, tmp_path, capsys
):
  pages = []
  names = ("ar", "diffusion")
  for number, arguments in enumerate(
    [
      [results],
      [results / name for name in names],
      [results / name / "results.json" for name in names],
    ]
  ):
    page = tmp_path / f"{number}.html"
    succeeds(capsys, "report", *arguments, "-o", page, "--max_clips=0")
    pages.append(page.read_text())
    assert "<video" not in pages[-1]
  assert all("ar_run" in page and "diffusion_run" in page for page in pages)
  assert len({len(page) for page in pages}) == 1


def test_the_gallery_has_as_many_clips_as_asked_for(results, tmp_path, capsys):
  page, counts = tmp_path / "page.html", []
  for number in (0, 1, 2):
    args = ["report", results / "ar", "-o", page, f"--max_clips={number}"]
    succeeds(capsys, *args)
    counts.append(page.read_text().count("<video"))
  assert counts[0] == 0 < counts[1] < counts[2]


@pytest.mark.parametrize(
  "content,words",
  [
    (None, "results.json"),
    ("{", "is not JSON"),
    ("{}", "results of schema None"),
  ],
)
def test_results_that_cannot_be_read_are_named(
  content, words, tmp_path, capsys
):
  folder, page = tmp_path / "eval", tmp_path / "page.html"
  folder.mkdir()
  if content is not None:
    (folder / "results.json").write_text(content)
  line = refused(capsys, "report", folder, "-o", page)
  assert str(folder) in line and words in line
  assert not page.exists()


def test_a_page_of_another_kind_is_refused(results, tmp_path, capsys):
  out = tmp_path / "report.txt"
  line = refused(capsys, "report", results / "ar", "-o", out)
  assert ".html" in line and "report.txt" in line
  assert not out.exists()


def test_a_page_takes_the_place_of_an_older_one(results, tmp_path):
  page = tmp_path / "page.html"
  page.write_text("old")
  assert cli.main(["report", str(results / "ar"), "-o", str(page)]) == 0
  assert "ar_run" in page.read_text()
  # With the same in Markdown, and its table, beside it.
  names = {"page.html", "page.md", "page.csv"}
  assert {p.name for p in tmp_path.iterdir()} == names
  assert "ar_run" in (tmp_path / "page.md").read_text()
