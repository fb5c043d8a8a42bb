r"""Next-token prediction at full size: `small`, `medium`, `large`, `xl`.

v2a train --config=configs/ar.py:large --config.data.paths="('data/a',)" \
  --config.codec=PATH --config.mesh.fsdp=8 --workdir=runs/ar_large

The same width, depth, encoders, data and budget as configs/diffusion.py.
"""

from configs import ar_tiny, common


def get_config(size="small"):
  config = ar_tiny.get_config()
  size = common.full_size(config, size)
  config.name = f"ar_{size.name}"
  config.model.update(
    width=size.width,
    num_heads=size.num_heads,
    depth=size.depth,
    mlp_dim=4 * size.width,
    modulation_rank=0,
    num_codebooks=8,
    unroll=1,
    remat="full",
    dtype="bfloat16",
  )
  return config
