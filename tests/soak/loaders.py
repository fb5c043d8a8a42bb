"""Workers of a loader that are killed."""

import multiprocessing
import os
import pathlib
import random
import signal

from data_pipelines.loader import make_loader
from tests.data_pipelines.samples import (
  assert_same,
  loader_config,
  sound_record,
  write,
)
from tests.processes import all_end
from tests.soak.rounds import Tally, repeat

STEPS = 12


def workers_killed(
  folder: pathlib.Path, rounds: int, *, seed: int = 0
) -> Tally:
  """Kills a worker at a random batch; what follows must be as without."""
  tally = Tally(
    "SIGKILL of a data worker", "bitwise the same batches; none lives on"
  )
  rng = random.Random(seed)
  records = [sound_record(i, audio_caption=f"a {i}") for i in range(11)]
  config = loader_config(write(folder / "set", records), num_workers=2)
  with make_loader(config) as loader:
    wanted = [next(loader) for _ in range(STEPS)]

  def kill(step: int) -> str:
    found, pids = [], set()
    with make_loader(config) as loader:
      for number in range(STEPS):
        if number == step:
          children = multiprocessing.active_children()
          pids = {child.pid for child in children}
          os.kill(rng.choice(children).pid, signal.SIGKILL)
        found.append(next(loader))
      pids |= {child.pid for child in multiprocessing.active_children()}
    assert_same(found, wanted)
    assert all_end(list(pids)), "a worker lives on"
    return "went on"

  steps = (rng.randrange(1, STEPS) for _ in range(rounds))
  return repeat(tally, steps, kill)
