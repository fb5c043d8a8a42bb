"""`v2a train`: one command for every objective; it resumes by itself.

A work directory that holds a checkpoint is continued from it; the same
command after a preemption is all that a scheduler needs. On several hosts,
start it once on each with `--distributed` (see `launch/README.md`).
"""

from absl import flags

from launch import cli
from launch import config as config_lib
from launch.parsing import UsageError

HELP = """usage: v2a train --config=FILE --workdir=DIR [--config.key=value ...]

Trains what the config describes (a codec, a diffusion model, a token model),
and continues from DIR's newest checkpoint if it has one.

  --config=FILE          file with get_config(), such as configs/ar_tiny.py
  --config.key=value     value of a key, dotted: --config.model.depth=4
  --workdir=DIR          folder of checkpoints, metrics.jsonl and config.json
  --print_config         show the resolved config and stop
  --help_config          show every key with its type, default and meaning
  --distributed          this is one process of several; on TPU, Slurm and Open
                         MPI they find one another, elsewhere give
    --coordinator=HOST:PORT --num_processes=N --process_id=I
  --debug                show the traceback of an error

example:
  v2a train --config=configs/diffusion_tiny.py --config.train_seconds=600 \\
    --workdir=runs/diffusion_tiny
"""


def main(argv: list[str]) -> int:
  """Runs `v2a train`."""
  if {"-h", "--help", "--helpfull"} & set(argv):
    print(HELP, end="")
    return 0
  if "--help_config" in argv:
    print(config_lib.help_text([a for a in argv if a != "--help_config"]))
    return 0
  values = _flags()
  config = config_lib.parse(argv, values=values)
  if values.print_config:
    print(config)
    return 0
  if not values.workdir:
    raise UsageError("no work directory: give --workdir=runs/NAME")
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.experiment.workdir import open_experiment
  from v2a_jax.parallel import distributed
  from v2a_jax.training import loop

  if values.distributed:
    distributed.initialize(
      values.coordinator, values.num_processes, values.process_id
    )
  loop.train(open_experiment(config, values.workdir), values.workdir)
  return 0


def _flags() -> flags.FlagValues:
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "work directory", flag_values=values)
  flags.DEFINE_bool(
    "print_config", False, "show the resolved config", flag_values=values
  )
  flags.DEFINE_bool(
    "distributed", False, "one process of several", flag_values=values
  )
  flags.DEFINE_string("coordinator", None, "host:port", flag_values=values)
  flags.DEFINE_integer(
    "num_processes", None, "number of processes", flag_values=values
  )
  flags.DEFINE_integer(
    "process_id", None, "number of this process, from 0", flag_values=values
  )
  return values


if __name__ == "__main__":
  raise SystemExit(cli.main_of("train"))
