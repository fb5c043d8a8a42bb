"""Rectified flow at full size: `small`, `medium`, `large`, `xl`.

v2a train --config=configs/diffusion.py:large --config.data.paths="('data/a',)" \\
  --config.codec=PATH --config.mesh.fsdp=8 --workdir=runs/large
v2a inspect --config=configs/diffusion.py:large    # FLOPs, memory, shapes

Sizes and what stands behind them are in `common.SIZES`; `-tile` variants have
heads of 128 and widths that are multiples of 512, which fill a matrix unit.
The sizes are built, counted and traced by tests; none has been trained here.
"""

from configs import common, diffusion_tiny


def get_config(size="small"):
  config = diffusion_tiny.get_config()
  size = common.full_size(config, size)
  config.name = f"diffusion_{size.name}"
  config.model.update(
    width=size.width,
    num_heads=size.num_heads,
    joint_depth=size.depth // 3,
    depth=size.depth - size.depth // 3,
    mlp_dim=4 * size.width,
    modulation_rank=0,
    infill=True,
    unroll=1,
    remat="dots",
    dtype="bfloat16",
  )
  config.objective.infill_rate = 0.2
  config.sampler.num_steps = 25
  return config
