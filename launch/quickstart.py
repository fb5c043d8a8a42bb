"""`make quickstart`: scenes, two trained arms, soundtracks, a scored report.

Every step is a command that a person could type, printed before it runs, and
is skipped when what it makes is there: started again, it goes on.
"""

from collections.abc import Callable, Sequence
import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

from launch import doctor, parsing
from launch.sweep import plan

CONFIGS = ("configs/diffusion_tiny.py", "configs/ar_tiny.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """How much of everything.

  Attributes:
    scenes: rendered.
    held_out: share of them in the test split, and in the validation split.
    train_seconds: of each arm, on the wall clock.
    clips: held-out clips that each arm is scored on.
    videos: held-out silent clips that get soundtracks.
    candidates: soundtracks for each of them.
    overrides: of both configs.
  """

  scenes: int
  held_out: float
  train_seconds: float
  clips: int
  videos: int
  candidates: int
  overrides: tuple[str, ...] = ()


SCALES = {
  "full": Scale(
    scenes=1500,
    held_out=0.05,
    train_seconds=315,
    clips=48,
    videos=3,
    candidates=2,
    # The schedule ends with the run: this many steps take about five minutes
    # on two cores, and `train_seconds` is the limit on slower ones.
    overrides=(
      "--config.num_train_steps=1500",
      "--config.optimizer.warmup_steps=50",
      "--config.ema_decay=0.995",
    ),
  ),
  # Shows that every step works; nothing is learned.
  "smoke": Scale(
    scenes=24,
    held_out=0.25,
    train_seconds=60,
    clips=2,
    videos=3,
    candidates=1,
    overrides=(
      "--config.num_train_steps=3",
      "--config.data.batch_size=2",
      "--config.log_every=1",
      "--config.model.depth=1",
      "--config.model.width=32",
      "--config.model.num_heads=2",
      "--config.model.mlp_dim=32",
      "--config.model.modulation_rank=8",
    ),
  ),
}


def main(argv: list[str]) -> int:
  parser = parsing.make_parser(
    "python -m launch.quickstart",
    about="From nothing to trained arms, soundtracks and a report.",
    example=(
      "python -m launch.quickstart --out runs/quickstart"
      " --config.train_seconds=600"
    ),
  )
  parser.add_argument("--out", default="runs/quickstart", help="its folder")
  parser.add_argument("--scale", choices=SCALES, default="full")
  overrides = [arg for arg in argv if arg.startswith("--config.")]
  args = parser.parse([arg for arg in argv if arg not in overrides])
  scale = SCALES[args.scale]
  more = (*scale.overrides, *overrides)
  road = Road(
    pathlib.Path(args.out), dataclasses.replace(scale, overrides=more)
  )
  began = time.monotonic()
  for number, (about, step) in enumerate(road.steps(), start=1):
    print(f"\n[{number}/{len(road.steps())}] {about}", flush=True)
    started = time.monotonic()
    step()
    print(f"    {clock(time.monotonic() - started)}", flush=True)
  print("\n" + road.summary())
  print(f"total {clock(time.monotonic() - began)}")
  return 0


class Road:
  """The steps, and where each puts what it makes.

  Attributes:
    scenes: the data set.
    sweep: the two arms; a folder a run.
    silent: the held-out clips, without sound.
    soundtracks: the same with sound, a folder an arm.
    page: the report.
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
    s = self.scale
    minutes = f"{2 * s.train_seconds / 60:g} minutes"
    return [
      ("what is here", self.look),
      (f"render {s.scenes} scenes with their sound", self.render),
      (f"train diffusion and autoregression, {minutes}", self.train),
      (f"score both on {s.clips} held-out clips", self.score),
      (f"soundtracks for {s.videos} held-out silent clips", self.generate),
      ("the report", self.report),
    ]

  def look(self) -> None:
    print("\n".join(doctor.describe(doctor.examine()).splitlines()[:7]))

  def render(self) -> None:
    v2a(
      *("data", "scenes", "-o", self.scenes, "--num", self.scale.scenes),
      *("--seed", 0, "--held_out", self.scale.held_out),
      makes=self.scenes / "manifest.json",
    )

  def train(self) -> None:
    v2a(
      *("sweep", "plan", *(f"--config={config}" for config in CONFIGS)),
      *("-o", self.sweep, f"--config.train_seconds={self.scale.train_seconds}"),
      f'--config.data.paths=("{self.scenes}",)',
      *self.scale.overrides,
      makes=self.sweep / "plan.json",
    )
    if any(plan.state(arm) != "DONE" for arm in self.arms()):
      v2a("sweep", "launch", self.sweep)

  def arms(self) -> list[pathlib.Path]:
    """The work directories of the two runs."""
    return [self.sweep / point.name for point in plan.read(self.sweep)]

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
    """Pictures of the first clips of the test split, as files."""
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
    """What was trained for how long, and where to look."""
    lines = []
    for arm in self.arms():
      results = json.loads(
        (self.scores / arm.name / "results.json").read_text()
      )
      trained = results["checkpoint"]
      lines.append(
        f"{results['name']}: {trained['step']} steps, {trained['clips_seen']}"
        f" clips seen in {clock(trained['train_seconds'] or 0)} of training,"
        " from scratch"
      )
    lines.append(
      "That is minutes of training on one small machine: it shows the road,"
      " not the quality. Longer recipes stand in the headers of configs/*.py."
    )
    for video in sorted(self.soundtracks.glob("*/*/*__c01_*.mp4")):
      lines.append(f"soundtrack  {video}")
    lines.append(f"report      {self.page}")
    return "\n".join(lines)


def v2a(*args, makes: pathlib.Path | None = None) -> None:
  """Shows and runs `v2a ...`, unless what it makes is there.

  Raises:
    SystemExit: it failed; it has said why.
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
  # XLA takes and returns its buffers at every step; in huge pages a step costs
  # a seventh less processor time on Linux (benchmarks/huge_pages.py).
  env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ}
  if words[0] == "sweep":
    # One device a core keeps all of them busy: most operations use only one.
    env = {"JAX_NUM_CPU_DEVICES": str(devices()), **env}
  command = [sys.executable, "-m", "launch.cli", *words]
  return subprocess.run(command, env=env).returncode


def devices() -> int:
  """A power of two, so that it divides the batch: at most a device a core."""
  return min(8, 1 << ((os.cpu_count() or 1).bit_length() - 1))


def clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


if __name__ == "__main__":
  raise SystemExit(main(sys.argv[1:]))
