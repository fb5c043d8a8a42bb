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
  config.model.update(depth=size.depth, num_codebooks=8)
  return config
