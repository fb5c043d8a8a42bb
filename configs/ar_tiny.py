r"""Next-token prediction over the codec's codes; all else as diffusion_tiny.

v2a data scenes -o data/scenes --num 2400 --seed 0
JAX_NUM_CPU_DEVICES=2 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
  v2a train --config=configs/ar_tiny.py --workdir=runs/ar_tiny \
  --config.num_train_steps=6000
v2a eval runs/ar_tiny --set=data/scenes --split=test -o runs/eval

Before text had places and words their time: 48,000 clips in 25 minutes on two
cores, 40 CPU minutes; 64 held-out scenes, 95 % intervals over clips, onset F1 at
50 ms:
  generated 0.611 [0.557, 0.663]    shuffled video 0.190 [0.154, 0.232]
  codec     0.949 [0.921, 0.968]    ground truth   0.956 [0.922, 0.975]
FAD (mn04): generated 3.29 [2.92, 3.69], codec 2.82 [2.43, 3.14]. It sounds as
good as diffusion_tiny did (FAD 2.91) and is less well in time (F1 0.920, with a
third more clips). Starting from its encoder, `--config.init_from=diffusion_tiny
--config.init_fresh="('backbone',)"`, is the fairer comparison of the two, and has
not been trained. No bundle: assets/ may hold 15 MB, and the better arm does.

Two of the tiny codec's codebooks are enough: reconstructions of 32 held-out
scenes have a Frechet distance (mn04) of 4.1 from two as from all eight.
"""

from configs import common


def get_config():
  config = common.get_config()
  config.name = "ar_tiny"
  config.data.target = "codes"
  config.model = dict(
    name="ar",
    width=128,
    num_heads=4,
    depth=5,
    mlp_dim=384,
    num_codebooks=2,  # of the codec's 8; see the header
    modulation_rank=32,
    unroll=8,
    conditioner=common.conditioner(),
  )
  config.objective = dict(name="next_token", **common.conditions())
  config.sampler = dict(
    name="tokens",
    temperature=0.9,
    top_k=100,
    guidance=dict(video=2.0, prompt=1.5, transcript=1.0, negative_prompt=2.0),
  )
  return config


def sweep_temperature():
  for temperature in (0.7, 0.9, 1.0):
    yield {"sampler.temperature": temperature}


def sweep_pattern():
  for pattern in ("delay", "parallel"):
    yield {"model.pattern": pattern}


def sweep_depth():
  for depth in (3, 5, 9):
    yield {"model.depth": depth}
