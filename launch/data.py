"""Build the data sets that v2a train and v2a eval read."""

import functools
import shlex
import sys

from launch import config as config_lib
from launch import parsing
from v2a_jax.basics.text import did_you_mean, one_of

OUTPUT = """
-o, --output DIR      folder of the data set (required)
"""
BUILD = f"""
FOLDER                folder of clips, or its URL, subfolders included; tar files
                      in it are read as WebDataset's
--captions FILE       table of captions, transcripts and labels by file: CSV of
                      any kind, JSON or Parquet; those of VGGSound, AudioSet,
                      AudioCaps, WavCaps and Clotho are known, other columns
                      recognised by their usual names (repeatable)
--columns FIELD=COLUMN...
                      columns of the table with other names, such as
                      file=clip_path caption=text_en
--labels FILE         AudioSet's class_labels_indices.csv, which names the ids in
                      its tables (default: looked for beside the table)
--by TEXT             where captions and transcripts come from, such as "alt text"
                      or a model and its version, if the table has no column `by`
                      (default: the table's name)
--limit N             number of files to use, the first by name; it can be raised
                      later, and only new files are decoded
{OUTPUT}
many machines:
--runner NAME         build by Apache Beam: DirectRunner, FlinkRunner, SparkRunner
                      or DataflowRunner; all reach the clips and OUTPUT.parts
--beam_options TEXT   options of the pipeline, such as
                      "--flink_master=host:8081 --parallelism=64"
--chunk N             number of files that a worker reads at a time (default 64)
"""
SCENES = f"""
--num N               number of scenes in all splits together (default 2000)
--seed SEED           random seed, 0 to 4294967295 (default 0)
{OUTPUT}"""
PRECOMPUTE = f"""
DATASET               folder of the data set
--add WHAT...         features of the frames by the model's frozen encoder; target,
                      the latents or codes of the sound
--media FORM          pictures and sound: keep as they are; h264 or raw frames of
                      the size and rate of config.data, with sound at the codec's
                      rate; none leaves them out (default keep)
--checkpoint DIR      workdir of v2a train, or bundle, with the encoder
{parsing.CONFIG}
-o, --output DIR      folder of the new data set (required)
--workers COUNT       number of records that are decoded at a time (default 2)
--overwrite           replace a finished data set that was built differently
"""
BENCH = f"""
DATASET               folder of the data set
{parsing.CONFIG}
--step_time SECONDS   time of a step for which to count cores (default 1)
--batches N           number of batches to read (default 4)
"""
REPORT = """
DATASET               folder of the data set
-o, --output FILE     page to write (default: report.html in the data set);
                      croissant.json and datasheet.md are written beside it
--admit EXPRESSION    show what config.data.admit would take, and its limits
"""
MEASURE = """
DATASET               folder of the data set
--against DIR         evaluation set whose clips should not be in it
                      (repeatable)
"""
ANNOTATE = """
DATASET               folder of the data set
--labeller NAME       one that comes with this package: voice (Silero: who
                      speaks), sounds (mn04: music, effects), sync (how far sound
                      and picture are apart), whisper (words; needs
                      faster-whisper)
--command COMMAND     or any program that keeps to the contract of
                      v2a_jax/labellers/contract.py
--merge FILE          or a table or file of annotations: CSV, JSON lines,
                      Parquet, VTT, SRT, Whisper's JSON; or a folder of the last
                      three, named like the clips
--columns FIELD=COLUMN...
                      columns of the table under other names, such as
                      caption=text_en
--name NAME           source that the columns are written to (default: the
                      labeller's or the file's name)
"""
COLUMNS = """
DATASET               folder of the data set
--admit EXPRESSION    count what config.data.admit would take, by reason
"""
SCENES_EXAMPLE = "v2a data scenes -o data/scenes --num 2000 --seed 0"
LABELLERS = ("voice", "sounds", "sync", "whisper")
say = functools.partial(print, flush=True)


def main(argv: list[str]) -> int:
  """Runs `v2a data`."""
  commands = dict(
    build=build,
    scenes=scenes,
    precompute=precompute,
    bench=bench,
    measure=measure,
    annotate=annotate,
    columns=columns,
    report=report,
  )
  return parsing.run_command(
    "v2a data", __doc__, commands, argv, example=SCENES_EXAMPLE
  )


