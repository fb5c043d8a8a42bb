"""`v2a data build | scenes | features | report`: raw media to shards."""

from launch import cli, parsing
from launch import config as config_lib


def main(argv: list[str]) -> int:
  """Runs `v2a data`."""
  # `features` takes --config overrides, which argparse cannot declare.
  overrides = [arg for arg in argv if arg.startswith("--config")]
  argv = [arg for arg in argv if arg not in overrides]
  # numpy, PyAV and record libraries; no jax.
  from data_pipelines import build

  args = _parser(build).parse(argv)
  if args.command == "report":
    return report(args)
  if args.command == "features":
    return features(args, overrides)
  if overrides:
    raise parsing.UsageError(f"unknown flag {overrides[0]}: only for features")
  output = parsing.fill(build.OutputOptions, args)
  if args.command == "scenes":
    build.build_scenes(
      args.num,
      args.seed,
      out=args.output,
      options=parsing.fill(build.SceneOptions, args),
      output=output,
      log=say,
    )
  else:
    build.build_folder(
      args.directory,
      out=args.output,
      captions_csv=args.captions,
      columns=dict(map(_column, args.columns)),
      limit=args.limit,
      options=parsing.fill(build.ClipOptions, args),
      output=output,
      log=say,
    )
  print("next: v2a train --config=configs/diffusion_tiny.py \\")
  print(f"  --config.data.paths=\"('{args.output}',)\" --workdir=runs/NAME")
  return 0


def features(args, overrides: list[str]) -> int:
  """Runs the frozen encoder of a checkpoint or config over a data set."""
  if bool(args.checkpoint) == bool(overrides):
    raise parsing.UsageError(
      "name the encoder: --checkpoint=RUN_OR_BUNDLE, or --config=FILE"
    )
  config = config_lib.parse(overrides) if overrides else None
  # Here, so that a mistyped flag is answered before jax is imported.
  from data_pipelines.assemble import OutputOptions
  from v2a_jax.experiment import features as features_lib
  from v2a_jax.experiment import load
  from v2a_jax.experiment.experiment import Experiment

  if config is None:
    trained = load.load(args.checkpoint)
    experiment, model = trained.experiment, trained.model
  else:
    experiment = Experiment.from_config(config)
    model = features_lib.first_model(experiment)
  manifest = features_lib.write(
    model,
    experiment,
    args.dataset,
    out=args.output,
    output=parsing.fill(OutputOptions, args),
    log=say,
  )
  facts = manifest["features"]
  start = " --config.data.crop=start" if facts["seconds"] else ""
  source = f" --config.init_from={args.checkpoint}" if args.checkpoint else ""
  print("next: v2a train --config=… --config.model.conditioner.tune=frozen \\")
  print(f"  --config.data.features={facts['dim']}{start}{source} \\")
  print(f"  --config.data.paths=\"('{args.output}',)\" --workdir=runs/NAME")
  return 0


def report(args) -> int:
  from data_pipelines import report as report_lib

  print(report_lib.write_report(args.dataset, out=args.output))
  return 0


def say(line: str) -> None:
  print(line, flush=True)


def _column(pair: str) -> tuple[str, str]:
  field, equals, column = pair.partition("=")
  if not equals:
    raise parsing.UsageError(f"--columns {pair}: give it as field=column")
  return field, column


def _parser(build) -> parsing.Parser:
  parser = parsing.make_parser(
    "v2a data",
    about="Training shards from raw clips or from the procedural scenes.",
    example="v2a data scenes -o data/scenes --num 2000 --seed 0",
  )
  commands = parser.add_subparsers(dest="command", required=True)
  _add_build(commands, build)
  _add_scenes(commands, build)
  _add_features(commands)
  command = parsing.add_command(
    commands,
    "report",
    about="A page to look at and listen to what is in a data set.",
    example="v2a data report data/clips -o data/clips.html",
  )
  command.add_argument("dataset", help="folder of the data set")
  command.add_argument("-o", "--output", help="the page; DATASET/report.html")
  return parser


def _add_build(commands, build) -> None:
  command = parsing.add_command(
    commands,
    "build",
    about="A data set from a folder of clips and a table of captions.",
    example="v2a data build clips --captions captions.csv -o data/clips",
  )
  command.add_argument("directory", help="searched with all its subfolders")
  command.add_argument("--captions", help="CSV; its columns are found by name")
  command.add_argument(
    "--columns",
    nargs="+",
    default=[],
    metavar="FIELD=COLUMN",
    help="where a column's name misleads: file=clip_path caption=text_en",
  )
  command.add_argument("--limit", type=int, help="only the first files")
  _add_output(command, build)
  parsing.add_fields(command, build.ClipOptions)


def _add_scenes(commands, build) -> None:
  command = parsing.add_command(
    commands,
    "scenes",
    about="A data set of procedural scenes: no download, true event times.",
    example="v2a data scenes -o data/scenes --num 2000 --seed 0",
  )
  command.add_argument("--num", type=int, default=2000, help="(default 2000)")
  command.add_argument("--seed", type=int, default=0, help="(default 0)")
  _add_output(command, build)
  parsing.add_fields(command, build.SceneOptions)


def _add_features(commands) -> None:
  command = parsing.add_command(
    commands,
    "features",
    about=(
      "The same data set with what a frozen encoder gives for its frames, so"
      "\nthat training need not decode and encode them. The encoder is that of"
      "\n--checkpoint, or what --config=FILE --config.key=value starts from."
    ),
    example="v2a data features data/clips --checkpoint runs/a -o data/seen",
  )
  command.add_argument("dataset", help="folder of the data set")
  command.add_argument("--checkpoint", help="work directory or bundle")
  command.add_argument(
    "-o", "--output", required=True, help="folder of the new data set"
  )
  command.add_argument(
    "--workers", type=int, default=2, help="records at a time (default 2)"
  )
  command.add_argument(
    "--overwrite", action="store_true", help="replace another data set"
  )


def _add_output(command, build) -> None:
  command.add_argument(
    "-o", "--output", required=True, help="folder of the data set"
  )
  parsing.add_fields(command, build.OutputOptions)


if __name__ == "__main__":
  raise SystemExit(cli.main_of("data"))
