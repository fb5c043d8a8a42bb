r"""Rectified flow over audio latents, raw pixels trained end to end; two cores.

v2a data scenes -o data/scenes --num 2400 --seed 0 --ordered 0.12
JAX_NUM_CPU_DEVICES=2 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
  v2a train --config=configs/diffusion_tiny.py --workdir=runs/diffusion_tiny
v2a eval runs/diffusion_tiny --set=data/scenes --split=test -o runs/eval

Before text had places, words their time and latents were white, 64,000 clips in
34 minutes on two cores came to an onset F1 at 50 ms of 0.920, word times given.
The bundle went on from there for 101,600 clips; 64 held-out scenes, word times
not given, 95 % intervals over clips:
  generated 0.931 [0.895, 0.957]    shuffled video 0.163 [0.116, 0.218]
  codec     0.954 [0.907, 0.977]    ground truth   0.958 [0.905, 0.981]
Validation loss, of the average of the weights: from nothing, three seeds (docs/
ablation_ar_vs_diffusion.md), 0.207 to 0.228 at step 1,000 and 0.174 to 0.189 at
2,000; in the bundle's last run 0.113 at step 3,500 and 0.105 at 7,000 (0.157
without the video), where the plain weights have 0.120 and 0.106.
All rows stand in v2a_jax/assets/diffusion_tiny/CARD.md; the recipe has not been
trained from nothing for its 8,000 steps. On a GPU or TPU leave out the first two
settings: they give each CPU core a device, and memory in huge pages.
"""

from configs import common


def get_config():
  config = common.get_config()
  config.name = "diffusion_tiny"
  config.data.target = "latents"
  config.model = dict(
    name="dit",
    width=128,
    num_heads=4,
    joint_depth=2,
    depth=4,
    mlp_dim=256,
    modulation_rank=32,
    unroll=8,
    conditioner=common.conditioner(),
  )
  # REPA: `teacher="mn04", representation_weight=0.5` also regresses that
  # network's features (arXiv:2410.06940).
  config.objective = dict(name="diffusion", **common.conditions())
  config.sampler = dict(
    name="ode",
    num_steps=16,
    solver="euler",
    guidance=dict(video=2.0, prompt=1.5, transcript=1.0, negative_prompt=3.0),
  )
  return config


def sweep_guidance():
  for scale in (1.0, 2.0, 4.0):
    yield {"sampler.guidance.video": scale}


def sweep_depth():
  for depth in (2, 4, 8):
    yield {"model.depth": depth}
