"""`v2a report`: one self-contained page from results of `v2a eval`."""

from launch import cli, parsing


def main(argv: list[str]) -> int:
  parser = parsing.make_parser(
    "v2a report",
    about=(
      "One page that opens from disk: a verdict in words, a table with\n"
      "intervals, training curves, what differs, and a gallery to listen to."
    ),
    example="v2a report runs/eval/diffusion runs/eval/ar -o report.html",
  )
  parser.add_argument(
    "results",
    nargs="+",
    help="results.json files, their folders, or a folder of such folders",
  )
  parser.add_argument("-o", "--output", required=True, help="the page")
  parser.add_argument(
    "--max_clips", type=int, default=24, help="in the gallery (default 24)"
  )
  args = parser.parse(argv)
  from v2a_jax.evaluation.report import page as report

  page = report.write_report(
    args.results, args.output, max_clips=args.max_clips
  )
  print(page)
  return 0


if __name__ == "__main__":
  raise SystemExit(cli.main_of("report"))
