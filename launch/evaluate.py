"""Score checkpoints, or sounds of any system, and write results.json.

Checkpoints are judged on held-out clips of a data set. With --outputs, a folder
of sounds of any system is judged by the true sounds of the same file names.
Every score has a confidence interval, and the same scores of the true sound, of
another clip's video, of silence and the like show what a number means.

The same command goes on with an evaluation that was interrupted. `v2a eval
distort` scores true sounds that are made worse on purpose.
"""

import argparse
from collections.abc import Iterator
import dataclasses
from typing import Any

from launch import distort, parsing, sampler_flags
from v2a_jax.basics.paths import as_path, is_remote, local_path

ARGUMENTS = f"""
[CHECKPOINT...]       workdir of v2a train, or bundle
--outputs NAME=DIR    folder of sounds or videos of any system, and what to call
                      it (default: as the folder); matched by file name, in
                      subfolders by relative path (repeatable)
-o, --output DIR      folder to write results.json to; several systems get a
                      subfolder each (required)
what they are judged by:
--set DIR             folder of a data set
--split NAME          split of the data set: train, val, test or all (default
                      test)
--reference DIR       folder of the true sounds of --outputs, or of videos with
                      them, or of a data set (default: that of --set)
--videos DIR          folder of the pictures, where the reference has none
--captions FILE       table of captions, where the reference is a folder
--num_clips N         number of clips, drawn at random; 0 for all (default: 64
                      with a checkpoint, else all)
--seconds LENGTH      judge so many seconds of a clip from its start, 0.5 or more
                      (default: as long as the checkpoints make, or all)
--rate RATE           sample rate in Hz to judge all sounds at (default: the
                      highest of the true sounds, up to 48000)
--distance_to NAME    what set distances such as FAD are measured to: others, true
                      sounds of other clips, or own, those of the judged clips
                      (default: others; own for a folder that has too few)
--embeddings NAMES    embeddings for set distances, and for classes where they
                      tag, separated by commas; v2a weights has their weights
                      (default mn04,aisfx)
--toolkits            also compute KAD as kadtk, inception score and DeSync as
                      av-benchmark do, to compare with published numbers
--clap DIR            also score the agreement of sounds and prompts, by LAION's
                      CLAP: clap:htsat_unfused, as v2a weights fetches it, or a
                      folder with config.json, model.safetensors, tokenizer.json
--weights PATH        file or folder of the weights of embedding networks; by
                      default they are looked for in $V2A_WEIGHTS and the cache
how:
--step STEPS          training step of the checkpoint; best: that of the best
                      validation result; each: of every checkpoint, and while
                      it is trained of new ones as they come (default: the
                      newest)
--rows NAMES          rows to score, separated by commas: generated,
                      ground_truth, codec, shuffled_video, shifted, metronome,
                      silence, noise (default: all that the system can have);
                      also no_video and shuffled_transcript, of a model that
                      sees nothing or is given the words of another clip
--given_word_times    add a row of the model that is told when the words of a
                      transcript are spoken; v2a generate is not told
--degraded            add rows of the model's sounds for compressed, noisy, slow
                      and film-like pictures
--best_of COUNT       number of takes that a model makes of each clip; the best by
                      how onsets coincide with motion, as v2a generate ranks
                      them, is judged (default 1)
--batch_size COUNT    number of clips that are generated at a time (default 8)
--seed SEED           random seed of the choice of clips, 0 to
                      {parsing.MAX_SEED} (default 0)
--noise_seed SEED     random seed of the model's noise; clip i has seed + i
                      (default 0)
--interval_seed SEED  random seed of the intervals (default 0)
--reference_seed SEED random seed of the choice of other clips (default 0)
--shard I/N           do the I-th of N shares; start all N with the same -o, the
                      last to end writes the results (default 1/1)
what is kept:
--gallery_clips N     number of clips whose sounds are kept for the report: half
                      the first, half from the worst to the best (default 24)
--reuse DIR           folder of earlier results: what is in its embeddings.npz
                      is not embedded again, such as for another set distance
                      of the same sounds (repeatable)
--keep_sounds         keep every sound of the model as FLAC, in sounds/
"""
EXAMPLE = """v2a eval runs/diffusion runs/ar --set data/scenes -o runs/eval
  v2a eval --outputs rival=their/sounds --reference true/sounds -o eval"""
_DEFAULT_CLIPS = 64


