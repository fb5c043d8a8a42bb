"""`v2a train` for tests of launches: the real loop, on the toy experiment.

Takes the arguments of `v2a train`; of the config it minds seed and steps.
"""

import pathlib
import sys

import jax

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "training")]
COMMAND = f"{sys.executable} {pathlib.Path(__file__).resolve()}"


def main(argv: list[str]) -> None:
  from toy_training import experiment

  from launch import config as config_lib
  from launch import parsing, train
  from v2a_jax.basics import claim, parent
  from v2a_jax.parallel import distributed
  from v2a_jax.parallel.mesh import MeshConfig
  from v2a_jax.training import loop

  args = parsing.Parser("toy", "x", train.ARGUMENTS, "x").parse(argv)
  config = config_lib.parse(args.config, args.overrides)
  assert config_lib.fingerprint(config) == args.config_hash
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  if args.distributed:
    distributed.initialize()
  parent.stop_with_launcher()
  toy = experiment(
    seed=config.seed,
    num_train_steps=config.num_train_steps,
    checkpoint_every=config.checkpoint_every,
    keep=config.keep,
    mesh=MeshConfig(data=-1),
    delay=0.05,
  )
  if jax.process_index():
    loop.train(toy, args.workdir)
    return
  with claim.held(args.workdir):
    loop.train(toy, args.workdir)


if __name__ == "__main__":
  from launch import cli

  sys.exit(cli.guarded("toy", main, sys.argv[1:]))
