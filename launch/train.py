"""`v2a train`: one command for every objective; it resumes by itself.

A work directory that holds a checkpoint is continued from it; the same
command after a preemption is all that a scheduler needs. On several hosts,
start it once on each with `--distributed` (see `launch/README.md`).
"""

from absl import flags

from launch import cli
from launch import config as settings
from launch.parsing import UsageError

HELP = """usage: v2a train --config=FILE --workdir=DIR [--config.key=value ...]

Trains what the config describes (a codec, a diffusion model, a token model),
and continues from DIR's newest checkpoint if it has one.

  --config=FILE          a file with get_config(), such as configs/ar_tiny.py
  --config.key=value     overrides a key of it, dotted: --config.model.depth=4
  --workdir=DIR          checkpoints, metrics.jsonl, config.json go here
  --print_config         show the resolved config and stop
  --distributed          this is one process of several; on TPU, Slurm and Open
                         MPI they find one another, elsewhere say
    --coordinator=HOST:PORT --num_processes=N --process_id=I
  --debug                show the traceback of an error

example:
  v2a train --config=configs/diffusion_tiny.py --config.train_seconds=600 \\
    --workdir=runs/diffusion_tiny
"""


def main(argv: list[str]) -> int:
  if {"-h", "--help", "--helpfull"} & set(argv):
    print(HELP, end="")
    return 0
  values = _flags()
  config = settings.parse(argv, values=values)
  if values.print_config:
    print(config)
    return 0
  if not values.workdir:
    raise UsageError("say where it goes: --workdir=runs/NAME")
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.experiment.workdir import build_experiment
  from v2a_jax.parallel import distributed
  from v2a_jax.training import loop

  if values.distributed:
    distributed.initialize(
      values.coordinator, values.num_processes, values.process_id
    )
  loop.train(build_experiment(config, values.workdir), values.workdir)
  return 0


def _flags() -> flags.FlagValues:
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "where it goes", flag_values=values)
  flags.DEFINE_bool("print_config", False, "show it", flag_values=values)
  flags.DEFINE_bool("distributed", False, "one of several", flag_values=values)
  flags.DEFINE_string("coordinator", None, "host:port", flag_values=values)
  flags.DEFINE_integer("num_processes", None, "of all", flag_values=values)
  flags.DEFINE_integer("process_id", None, "from 0", flag_values=values)
  return values


if __name__ == "__main__":
  raise SystemExit(cli.main_of("train"))
