r"""MMAudio's networks trained from nothing: frozen towers see, the rest learns.

v2a weights fetch mmaudio:large_44k_v2   # licences: docs/mmaudio.md
v2a data build clips/ --captions captions.csv -o data/clips
v2a data precompute data/clips --add features target --media none \
  --checkpoint mmaudio:large_44k_v2 -o data/mine
v2a train --config=configs/mmaudio.py:large_44k_v2 --workdir=runs/mine

CLIP at 8 frames a second and Synchformer at 25 run once a clip, before the
training, which reads their features and latents of the sound. `configs/
diffusion.py` learns to see from pixels instead. FLOPs of training a clip of 8 s, as
`v2a inspect` counts them, and the share of what sees:

                               parameters   FLOPs    frames and motion
  diffusion.py:large           998 M        8.9 T    87 %
  mmaudio.py:large_44k_v2      1.03 G       1.6 T     3 %, towers apart
  mmaudio.py:small_16k         157 M        0.23 T    5 %, towers apart

The prompt goes through CLIP's text tower in every step. Clips of sound alone
teach too, with the features that are learned for the absence of pictures; clips
of pictures alone have no loss and teach nothing, and only make the mean over
their batch smaller. `v2a data precompute --add features` without `target` and
`cached_target=False` draw latents anew in every step, as published. None of it
was trained here.
"""

from configs import common, finetune_mmaudio

# As published, https://github.com/hkchengrex/MMAudio.
SIZES = {
  "small_16k": dict(width=448, num_heads=7, joint_depth=4, depth=8),
  "small_44k": dict(width=448, num_heads=7, joint_depth=4, depth=8),
  "medium_44k": dict(width=896, num_heads=14, joint_depth=4, depth=8),
  "large_44k": dict(width=896, num_heads=14, joint_depth=7, depth=14),
  "large_44k_v2": dict(
    width=896, num_heads=14, joint_depth=7, depth=14, version=2
  ),
}
# What is trained; the towers are read.
FRESH = (
  "backbone",
  *("conditioner/clip_stem", "conditioner/sync_stem", "conditioner/text_stem"),
  *("conditioner/clip_summary", "conditioner/text_summary"),
  *("conditioner/summary", "conditioner/sync_positions"),
  *("conditioner/no_clip", "conditioner/no_sync"),
)


def get_config(network="large_44k_v2"):
  if network not in SIZES:
    raise ValueError(f"network {network!r} is not one of {', '.join(SIZES)}")
  config = finetune_mmaudio.get_config()
  config.name = f"mmaudio_{network}"
  config.codec = config.init_from = f"mmaudio:{network}"
  config.init_fresh = FRESH
  config.lora.rank = 0
  config.model.update(SIZES[network], dtype="bfloat16", remat="full")
  config.data.update(
    paths=("data/mine",),
    batch_size=512,
    cached_target=True,
    num_threads=-1,
    num_workers=-1,
    cache_mb=0.0,
  )
  common.train_at_full_size(config)
  return config
