"""`v2a <verb>`: finds the verb's module, runs it, says errors in one line.

A verb is a module here with `main(argv)`; it is imported only when it is
asked for, so `v2a --help` and `v2a doctor` need nothing but Python. Expected
errors (a wrong value, a missing file, a full disk) end as one line on stderr
and exit status 2; `--debug` shows the traceback.
"""

import importlib
import os
import pathlib
import sys
import traceback

from v2a_jax.basics.text import did_you_mean

# verb: (module, what it does)
VERBS = {
  "doctor": ("doctor", "what is installed here, and what is missing"),
  "inspect": ("inspect", "what a config would build: size, cost, shapes"),
  "data": ("data", "build shards from clips or from the procedural scenes"),
  "train": ("train", "train a codec or a generator; resumes by itself"),
  "eval": ("evaluate", "score checkpoints on held-out clips: results.json"),
  "report": ("report", "one self-contained page from results.json files"),
  "sweep": ("sweep.run", "plan, launch and follow a grid of runs"),
  "generate": ("generate", "soundtracks for silent videos"),
  "watermark": ("watermark", "find the watermark in a delivered file"),
  "weights": ("weights", "networks that come from elsewhere"),
}

HELP = """usage: v2a <verb> [arguments]

{verbs}

v2a <verb> --help shows a verb's arguments with an example.
v2a <verb> --debug shows the traceback of an error.
example: v2a generate clip.mp4 -p "rain on a tin roof" -o out
"""

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
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(usage(), end="")
    return 0 if argv else 2
  if argv[0] in ("-V", "--version"):
    import v2a_jax

    print(f"v2a {v2a_jax.__version__}")
    return 0
  verb, *rest = argv
  if verb not in VERBS:
    hint = did_you_mean(verb, VERBS)
    print(
      f"v2a: no verb {verb!r}{hint or '; v2a --help lists them'}",
      file=sys.stderr,
    )
    return 2
  return run(verb, rest)


def main_of(verb: str) -> int:
  """What `python -m launch.<module>` runs: the same as `v2a <verb>`."""
  return run(verb, sys.argv[1:])


def usage() -> str:
  width = max(map(len, VERBS))
  return HELP.format(
    verbs="\n".join(
      f"  {verb:<{width}}  {about}" for verb, (_, about) in VERBS.items()
    )
  )


def run(verb: str, argv: list[str]) -> int:
  """Runs one verb and turns its expected errors into one line."""
  debug = "--debug" in argv
  argv = [arg for arg in argv if arg != "--debug"]
  try:
    module = importlib.import_module(f"launch.{VERBS[verb][0]}")
    return module.main(argv) or 0
  except SystemExit as end:  # argparse has shown the help.
    return end.code or 0
  except KeyboardInterrupt:
    print(f"v2a {verb}: interrupted", file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader left, as `head` does; let the last flush at exit go nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except Exception as error:  # The door: decides what is shown, hides nothing.
    if debug or not is_expected(error):
      raise
    print(f"v2a {verb}: {one_line(error)}", file=sys.stderr)
    return 2


def is_expected(error: BaseException) -> bool:
  """Whether one line says enough: a wrong value, a file, our own errors."""
  room = type(error).__module__.partition(".")[0]
  return isinstance(error, EXPECTED) or room in ROOMS


def one_line(error: BaseException) -> str:
  """The error's message; says so when it did not come from this project."""
  message = " ".join(str(error).split()) or type(error).__name__
  if isinstance(error, ModuleNotFoundError):
    return f"{message}; v2a doctor says how to install what is missing"
  frames = traceback.extract_tb(error.__traceback__)
  ours = frames and frames[-1].filename.startswith(FOLDERS)
  if ours or isinstance(error, OSError):
    return message
  kind = type(error).__name__
  return f"{message} [{kind}; --debug shows where]"


if __name__ == "__main__":
  sys.exit(main())
