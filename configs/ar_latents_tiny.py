r"""Autoregression over continuous latents, a diffusion head for each frame.

v2a data scenes -o data/scenes --num 2400 --seed 0
JAX_NUM_CPU_DEVICES=2 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
  v2a train --config=configs/ar_latents_tiny.py --workdir=runs/ar_latents_tiny
v2a eval runs/ar_latents_tiny --set=data/scenes --split=test -o runs/eval

The transformer of ar_tiny on the latents of diffusion_tiny: no codes. How it
compares with both is in docs/ablation_ar_vs_diffusion.md. Validation loss of its three
seeds, of the average of the weights: 0.116 to 0.117 at step 1,000, 0.094 to 0.096
at 2,000.
"""

from configs import common


def get_config():
  config = common.get_config()
  config.name = "ar_latents_tiny"
  config.data.target = "latents"
  config.model = dict(
    name="ar_latents",
    width=128,
    num_heads=4,
    depth=5,
    mlp_dim=384,
    head_width=128,
    modulation_rank=32,
    unroll=8,
    conditioner=common.conditioner(),
  )
  config.objective = dict(name="next_latents", **common.conditions())
  config.sampler = dict(
    name="latents",
    num_steps=16,
    guidance=dict(video=2.0, prompt=1.5, transcript=1.0, negative_prompt=3.0),
  )
  return config


def sweep_temperature():
  for temperature in (0.8, 0.9, 1.0):
    yield {"sampler.temperature": temperature}


def sweep_head():
  for width in (128, 256):
    yield {"model.head_width": width}
