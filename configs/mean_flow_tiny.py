r"""Few-step generation: average velocities instead of instantaneous ones.

v2a data scenes -o data/scenes --num 2400 --seed 0
JAX_NUM_CPU_DEVICES=2 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
  v2a train --config=configs/mean_flow_tiny.py --workdir=runs/mean_flow_tiny
v2a eval runs/mean_flow_tiny --set=data/scenes --split=test -o runs/eval

Goes on from the bundled diffusion_tiny, whose velocity is the average one of an
interval of no length; only what reads diffusion time starts fresh, because its
features are smoother here (`models/dit.py`).
"""

from configs import diffusion_tiny


def get_config():
  config = diffusion_tiny.get_config()
  config.name = "mean_flow_tiny"
  config.init_from = "diffusion_tiny"
  config.init_fresh = ("backbone/time", "backbone/interval")
  config.num_train_steps = 2000
  config.model.average = True
  config.objective = dict(
    name="mean_flow",
    cond_drop_rate=0.1,
    alignment_weight=0.0,
    instant_rate=0.5,
    time_mean=0.0,
    time_std=1.0,
    power=1.0,
  )
  config.optimizer.update(learning_rate=3e-4, warmup_steps=100)
  config.sampler.update(solver="average", num_steps=2)
  return config


def sweep_steps():
  for num_steps in (1, 2, 4):
    yield {"sampler.num_steps": num_steps}
