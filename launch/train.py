"""Train what a config describes, or continue the run in the workdir.

One command for codecs, diffusion and autoregressive models. A workdir that
holds a checkpoint is continued from it, so after a preemption the same command
is all that a scheduler needs.
"""

import contextlib
import sys

from launch import cli, parsing
from launch import config as config_lib

ARGUMENTS = f"""{parsing.CONFIG}
--workdir DIR         folder of checkpoints, metrics.jsonl and config.json
--print_config        print the config with overrides and defaults, and stop
--config_hash TEXT    digest that the config must have, as a sweep was planned
                      with it
--help_config         print type, value and meaning of every key, and stop
several processes (see launch/README.md):
--distributed         this is one process of several; on TPU, Slurm and Open
                      MPI JAX finds the others, elsewhere the three flags below
                      are needed
--coordinator HOST:PORT
                      address of process 0
--num_processes COUNT
                      number of processes
--process_id N        number of this process, from 0
--join_timeout SECONDS
                      time for all processes to come (default 900)
--barrier_timeout SECONDS
                      time for all to come to the first step, and to the end
                      (default 1800)
"""
EXAMPLE = """v2a train --config=configs/diffusion_tiny.py \\
    --config.train_seconds=600 --workdir=runs/diffusion_tiny"""


def main(argv: list[str]) -> int:
  """Runs `v2a train`."""
  parser = parsing.Parser("v2a train", __doc__, ARGUMENTS, EXAMPLE)
  parser.usage = "%(prog)s --config FILE --workdir DIR [options]"
  args = parser.parse(argv)
  config = config_lib.parse(args.config, args.overrides)
  if args.config_hash not in (None, now := config_lib.fingerprint(config)):
    raise parsing.UsageError(
      f"this config has the digest {now} here, and was planned with"
      f" {args.config_hash}: the config file, its overrides or the code have"
      " changed; plan the sweep again, or leave --config_hash out"
    )
  if args.help_config:
    print(config_lib.help_text(config))
    return 0
  if args.print_config:
    print(config)
    return 0
  if not args.workdir:
    raise parsing.UsageError("no workdir: give --workdir=runs/NAME")
  from v2a_jax.experiment import parallelism
  from v2a_jax.experiment.workdir import open_experiment
  from v2a_jax.parallel import compile_cache, distributed
  from v2a_jax.training import loop

  if args.distributed:
    distributed.initialize(
      args.coordinator,
      args.num_processes,
      args.process_id,
      timeouts=distributed.Timeouts(
        join=args.join_timeout,
        lost=config.lost_seconds,
        barrier=args.barrier_timeout,
      ),
    )
  compile_cache.enable()
  with contextlib.ExitStack() as stack:
    with distributed.together():
      experiment = open_experiment(config, args.workdir, stack=stack)
      experiment, chosen = parallelism.settle_here(experiment)
    if chosen and distributed.is_main_process():
      print(chosen, flush=True)
    samples = None
    if experiment.run.eval_samples:
      from v2a_jax.soundtrack.samples import Samples

      samples = Samples(experiment)
    loop.train(experiment, args.workdir, samples=samples)
  return 0


if __name__ == "__main__":
  raise SystemExit(cli.main(["train", *sys.argv[1:]]))
