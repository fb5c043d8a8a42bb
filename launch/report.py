"""Write a web page that compares evaluations.

It has a verdict in words, a table with intervals, training curves, the settings
that differ, and clips to watch and listen to. It opens without a network. Runs
that differ in their training seed alone are one row, over seeds and clips.
"""

from launch import parsing

ARGUMENTS = """
RESULTS...            results.json of v2a eval, its folder, or a folder with such
                      folders in it, at any depth
-o, --output FILE     page to write; its name ends in .html, and the same in
                      Markdown and its table as CSV go beside it (required)
--max_clips N         largest number of clips in the gallery (default 24)
"""
EXAMPLE = "v2a report runs/eval/diffusion runs/eval/ar -o report.html"


def main(argv: list[str]) -> int:
  """Runs `v2a report`."""
  args = parsing.Parser("v2a report", __doc__, ARGUMENTS, EXAMPLE).parse(argv)
  from v2a_jax.evaluation.report import page

  print(page.write_report(args.results, args.output, max_clips=args.max_clips))
  return 0