def main(argv: list[str]) -> int:
  """Runs `v2a eval`, or `v2a eval distort`."""
  if argv[:1] == ["distort"]:
    return distort.main(argv[1:])
  arguments = ARGUMENTS + sampler_flags.ARGUMENTS
  args = parsing.Parser("v2a eval", __doc__, arguments, EXAMPLE).parse(argv)
  _check(args)
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.evaluation import clips, metrics, runner

  options = _options(args, runner.Options)
  asked = parsing.names("--embeddings", args.embeddings) or metrics.EMBEDDINGS
  chosen = metrics.choose(asked, toolkits=args.toolkits, clap=args.clap or "")
  outputs = [_named(text) for text in args.outputs or ()]
  names = unique_names(
    [*args.checkpoint, *(path for _, path in outputs)],
    given=[""] * len(args.checkpoint) + [name for name, _ in outputs],
  )
  truth = args.set
  if outputs:
    truth = clips.open_truth(
      args.reference or args.set,
      args.split,
      videos=args.videos,
      captions=args.captions,
    )
    print("\n".join(truth.notes), end="\n" * bool(truth.notes), flush=True)
  systems = _Systems(args, truth, names)
  options = dataclasses.replace(options, seconds=systems.seconds())
  done = None
  for name, system in systems:
    out = as_path(args.output)
    if len(names) > 1 or args.step == "each":
      out /= name
      print(f"{name} -> {out}", flush=True)
    done = runner.evaluate(
      system,
      data=truth,
      out=out,
      options=options,
      eligible=systems.eligible,
      unmatched=systems.unmatched.get(name),
      metrics=chosen,
      weights_path=args.weights,
      log=lambda line: print(line, flush=True),
    )
  if done:
    print(f"next: v2a report {args.output} -o report.html")
  return 0


def _check(args: argparse.Namespace) -> None:
  """Refuses flags that do not go together."""
  error = parsing.UsageError
  if not args.checkpoint and not args.outputs:
    raise error("nothing to score: name a checkpoint, or --outputs DIR")
  if args.checkpoint and not args.set:
    raise error("required: --set, the data set that checkpoints are judged on")
  if args.outputs and not (args.reference or args.set):
    raise error("required: --reference, the true sounds (or --set)")
  if args.reference and args.checkpoint:
    raise error("checkpoints are judged by --set: leave --reference out")
  if args.reference and args.set:
    raise error("--set and --reference both name the true sounds: give one")
  if (args.videos or args.captions) and not args.outputs:
    raise error("--videos and --captions go with --outputs")
  if args.distance_to not in (None, "others", "own"):
    raise error(f"--distance_to {args.distance_to} is not one of others, own")
  if _share(args.shard)[1] > 1 and is_remote(args.output):
    raise error("--shard needs a folder of this machine, or one that is shared")
  if args.best_of > 1 and not args.checkpoint:
    raise error("--best_of goes with checkpoints: sounds of a folder are there")
  count = _num_clips(args) or 1
  last = args.noise_seed + count - 1
  if last > parsing.MAX_SEED:
    raise error(
      f"--noise_seed {args.noise_seed} with {count} clips needs seeds"
      f" up to {last}, the largest is {parsing.MAX_SEED}"
    )


def _share(text: str) -> tuple[int, int]:
  """Parses I/N."""
  i, slash, n = text.partition("/")
  if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
    raise parsing.UsageError(
      f"--shard {text} is no share of the work, such as 1/4 to 4/4"
    )
  return int(i), int(n)


def _num_clips(args: argparse.Namespace) -> int | None:
  """Returns the number of clips; None for all."""
  if args.num_clips is None:
    return _DEFAULT_CLIPS if args.checkpoint else None
  return args.num_clips or None


def _options(args: argparse.Namespace, cls: type) -> Any:
  names = {field.name for field in dataclasses.fields(cls)}
  fields = {k: v for k, v in vars(args).items() if k in names}
  return cls(
    **fields
    | {
      "num_clips": _num_clips(args),
      "rows": parsing.names("--rows", args.rows),
      "word_times": args.given_word_times,
      "distance_to": args.distance_to or "",
      "reuse": tuple(args.reuse or ()),
      "shard": _share(args.shard),
    }
  )


def _named(text: str) -> tuple[str, str]:
  """Splits NAME=DIR; a folder that is there may have "=" in its name."""
  name, equals, path = text.partition("=")
  if not equals or local_path(text, "the outputs").is_dir():
    return "", text
  return name, path


