r"""Rectified flow over patches of the waveform itself: diffusion, no codec.

v2a data scenes -o data/scenes --num 2400 --seed 0
JAX_NUM_CPU_DEVICES=2 GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
  v2a train --config=configs/diffusion_patches_tiny.py \
  --workdir=runs/diffusion_patches_tiny
v2a eval runs/diffusion_patches_tiny --set=data/scenes --split=test -o runs/eval

diffusion_tiny but for the codec, the prediction and its weight: 31.25 patches a
second of 512 samples, companded (v2a_jax/codec/patches.py). The model predicts
the patches themselves, as JiT does for pixels (arXiv:2511.13720); the weight
SNR + 1 is between half and all of 1 / (1 - t)², which would make the error that
of the velocity. It has been trained for a few steps only, to see that training,
generation and evaluation work; how good it gets is not measured.
"""

from configs import diffusion_tiny


def get_config():
  config = diffusion_tiny.get_config()
  config.name = "diffusion_patches_tiny"
  config.codec = "patches:16000:512:1"  # hertz, samples a patch, channels
  config.objective.update(prediction_type="x", weighting="v", time_mean=-0.8)
  return config
