r"""Autoregression over latents at full size: `small`, `medium`, `large`, `xl`.

v2a train --config=configs/ar_latents.py:large \
  --config.data.paths="('data/a',)" --config.codec=PATH \
  --config.mesh.fsdp=8 --workdir=runs/ar_latents_large

The same width, depth, encoders, data and budget as configs/diffusion.py; the
head is as wide as the transformer. Built and traced by tests; not trained here.
"""

from configs import ar_latents_tiny, common


def get_config(size="small"):
  config = ar_latents_tiny.get_config()
  size = common.full_size(config, size)
  config.name = f"ar_latents_{size.name}"
  config.model.update(depth=size.depth, head_width=size.width)
  return config
