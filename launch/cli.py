"""`v2a VERB`: imports the verb's module, runs its `main(argv)`, reports errors.

Nothing else is imported, so `v2a --help` and `v2a doctor` need nothing but
Python. Expected errors (a wrong value, a missing file, a full disk) are one line
on stderr and exit status 2; `--debug` adds the traceback.
"""

from collections.abc import Callable
import gc
import importlib
import logging
import os
import pathlib
import sys
import traceback

from launch import parsing
from v2a_jax.basics import parent

# Module in this folder, and what the verb does.
VERBS = {
  "doctor": ("doctor", "Check packages, devices, codecs, weights and disk"),
  "inspect": ("inspect", "Count parameters, FLOPs and memory of a config"),
  "plan": ("plan", "Compile a training step for a TPU pod that is not here"),
  "data": ("data", "Build data sets from clips or procedural scenes"),
  "train": ("train", "Train a codec or a generator, or continue a run"),
  "eval": ("evaluate", "Score checkpoints, or sounds of any system"),
  "report": ("report", "Write a web page that compares evaluations"),
  "listen": ("listen", "Make a blind listening test and score its answers"),
  "sweep": ("sweep.run", "Plan, launch and follow a grid of runs"),
  "metrics": ("metrics", "Write a run's metrics for wandb or TensorBoard"),
  "generate": ("generate", "Generate soundtracks for silent videos"),
  "serve": ("serve", "Serve a page and an HTTP API that make soundtracks"),
  "watermark": ("watermark", "Detect the watermark of generated sound"),
  "weights": ("weights", "List, fetch, convert and export weights"),
}
EXPECTED = (ValueError, OSError, ModuleNotFoundError)
ROOMS = ("v2a_jax", "data_pipelines", "launch", "configs")
FOLDERS = tuple(
  str(pathlib.Path(__file__).resolve().parents[1] / room) for room in ROOMS
)


def main(argv: list[str] | None = None) -> int:
  """Runs `v2a`; returns the exit status.

  Args:
    argv: arguments after the program's name; those of the process by default.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv[:1] in (["-V"], ["--version"]):
    import v2a_jax

    print(f"v2a {v2a_jax.__version__}")
    return 0
  parent.stop_with_launcher()
  about = "Train, evaluate and use models that generate sound for video."
  example = 'v2a generate clip.mp4 -p "rain on a tin roof" -o out'
  commands = {verb: _command(verb) for verb in VERBS}
  choose = lambda _: parsing.run_command(  # With --debug, for the verb.
    "v2a", about, commands, argv, example=example
  )
  return guarded("v2a", choose, argv)


def _command(verb: str) -> Callable[[list[str]], int]:
  """Returns a function that runs a verb and returns the exit status."""
  module, about = VERBS[verb]

  def command(argv):
    call = lambda argv: importlib.import_module(f"launch.{module}").main(argv)
    return guarded(f"v2a {verb}", call, argv)

  command.__doc__ = about
  return command


def guarded(
  prog: str, call: Callable[[list[str]], int | None], argv: list[str]
) -> int:
  """Calls `call(argv)`; its expected errors become one line and a status.

  `--debug` is taken out of `argv`, and shows the traceback of such an error.
  """
  debug = "--debug" in argv
  # Tracing makes many objects and little garbage, for which Python looks at every
  # 700 of them (benchmarks/garbage_collection.py).
  gc.set_threshold(50_000)
  logging.basicConfig(format="%(message)s")  # Before a library does it.
  try:
    try:
      code = call([arg for arg in argv if arg != "--debug"])
    except SystemExit as end:  # argparse has shown the help.
      code = end.code
    sys.stdout.flush()  # Here, where a reader that has left is noticed.
    return code or 0
  except KeyboardInterrupt:
    print(f"{prog}: interrupted", file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader has left, as `head` does; the flush at exit goes nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except Exception as error:
    if not is_expected(error):
      raise
    if debug:
      traceback.print_exc()
    print(f"{prog}: {one_line(error)}", file=sys.stderr)
    return 2


def is_expected(error: BaseException) -> bool:
  """Says whether one line is enough: a wrong value, a file, our own errors."""
  room = type(error).__module__.partition(".")[0]
  return isinstance(error, EXPECTED) or room in ROOMS


def one_line(error: BaseException) -> str:
  """Returns the message; adds the error's type if it is not from here."""
  message = " ".join(str(error).split()) or type(error).__name__
  if isinstance(error, ModuleNotFoundError):
    return f"{message}; v2a doctor shows how to install what is missing"
  frames = traceback.extract_tb(error.__traceback__)
  ours = frames and frames[-1].filename.startswith(FOLDERS)
  if ours or isinstance(error, OSError):
    return message
  kind = type(error).__name__
  return f"{message} [{kind}; --debug shows where]"


if __name__ == "__main__":
  sys.exit(main())
