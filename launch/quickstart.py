"""Render scenes, train two models, score them, generate soundtracks, report.

Every step is a command that a person could type. It is printed before it runs,
and skipped when its output is there: started again, the quick start continues.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

from launch import cli, doctor, parsing
from launch.sweep import plan, state, status
from v2a_jax.basics import files, parent
from v2a_jax.basics.paths import local_path
from v2a_jax.basics.text import clock, one_of

PROG = "python -m launch.quickstart"
ARGUMENTS = f"""
--out DIR             folder to write to (default runs/quickstart)
--scale NAME          full, or smoke to see that every step works (default full)
{parsing.OVERRIDES}"""
EXAMPLE = f"{PROG} --out runs/quickstart --config.train_seconds=600"
# Networks that judge sounds, and what is not measured without them.
NETWORKS = {"aisfx": "a Fréchet distance", "silero": "unwanted speech"}
_SHORTEST = 30.0  # seconds of work that say how fast a machine is
CONFIGS = ("configs/diffusion_tiny.py", "configs/ar_tiny.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """Size of the quick start.

  Attributes:
    scenes: number of scenes to render.
    held_out: fraction of them in the test split, and in the val split.
    clips: number of held-out clips that each model is scored on.
    videos: number of held-out silent clips that get soundtracks.
    candidates: number of soundtracks for each of them.
    overrides: arguments for both configs.
    seconds: time that each step took on two slow cores; () if not known.
  """

  scenes: int
  held_out: float
  clips: int
  videos: int
  candidates: int
  overrides: Sequence[str] = ()
  seconds: Sequence[float] = ()


SCALES = {
  "full": Scale(
    scenes=1500,
    held_out=0.05,
    clips=48,
    videos=3,
    candidates=2,
    # On a slow or busy machine it takes longer and learns the same.
    overrides=(
      "--config.num_train_steps=1500 --config.optimizer.warmup_steps=50"
      " --config.ema_decay=0.995"
    ).split(),
    seconds=(2, 1, 37, 1231, 316, 40, 10),
  ),
  # Shows that every step works; nothing is learned.
  "smoke": Scale(
    scenes=24,
    held_out=0.25,
    clips=2,
    videos=3,
    candidates=1,
    overrides=(
      "--config.num_train_steps=3 --config.data.batch_size=2"
      " --config.log_every=1 --config.model.depth=1 --config.model.width=32"
      " --config.model.num_heads=2 --config.model.mlp_dim=32"
      " --config.model.modulation_rank=8"
    ).split(),
  ),
}


def main(argv: list[str]) -> int:
  """Runs every step that is not done yet."""
  args = parsing.Parser(PROG, __doc__, ARGUMENTS, EXAMPLE).parse(argv)
  if args.scale not in SCALES:
    raise parsing.UsageError(f"--scale={args.scale} {one_of(SCALES)}")
  scale = SCALES[args.scale]
  overrides = (*scale.overrides, *args.overrides)
  road = Road(
    local_path(args.out, "the quick start"),
    dataclasses.replace(scale, overrides=overrides),
  )
  began, took = time.monotonic(), []
  for number, (about, step) in enumerate(road.steps(), start=1):
    print(f"\n[{number}/{len(road.steps())}] {about}", flush=True)
    started = time.monotonic()
    step()
    took.append(time.monotonic() - started)
    left = time_left(scale.seconds, took)
    after = f", about {clock(left)} to go" if left else ""
    print(f"    took {clock(took[-1])}{after}", flush=True)
  print("\n" + road.summary())
  print(f"total {clock(time.monotonic() - began)}")
  return 0


def time_left(typical: Sequence[float], took: Sequence[float]) -> float | None:
  """Estimates the seconds that the other steps take on this machine.

  Steps that were there already say nothing of its speed.

  Args:
    typical: seconds of each step on another machine.
    took: seconds of each of those that are done.

  Returns:
    None where no step says how fast the machine is, or none is left.
  """
  rest = sum(typical[len(took) :])
  made = [(own, usual) for own, usual in zip(took, typical) if own > usual / 10]
  own, usual = (sum(values) for values in zip(*made)) if made else (0, 0)
  if not rest or usual < _SHORTEST:
    return None
  return rest * own / usual


class Road:
  """The steps, and the path of each one's output.

  Attributes:
    scenes: data set.
    sweep: sweep of the two models; a workdir for each.
    silent: held-out clips without sound.
    scores: results of the evaluation; a folder for each model.
    soundtracks: the held-out clips with sound; a folder for each model.
    page: report.
  """

  def __init__(self, out: pathlib.Path, scale: Scale):
    self.scale = scale
    self.scenes = out / "scenes"
    self.sweep = out / "arms"
    self.silent = out / "silent"
    self.scores = out / "eval"
    self.soundtracks = out / "soundtracks"
    self.page = out / "report.html"

  def steps(self) -> list[tuple[str, Callable[[], None]]]:
    """Returns (description, function) of each step, in order."""
    s = self.scale
    return [
      ("check this machine", self.check),
      ("fetch networks that judge sounds, 34 MB", self.fetch),
      (f"render {s.scenes} scenes with their sound", self.render),
      ("train diffusion and autoregression", self.train),
      (f"score both on {s.clips} held-out clips", self.score),
      (
        f"generate soundtracks for {s.videos} held-out silent clips",
        self.generate,
      ),
      ("write the report", self.report),
    ]

  def check(self) -> None:
    print("\n".join(doctor.describe(doctor.examine()).splitlines()[:7]))

  def fetch(self) -> None:
    """Fetches networks that judge sounds.

    All else works without them, so that an absent connection is one line each.
    """
    # Here: the first step needs only Python, and can say what is missing.
    from v2a_jax.weights import registry

    entries = {entry["name"]: entry for entry in registry.listing()}
    for name, use in NETWORKS.items():
      print(f"    $ v2a weights fetch {name}", flush=True)
      if entries[name]["state"] in ("found", "converted"):
        print(f"    there already: {entries[name]['path']}", flush=True)
      elif run(["weights", "fetch", name]):
        print(f"    going on without {use}", flush=True)

  def render(self) -> None:
    v2a(
      *("data", "scenes", "-o", self.scenes, "--num", self.scale.scenes),
      *("--seed", 0, "--held_out", self.scale.held_out),
      makes=self.scenes / "manifest.json",
    )

  def train(self) -> None:
    v2a(
      *("sweep", "plan", "--quick"),
      *(f"--config={config}" for config in CONFIGS),
      *("-o", self.sweep, f'--config.data.paths=("{self.scenes}",)'),
      *self.scale.overrides,
      makes=self.sweep / "plan.json",
    )
    if any(state.state(arm) != state.DONE for arm in self.arms()):
      v2a("sweep", "launch", self.sweep)

  def arms(self) -> list[pathlib.Path]:
    """Returns the workdirs of the two models."""
    return [self.sweep / point.name for point in plan.read(self.sweep).points]

  def score(self) -> None:
    for arm in self.arms():
      out = self.scores / arm.name
      v2a(
        *("eval", arm, f"--set={self.scenes}", "--split=test"),
        *(f"--num_clips={self.scale.clips}", "-o", out),
        makes=out / "results.json",
      )

  def generate(self) -> None:
    videos = self.write_silent()
    for arm in self.arms():
      out = self.soundtracks / arm.name
      v2a(
        *("generate", *videos, "--checkpoint", arm, "-o", out),
        *("--num_candidates", self.scale.candidates),
        makes=out / videos[-1].stem / f"{videos[-1].stem}.json",
      )

  def write_silent(self) -> list[pathlib.Path]:
    """Writes the pictures of the first clips of the test split as files."""
    # Here: the first steps need only Python, and can say what is missing.
    from data_pipelines import source

    records = source.open_source(self.scenes, split="test")
    self.silent.mkdir(exist_ok=True)
    paths = []
    for index in range(min(self.scale.videos, len(records))):
      record = records[index]
      paths.append(self.silent / f"{record['id']}.mp4")
      paths[-1].write_bytes(record["video"])
    return paths

  def report(self) -> None:
    results = [self.scores / arm.name / "results.json" for arm in self.arms()]
    v2a("report", *results, "-o", self.page, makes=self.page)

  def summary(self) -> str:
    """Says what was trained for how long, and where to look."""
    lines = []
    for arm in self.arms():
      results = files.read_json(self.scores / arm.name / "results.json")
      trained = results["checkpoint"]
      lines.append(
        f"{results['name']}: {trained['step']} steps, {trained['clips_seen']}"
        f" clips seen in {clock(trained['train_seconds'] or 0)} of training,"
        " from scratch"
      )
      lines.append(f"  {_in_time(results)}")
    lines.append(
      "That is minutes of training on one small machine: it shows the road,"
      " not the quality. Longer recipes stand in the headers of configs/*.py."
    )
    for video in sorted(self.soundtracks.glob("*/*/*__c01_*.mp4")):
      lines.append(f"soundtrack  {video}")
    lines.append(f"report      {self.page}")
    return "\n".join(lines)


def _in_time(results: Mapping[str, Any]) -> str:
  """Says whether a model has learned to follow the picture."""
  rows = {row["name"]: row["metrics"] for row in results["rows"]}
  own, other = (
    rows[name].get(status.MAIN_METRIC, {})
    for name in ("generated", "shuffled_video")
  )
  if own.get("low") is None or other.get("high") is None:
    return "whether it follows the picture cannot be told from so few clips"
  learned = own["low"] > other["high"]
  return (
    f"onset F1 {own['value']:.2f} [{own['low']:.2f}, {own['high']:.2f}], with"
    f" another clip's video {other['value']:.2f}: it"
    f" {'follows' if learned else 'has not learned to follow'} the picture"
  )


def v2a(*args, makes: pathlib.Path | None = None) -> None:
  """Prints and runs `v2a ...`, unless its output `makes` is there.

  Raises:
    SystemExit: the command failed, and has said why.
  """
  words = [str(arg) for arg in args]
  shown = f"    $ v2a {shlex.join(words)}"
  if makes is not None and makes.exists():
    print(f"{shown}\n    done already: {makes}", flush=True)
    return
  print(shown, flush=True)
  code = run(words)
  if code:
    print(
      f"v2a {words[0]} ended with status {code}; the same command continues"
      " from here",
      file=sys.stderr,
    )
    raise SystemExit(code)


def run(words: Sequence[str]) -> int:
  """Runs `v2a` in a process; returns the exit status."""
  # XLA takes and returns its buffers at every step; in huge pages a step costs
  # a seventh less processor time on Linux (benchmarks/huge_pages.py).
  env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
  if words[0] == "sweep":
    # One device a core keeps all of them busy: most operations use only one.
    env["JAX_NUM_CPU_DEVICES"] = str(devices())
  command = [sys.executable, "-m", "launch.cli", *words]
  process = None
  try:
    with parent.lifeline() as inherited:
      inherited["env"] = env | inherited["env"]
      # In a session of its own, so that Ctrl-C is one signal for it.
      process = subprocess.Popen(command, start_new_session=True, **inherited)
      return process.wait()
  finally:
    if process:
      _wait(process)


def _wait(process: subprocess.Popen) -> None:
  """Waits for a command that was asked to end; a further Ctrl-C is passed on."""
  while process.poll() is None:
    try:
      process.wait()
    except KeyboardInterrupt:
      process.send_signal(signal.SIGINT)


def _exit(number: int, _) -> None:
  raise SystemExit(128 + number)


def devices() -> int:
  """Returns a power of two, which divides the batch: at most one per core."""
  return min(8, 1 << ((os.cpu_count() or 1).bit_length() - 1))


if __name__ == "__main__":
  signal.signal(signal.SIGTERM, _exit)
  raise SystemExit(cli.guarded(PROG, main, sys.argv[1:]))