def build(argv: list[str]) -> None:
  """Build a data set from a folder of clips and a table of captions.

  The same command continues a build that was interrupted.
  """
  # Here: numpy, PyAV and the record libraries take a moment.
  from data_pipelines import build as build_lib

  example = "v2a data build clips --captions captions.csv -o data/clips"
  parser = parsing.Parser("v2a data build", build.__doc__, BUILD, example)
  parser.add_fields(build_lib.OutputOptions)
  parser.add_fields(build_lib.ClipOptions)
  args = parser.parse(argv)
  build_lib.build_folder(
    args.folder,
    out=args.output,
    captions_csv=args.captions,
    columns=dict(args.columns or ()),
    labels=args.labels,
    by=args.by or "",
    limit=args.limit,
    options=parsing.fill(build_lib.ClipOptions, args),
    output=parsing.fill(build_lib.OutputOptions, args),
    beam=parsing.fill(build_lib.BeamOptions, args),
    log=say,
  )
  _say_next(args.output)


def scenes(argv: list[str]) -> None:
  """Render a data set of procedural scenes with synthesised sound.

  It needs no download, and the true times of all events are known.
  """
  from data_pipelines import build as build_lib

  parser = parsing.Parser(
    "v2a data scenes", scenes.__doc__, SCENES, SCENES_EXAMPLE
  )
  parser.add_fields(build_lib.OutputOptions)
  parser.add_fields(build_lib.SceneOptions)
  args = parser.parse(argv)
  build_lib.build_scenes(
    args.num,
    args.seed,
    out=args.output,
    options=parsing.fill(build_lib.SceneOptions, args),
    output=parsing.fill(build_lib.OutputOptions, args),
    log=say,
  )
  _say_next(args.output)


def precompute(argv: list[str]) -> None:
  """Copy a data set with what training computes of each clip.

  Media of the size that the model reads, features of a frozen encoder, latents
  or codes of the codec. Name the model by --checkpoint or by --config.
  """
  example = (
    "v2a data precompute data/a --checkpoint runs/a --add features -o data/b"
  )
  parser = parsing.Parser(
    "v2a data precompute", precompute.__doc__, PRECOMPUTE, example
  )
  args = parser.parse(argv)
  if bool(args.checkpoint) == bool(args.config or args.overrides):
    raise parsing.UsageError(
      "name the model: --checkpoint=WORKDIR_OR_BUNDLE, or --config=FILE"
    )
  from data_pipelines.derive import CopyOptions

  options = parsing.fill(CopyOptions, args)
  config = None
  if not args.checkpoint:
    config = config_lib.parse(args.config, args.overrides)
  # Here, so that a mistyped flag is answered before jax is imported.
  from data_pipelines.assemble import OutputOptions
  from v2a_jax.experiment import features as features_lib
  from v2a_jax.experiment import load
  from v2a_jax.experiment import precompute as precompute_lib
  from v2a_jax.experiment.experiment import Experiment

  if config is None:
    trained = load.load(args.checkpoint)
    experiment, model = trained.experiment, lambda: trained.model
  else:
    experiment = Experiment.from_config(config)
    model = functools.partial(features_lib.first_model, experiment)
  manifest = precompute_lib.write(
    experiment,
    args.dataset,
    out=args.output,
    options=options,
    output=parsing.fill(OutputOptions, args),
    model=model,
    log=say,
  )
  _say_how_to_train(manifest, args)


def _say_how_to_train(manifest, args) -> None:
  """Prints the settings with which a run reads a copy."""
  print(
    f"next: v2a train --config=… --config.data.paths=\"('{args.output}',)\"",
    end="",
  )
  seconds, facts = 0.0, manifest.get("features")
  if facts:
    print(" \\\n  --config.model.conditioner.tune=frozen", end="")
    print(f" --config.data.features={facts['dim']}", end="")
    seconds = facts["seconds"]
    if args.checkpoint:
      print(f" \\\n  --config.init_from={args.checkpoint}", end="")
  if target := manifest.get("target"):
    print(" \\\n  --config.data.cached_target=True", end="")
    seconds = target["seconds"]
  start = " --config.data.crop=start" if seconds else ""
  print(f"{start} --workdir=runs/NAME")


