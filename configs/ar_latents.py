r"""Autoregression over latents at full size: `small`, `medium`, `large`, `xl`.

v2a train --config=configs/ar_latents.py:large \
  --config.data.paths="('data/a',)" --config.codec=PATH \
  --workdir=runs/ar_latents_large

The same width, depth, encoders, data and budget as configs/diffusion.py, where
is also said how these are counted (`v2a inspect`); the head is as wide as the
transformer:

  size     parameters   training a clip   devices   time
  small    127 M         1.7 TFLOP          8       23 h
  medium   479 M         5.0 TFLOP         16       34 h
  large    762 M         8.7 TFLOP         32       29 h
  xl       3.6 B        13.4 TFLOP         64       23 h

Built and traced by tests; not trained here.
"""

from configs import ar_latents_tiny, common


def get_config(size="small"):
  config = ar_latents_tiny.get_config()
  size = common.full_size(config, size)
  config.name = f"ar_latents_{size.name}"
  config.model.update(depth=size.depth, head_width=size.width)
  return config
