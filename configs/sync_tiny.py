"""The judge of synchronisation: how far is a sound from its picture?

v2a data scenes -o data/judge --num 2400 --seed 7001 --size 96
v2a train --config=configs/sync_tiny.py --workdir=runs/sync_tiny
v2a weights export runs/sync_tiny -o sync_tiny

1,100 steps in 41 minutes on one busy core. Of 40 held-out scenes it finds the
offset within 40 ms in all, of 24 real clips, of which it has seen none, in 44 %;
docs/evaluation.md has the rest.

It only judges (`v2a eval`): nothing that generates is conditioned on it, starts
from it or is taught by it, and no generator has seen its scenes.
"""

from configs import common


def get_config():
  config = common.get_config()
  config.name = "sync_tiny"
  config.codec = ""  # nothing is generated
  config.data.update(
    paths=("data/judge",),
    batch_size=16,
    frame_size=64,
    num_threads=1,
  )
  config.model = dict(name="sync")
  config.objective = dict(name="sync")
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=100,
    final_fraction=0.02,
    betas=(0.9, 0.98),
    weight_decay=0.02,
    max_grad_norm=1.0,
  )
  config.num_train_steps = 1100
  config.ema_decay = 0.99
  config.eval_every = 200
  config.checkpoint_every = 200
  return config