def bench(argv: list[str]) -> None:
  """Measure how fast a data set is read, by stage, and what bounds it."""
  example = "v2a data bench data/clips --config=configs/diffusion.py:small"
  parser = parsing.Parser("v2a data bench", bench.__doc__, BENCH, example)
  args = parser.parse(argv)
  config = config_lib.parse(args.config, args.overrides)
  from data_pipelines import bench as bench_lib
  from v2a_jax.experiment.experiment import Experiment

  config.data.paths = (args.dataset,)
  data = Experiment.from_config(config).data
  speed = bench_lib.measure(data, batches=args.batches)
  for line in speed.lines(data.batch_size, args.step_time):
    print(line)


def measure(argv: list[str]) -> None:
  """Measure the clips: levels, stillness, copies, overlap with tests.

  What is found stands in columns of the data set; nothing is deleted. The same
  command goes on after an interruption, and measures new clips only.
  """
  from data_pipelines.columns import measure as measure_lib

  example = "v2a data measure data/clips --against data/test_clips"
  parser = parsing.Parser("v2a data measure", measure.__doc__, MEASURE, example)
  parser.add_fields(measure_lib.MeasureOptions)
  args = parser.parse(argv)
  measure_lib.measure(
    args.dataset,
    against=args.against or (),
    options=parsing.fill(measure_lib.MeasureOptions, args),
    log=say,
  )


def annotate(argv: list[str]) -> None:
  """Add what people, files or networks say of the clips, as columns.

  Captions, words and presence flags are read in training if
  config.data.annotations names their source. The same command goes on after an
  interruption. docs/data_at_scale.md describes the columns and the contract.
  """
  from data_pipelines.columns import annotate as annotate_lib

  example = "v2a data annotate data/clips --labeller voice"
  parser = parsing.Parser(
    "v2a data annotate", annotate.__doc__, ANNOTATE, example
  )
  parser.add_fields(annotate_lib.AnnotateOptions)
  args = parser.parse(argv)
  if [args.labeller, args.command, args.merge].count(None) != 2:
    raise parsing.UsageError(
      "give one of --labeller NAME, --command COMMAND and --merge FILE"
    )
  options = parsing.fill(annotate_lib.AnnotateOptions, args)
  if args.merge:
    from data_pipelines.columns import merge as merge_lib

    merge_lib.merge(
      args.dataset,
      args.merge,
      name=args.name,
      by=options.by,
      columns=dict(args.columns or ()),
      log=say,
    )
    return
  command, name = args.command, args.name
  if args.labeller:
    if args.labeller not in LABELLERS:
      hint = did_you_mean(args.labeller, LABELLERS)
      raise parsing.UsageError(
        f"--labeller={args.labeller} {one_of(LABELLERS)}{hint}"
      )
    module = f"v2a_jax.labellers.{args.labeller}"
    command = shlex.join([sys.executable, "-m", module])
    name = name or args.labeller
  if not name:
    raise parsing.UsageError("name the source: --name=my_labeller")
  annotate_lib.annotate(args.dataset, name, command, options=options, log=say)


def columns(argv: list[str]) -> None:
  """List a data set's columns, or count what an expression admits."""
  from data_pipelines.columns import listing

  example = "v2a data columns data/clips --admit 'silence < 0.98'"
  parser = parsing.Parser("v2a data columns", columns.__doc__, COLUMNS, example)
  args = parser.parse(argv)
  for line in listing.lines(args.dataset, admit=args.admit or ""):
    print(line)


def report(argv: list[str]) -> None:
  """Write a web page with counts, drops and clips of a data set."""
  example = "v2a data report data/clips -o data/clips.html"
  parser = parsing.Parser("v2a data report", report.__doc__, REPORT, example)
  args = parser.parse(argv)
  from data_pipelines import report as report_lib

  print(
    report_lib.write_report(
      args.dataset, out=args.output, admit=args.admit or ""
    )
  )


def _say_next(output: str) -> None:
  print("next: v2a train --config=configs/diffusion_tiny.py \\")
  print(f"  --config.data.paths=\"('{output}',)\" --workdir=runs/NAME")
