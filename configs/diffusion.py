r"""Rectified flow at full size: `small`, `medium`, `large`, `xl`.

v2a train --config=configs/diffusion.py:large --config.data.paths="('data/a',)" \
  --config.codec=PATH --workdir=runs/large
v2a inspect --config=configs/diffusion.py:large
v2a plan --config=configs/diffusion.py:large --topology=v5p:4x4x4

Devices share the work as fits their memory (`parallel.mode=auto`). As `inspect`
counts them, without weights; batch 512, 8 s clips, 25 frames a second of 112
pixels; the time is for 300,000 steps at 990 TFLOP/s a device, 40 % of it used,
an estimate from FLOPs and not a measurement:

  size     parameters   training a clip   devices   time
  small    158 M         1.7 TFLOP          8       23 h
  medium   602 M         5.1 TFLOP         16       34 h
  large    998 M         8.9 TFLOP         32       30 h
  xl       5.0 B        14.7 TFLOP         64       25 h

Most of it goes into seeing: 87 % of `large` is its encoder of pixels. With towers
that are published, frozen and cached, configs/mmaudio.py trains as large a
network for 1.6 TFLOP a clip; their licence forbids commercial use.

What a device needs only a compiler knows: docs/scaling.md has plans.

`small-siglip` (any size takes `-siglip`) has frames at two rates: 25 a second of
224 pixels for synchronisation, and every sixth through a frozen SigLIP B/16,
whose folder is `--config.model.conditioner.semantic.path=PATH`:

  small-siglip    165 M trained, 93 M frozen    3.0 TFLOP to train a clip, of it
                  SigLIP 1.2; 1.8 with `--config.data.features=768` and a data
                  set of `v2a data precompute`, which caches SigLIP's features

Sizes and their sources are in `common.SIZES`; `-tile` variants have
heads of 128 and widths that are multiples of 512, which fill a matrix unit.
The sizes are built, counted and traced by tests; none has been trained here.
"""

from configs import common, diffusion_tiny


def get_config(size="small"):
  config = diffusion_tiny.get_config()
  size = common.full_size(config, size)
  config.name = f"diffusion_{size.name}"
  joint = size.depth // 3
  config.model.update(joint_depth=joint, depth=size.depth - joint, infill=True)
  config.objective.infill_rate = 0.2
  config.sampler.num_steps = 25
  return config
