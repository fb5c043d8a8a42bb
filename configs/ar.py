r"""Next-token prediction at full size: `small`, `medium`, `large`, `xl`.

v2a train --config=configs/ar.py:large --config.data.paths="('data/a',)" \
  --config.codec=PATH --workdir=runs/ar_large

The same width, depth, encoders, data and budget as configs/diffusion.py, where
is also said how these are counted (`v2a inspect`):

  size     parameters   training a clip   devices   time
  small    130 M         1.7 TFLOP          8       22 h
  medium   475 M         5.0 TFLOP         16       33 h
  large    758 M         8.7 TFLOP         32       29 h
  xl       3.5 B        13.0 TFLOP         64       22 h

`small` has taken a step on a CPU; none has been trained here.
"""

from configs import ar_tiny, common


def get_config(size="small"):
  config = ar_tiny.get_config()
  size = common.full_size(config, size)
  config.name = f"ar_{size.name}"
  config.model.update(depth=size.depth, num_codebooks=8)
  return config