def unique_names(paths: list[str], *, given: list[str]) -> list[str]:
  """Returns a name for each path: its last parts, as many as are needed.

  Args:
    paths: paths of what is evaluated.
    given: the name that is wanted for each; "" to make one.
  """
  parts = [as_path(path).resolve().parts for path in paths]
  depth = [1] * len(paths)
  while True:
    names = [
      name or "_".join(own[-count:])
      for name, own, count in zip(given, parts, depth)
    ]
    twins = [
      i
      for i, name in enumerate(names)
      if names.count(name) > 1 and not given[i] and depth[i] < len(parts[i]) - 1
    ]
    if not twins:
      break
    for i in twins:
      depth[i] += 1
  seen: dict[str, int] = {}
  for i, name in enumerate(names):
    seen[name] = seen.get(name, 0) + 1
    names[i] = f"{name}_{seen[name]}" if seen[name] > 1 else name
  return names


class _Systems:
  """The systems of a command, each loaded when its turn comes.

  Attributes:
    eligible: indices of the clips that every folder of outputs has a sound for;
      None for all.
    unmatched: what results.json says of files without a match, by name.
  """

  def __init__(self, args, truth, names: list[str]):
    """Reads what checkpoints are, and matches the files of outputs to clips."""
    from v2a_jax.evaluation import folders
    from v2a_jax.experiment.load import read_experiment

    if args.step != "each":  # Those may still have to be begun.
      for path in args.checkpoint:
        read_experiment(path)
    self._args, self._names = args, names
    self._folders, self.unmatched = {}, {}
    self.eligible = None
    if not args.outputs:
      return
    ids = truth.ids()
    common = set(ids)
    for text, name in zip(args.outputs, names[len(args.checkpoint) :]):
      folder = folders.read_folder(_named(text)[1], f"the outputs {name}")
      found = folders.match(ids, folder.names)
      if not found.pairs:
        raise ValueError(
          f"no file name of {folder.path} ({folders.first(folder.names)}) is"
          f" that of a clip of {truth.path} ({folders.first(ids)})"
        )
      for line in found.lines(str(folder.path), truth.path):
        print(line, flush=True)
      self._folders[name] = folder, found.pairs
      self.unmatched[name] = found.to_json()
      common &= set(found.pairs)
    self.eligible = [i for i, id_ in enumerate(ids) if id_ in common]
    if not common:
      raise ValueError(
        f"no clip of {truth.path} has a sound in every folder of --outputs:"
        " evaluate them one by one"
      )

  def seconds(self) -> float | None:
    """Returns the length that all are judged at; None for each its own."""
    args = self._args
    if args.seconds or not args.checkpoint or not args.outputs:
      return args.seconds
    from v2a_jax.experiment.load import read_experiment

    return min(read_experiment(path).data.seconds for path in args.checkpoint)

  def _steps(self, path: str, name: str) -> Iterator[tuple[int | str, str]]:
    """Yields steps of a checkpoint, with what results of each are called."""
    if self._args.step != "each":
      yield self._args.step, name
      return
    from v2a_jax.experiment import workdir

    log = lambda line: print(line, flush=True)
    for step in workdir.each_step(path, log=log):
      yield step, f"{name}_step_{step}"

  def _load(self, path: str, step: int | str | None):
    """Loads a checkpoint; None where training removed it meanwhile."""
    from v2a_jax.experiment.workdir import has_step
    from v2a_jax.soundtrack.tracker import Soundtracker
    from v2a_jax.training.checkpoint import CheckpointError

    try:
      return Soundtracker.load(path, step=step)
    except CheckpointError:
      if self._args.step != "each" or has_step(path, step):
        raise
      return None

  def __iter__(self):
    """Yields names and systems."""
    from v2a_jax.evaluation import systems

    args = self._args
    changes = sampler_flags.overrides(args)
    for path, name in zip(args.checkpoint, self._names):
      for step, label in self._steps(path, name):
        if (tracker := self._load(path, step)) is None:
          print(f"{path}: training has removed step {step}", flush=True)
          continue
        tracker.experiment.sampler_with(changes)  # Refused here, not half-way.
        shown = label if args.step == "each" else ""
        yield (
          label,
          systems.Model(tracker, changes, name=shown, best_of=args.best_of),
        )
    for name, (folder, pairs) in self._folders.items():
      yield name, systems.Outputs(name, folder, pairs)
