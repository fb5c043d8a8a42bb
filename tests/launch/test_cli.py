"""The door of all commands: errors of one line, exit statuses, signals."""

import os
import subprocess
import sys

import numpy as np
import pytest

from launch import cli, parsing
from tests.launch.commands import ENV, ROOT, refused, v2a

DIFFUSION = "--config=configs/diffusion_tiny.py"
AR = ("--config=configs/ar_tiny.py", "--workdir=/nonexistent/run")
TINY = ("diffusion_tiny", "--set=no/such/set", "-o", "no/such/out")


def bare(*args) -> subprocess.CompletedProcess:
  """Runs the command where no package is installed."""
  # -I -S: no site-packages, so nothing that is installed can be imported.
  code = (
    "import sys; sys.path.insert(0, '.'); from launch import cli;"
    "sys.exit(cli.main(sys.argv[1:]))"
  )
  return subprocess.run(
    [sys.executable, "-I", "-S", "-c", code, *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


@pytest.mark.parametrize(
  "args,words",
  [
    # A wrong command.
    (["genrate"], "no command 'genrate', did you mean generate?"),
    (["zzz"], "there are doctor, inspect, plan, data, train, eval, report"),
    (["--hlp"], "no command '--hlp'"),
    (["data", "bild"], "no command 'bild', did you mean build?"),
    (["sweep", "start"], "no command 'start', did you mean status?"),
    (["weights", "fech"], "no command 'fech', did you mean fetch?"),
    (["watermark", "zzz"], "there are detect (v2a watermark --help)"),
    # A wrong flag.
    (["train", "--wrkdir=x"], "--wrkdir, did you mean --workdir?"),
    (["doctor", "--jsn"], "did you mean --json? (v2a doctor --help)"),
    (["inspect", "--device=3"], "did you mean --devices?"),
    (["data", "scenes", "--nun=3"], "did you mean --num?"),
    (["data", "build", "x", "--captoins=y"], "did you mean --captions?"),
    (["eval", "x", "--num_clip=3"], "did you mean --num_clips?"),
    (["report", "x", "--max_clip=3"], "did you mean --max_clips?"),
    (["sweep", "plan", "--confg=x"], "did you mean --config?"),
    (["sweep", "launch", "x", "--job=2"], "did you mean --jobs?"),
    (["generate", "x", "--num_candidate=3"], "--num_candidates?"),
    (["generate", "x", "--promt", "rain"], "did you mean --prompt?"),
    (["watermark", "detect", "x", "--kee=1"], "did you mean --key?"),
    (["weights", "list", "--jso"], "did you mean --json?"),
    (["report", "x", "--zzz"], "unknown flag --zzz (v2a report --help)"),
    (["doctor", "-x"], "unexpected argument '-x'"),
    (["doctor", "more"], "unexpected argument 'more'"),
    # Overrides go where a config goes, and only there.
    (["eval", "x", "--config.seed=3"], "unknown flag --config.seed"),
    (["sweep", "status", "x", "--config.seed=3"], "--config.seed"),
    (["train", *AR, "--config.seed"], "write --config.seed=VALUE"),
    # Something is missing.
    (["train"], "no config: give --config=configs/diffusion_tiny.py"),
    (["train", AR[0]], "no workdir: give --workdir=runs/NAME"),
    (["train", "--workdir"], "--workdir: expected one argument"),
    (["inspect"], "no config: give --config="),
    (["generate", "-o", "x"], "no video: name one, or a sidecar with --from"),
    (["generate", "x"], "required: -o/--output (v2a generate --help)"),
    (["eval", "x", "-o", "y"], "required: --set"),
    (["report", "-o", "x.html"], "required: RESULTS"),
    (["sweep", "plan", "-o", "x"], "required: --config"),
    (["sweep", "status"], "required: FOLDER (v2a sweep status --help)"),
    (["weights", "export", "x"], "required: -o/--output"),
    (["data", "precompute", "x", "-o", "y"], "name the model: --checkpoint"),
    # A wrong value.
    (["data", "scenes", "--num", "many"], "many is not a whole number in [0"),
    (["sweep", "launch", "x", "--jobs", "0"], "0 is not a whole number in [1"),
    (["inspect", DIFFUSION, "--devices=0"], "0 is not a whole number in [1"),
    (["eval", "x", "--batch_size=0"], "0 is not a whole number in [1, inf)"),
    (["report", "x", "--max_clips=-1"], "-1 is not a whole number in [0, inf"),
    (["generate", "x", "--keep=0"], "0 is not a whole number in [1, inf)"),
    (["generate", "x", "--duration=long"], "invalid float value: 'long'"),
    (["generate", "x", "--regenerate", "2"], "'2' is not a span in seconds"),
    (["data", "build", "x", "--columns", "y"], "y is not FIELD=COLUMN"),
    (["eval", *TINY, "--solver=eulr"], "config.sampler.solver='eulr' is not"),
    (["eval", *TINY, "--temperature=1"], "config.sampler.temperature: no such"),
    (["eval", *TINY, "--num_steps=0"], "num_steps=0 is not in [1, inf)"),
    (["eval", "-o", "z"], "name a checkpoint, or --outputs DIR"),
    (["eval", "--outputs=a", "-o", "z"], "required: --reference"),
    (["eval", "x", "--set=y", "-o", "z", "--shard=5/4"], "--shard 5/4 is no"),
    # Something is not there.
    (["report", "no.json", "-o", "x.html"], "no.json"),
    (["generate", "no/such.mp4", "-o", "x"], "no video at no/such.mp4"),
    (["watermark", "detect", "no/such.mp4"], "no file at no/such.mp4"),
    (["eval", "no/such/run", "--set=x", "-o", "y"], "no/such/run"),
    (["data", "report", "no/such/set"], "no/such/set"),
    (["data", "build", "no/such/dir", "-o", "x"], "no folder no/such/dir"),
    (["train", *AR, "--config.data.paths=('no/such',)"], "no/such"),
    (["train", *AR, "--config.codec=no/such"], "bundled here: codec_tiny"),
  ],
  ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_that_says_what_to_do(args, words, capsys):
  assert words in refused(capsys, *args)


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5"])
@pytest.mark.parametrize(
  "args",
  [
    ["train", *AR, "--config.seed=SEED"],
    ["sweep", "plan", DIFFUSION, "-o", "OUT", "--config.seed=SEED"],
    ["data", "scenes", "-o", "OUT", "--num=1", "--seed=SEED"],
    ["eval", "no/such", "--set=x", "-o", "OUT", "--seed=SEED"],
    ["generate", "no/such.mp4", "-o", "OUT", "--seed", "SEED"],
  ],
  ids=lambda args: args[0],
)
def test_a_seed_that_jax_would_truncate_is_refused(
  args, seed, tmp_path, capsys
):
  out = tmp_path / "out"
  typed = [a.replace("SEED", seed).replace("OUT", str(out)) for a in args]
  line = refused(capsys, *typed)
  assert seed in line and "seed" in line
  assert "[0, 4294967295]" in line or "of type int" in line
  assert not out.exists()


def test_seeds_that_are_counted_up_stay_below_the_largest(tmp_path, capsys):
  video = tmp_path / "clip.mp4"
  video.touch()
  last = str(2**32 - 1)
  args = [*("generate", video, "-o", tmp_path / "out", "--seed", last)]
  assert f"needs seeds up to {2**32 + 2}" in refused(capsys, *args)
  args = ["eval", "no/such", "--set=x", "-o", "y", "--noise_seed", last]
  assert f"with 64 clips needs seeds up to {2**32 + 62}" in refused(
    capsys, *args
  )
  # One clip needs that seed alone, so what is missing comes next.
  assert "no/such" in refused(capsys, *args, "--num_clips=1")


def test_takes_are_chosen_of_models_only(tmp_path, capsys):
  args = ["eval", "--outputs", tmp_path, "--set=x", "-o", tmp_path / "out"]
  assert "--best_of" in refused(capsys, *args, "--best_of=4")


def test_the_module_that_cluster_scripts_run_is_the_command():
  run = subprocess.run(
    [sys.executable, "-m", "launch.train", "--nosuch=x"],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=ENV,
  )
  assert run.returncode == 2
  assert run.stderr == v2a("train", "--nosuch=x").stderr != ""


def test_debug_adds_the_traceback_and_keeps_the_status(capsys):
  args = ["sweep", "status", "no/such"]
  line = refused(capsys, *args)
  assert cli.main([*args, "--debug"]) == 2
  shown = capsys.readouterr().err
  assert shown.startswith("Traceback")
  assert "in read" in shown  # The function that raised it.
  assert shown.endswith(line)


def test_version_is_that_of_the_package():
  import v2a_jax

  for flag in ("--version", "-V"):
    assert v2a(flag).stdout == f"v2a {v2a_jax.__version__}\n"


def test_without_packages_a_command_says_how_to_install_them():
  run = bare("weights", "list")
  assert run.returncode == 2 and not run.stdout
  assert "v2a weights: No module named" in run.stderr
  assert run.stderr.endswith(
    "v2a doctor shows how to install what is missing\n"
  )


def test_help_and_version_need_nothing_but_python():
  for args in (["--help"], ["--version"], ["eval", "--help"], ["doctor", "-h"]):
    run = bare(*args)
    assert run.returncode == 0, run.stderr
    assert run.stdout and not run.stderr


def test_a_reader_that_leaves_ends_the_command_quietly():
  run = subprocess.Popen(
    [sys.executable, "-m", "launch.cli", "weights", "list"],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=ROOT,
    env=ENV,
  )
  run.stdout.close()  # Before it prints, as `head -0` would.
  assert run.stderr.read() == b""
  assert run.wait() == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line():
  with open("/dev/full", "w") as full:
    run = subprocess.run(
      [sys.executable, "-m", "launch.cli", "weights", "list"],
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
      env=ENV,
    )
  assert run.returncode == 2
  assert run.stderr == "v2a weights: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
  "error,words",
  [
    (FileNotFoundError(2, "No such file", "a.mp4"), "No such file: 'a.mp4'"),
    (ValueError("two\nlines"), "two lines"),
    (ValueError(), "ValueError"),
    (ModuleNotFoundError("No module named 'av'"), "v2a doctor shows how"),
  ],
)
def test_an_expected_error_is_one_line(error, words, capsys):
  def call(argv):
    raise error

  assert cli.guarded("x", call, []) == 2
  line = capsys.readouterr().err
  assert line.startswith("x: ") and words in line and line.count("\n") == 1


def test_an_error_of_this_project_is_its_message_alone(capsys):
  call = lambda argv: parsing.existing("no/such", "video")
  assert cli.guarded("x", call, []) == 2
  assert capsys.readouterr().err == "x: no video at no/such\n"


def test_an_error_from_another_library_names_its_type(capsys):
  call = lambda argv: np.zeros((2, 3)).reshape(4)
  assert cli.guarded("x", call, []) == 2
  line = capsys.readouterr().err
  assert line.startswith("x: cannot reshape array")
  assert line.endswith("[ValueError; --debug shows where]\n")


def test_a_mistake_in_the_program_keeps_its_traceback():
  with pytest.raises(ZeroDivisionError):
    cli.guarded("x", lambda argv: 1 // 0, [])


@pytest.mark.parametrize("status", [0, 1, None])
def test_the_status_of_a_command_is_the_status_of_the_process(status):
  assert cli.guarded("x", lambda argv: status, []) == (status or 0)
