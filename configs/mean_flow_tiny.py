r"""Few-step generation: average velocities instead of instantaneous ones.

v2a data scenes -o data/scenes --num 2400 --seed 0
JAX_NUM_CPU_DEVICES=2 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
  v2a train --config=configs/mean_flow_tiny.py --workdir=runs/mean_flow_tiny
v2a eval runs/mean_flow_tiny --set=data/scenes --split=test -o runs/eval

Goes on from the bundled diffusion_tiny, whose velocity is the average one of an
interval of no length; only what reads diffusion time starts fresh, because its
features are smoother here (`models/dit.py`). From the bundle of before text had
places and latents were white, 14,400 clips in 20 minutes on two cores; 64 held-out scenes, 95 % intervals over clips, `v2a eval --num_steps=N`:

           onset F1 at 50 ms        the same, of     FAD                  the same, of
  steps    mean_flow_tiny           diffusion_tiny   mean_flow_tiny       diffusion_tiny
  1        0.822 [0.762, 0.867]     0.865            3.42 [2.98, 3.82]    3.53
  2        0.908 [0.855, 0.941]     0.903            2.81 [2.40, 3.12]    2.98
  4        0.914 [0.863, 0.945]     0.913            2.80 [2.36, 3.14]    2.97

With another clip's video: F1 0.136 [0.101, 0.174] at two steps. The intervals of
the two models overlap in every row: on these scenes guided Euler steps of the
plain model are about as good, so this shows that the objective works, not that
it is needed at this size.
"""

from configs import common, diffusion_tiny


def get_config():
  config = diffusion_tiny.get_config()
  config.name = "mean_flow_tiny"
  config.init_from = "diffusion_tiny"
  config.init_fresh = ("backbone/time", "backbone/interval")
  config.num_train_steps = 1800
  config.model.average = True
  config.objective = dict(
    name="mean_flow",
    **common.conditions(),
    instant_rate=0.5,
    time_mean=0.0,
  )
  config.optimizer.update(learning_rate=3e-4, warmup_steps=100)
  config.sampler.update(solver="average", num_steps=2)
  return config


def sweep_steps():
  for num_steps in (1, 2, 4):
    yield {"sampler.num_steps": num_steps}
