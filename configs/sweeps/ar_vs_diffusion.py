r"""Diffusion against autoregression: one comparison, three arms, three sizes.

v2a data scenes -o data/scenes --num 2400 --seed 0 --ordered 0.12
v2a sweep plan --config=configs/sweeps/ar_vs_diffusion.py \
  --sweep=arm,size --seeds=3 --evaluate=data/scenes \
  --eval_flags="--split=test --num_clips=120" -o runs/ar_vs_diffusion
v2a sweep launch runs/ar_vs_diffusion --jobs=2

Equal in all arms: clips and their order, codec, condition encoders, parameters
(to 2 %), FLOPs of training (to 6 %), steps, optimizer, seeds, evaluation. The
arms differ in what is predicted:

  diffusion  all latents at once, by rectified flow (arXiv:2209.03003)
  ar         codes, two codebooks in MusicGen's delay pattern (arXiv:2306.05284)
  latents    continuous latents one after another, a diffusion head for each
             (arXiv:2406.11838)

  size      parameters   training a clip: diffusion, ar, latents
  small        1.9 M      2.42   2.39   2.52 GFLOP
  medium       3.5 M      3.55   3.54   3.71
  large        8.9 M      7.38   7.53   7.74

What came of the medium size after 2,000 steps: docs/ablation_ar_vs_diffusion.md.

`--sweep=arm,start` trains each arm of the medium size from nothing, and from the
encoder of the bundled diffusion model: how well an arm uses an encoder that sees,
beside how soon it teaches one to.

`--variants=guidance` judges every run at three scales of guidance; nothing is
trained again for that.
"""

from configs import ar_latents_tiny, ar_tiny, diffusion_tiny

ARMS = {
  "diffusion": diffusion_tiny,
  "ar": ar_tiny,
  "latents": ar_latents_tiny,
}
# Width, heads, then blocks and hidden units of the feed-forward layers of each
# arm, so that parameters are equal.
SIZES = {
  "small": (96, 4, dict(diffusion=(3, 192), ar=(5, 192), latents=(5, 312))),
  "medium": (128, 4, dict(diffusion=(4, 256), ar=(5, 520), latents=(5, 592))),
  "large": (192, 6, dict(diffusion=(6, 384), ar=(6, 1080), latents=(6, 1048))),
}


def get_config(arm="diffusion", size="medium"):
  for value, known in ((arm, ARMS), (size, SIZES)):
    if value not in known:
      raise ValueError(f"{value!r} is not one of {', '.join(known)}")
  config = ARMS[arm].get_config()
  width, heads, arms = SIZES[size]
  depth, hidden = arms[arm]
  config.name = f"{arm}_{size}"
  config.model.update(width=width, num_heads=heads, depth=depth, mlp_dim=hidden)
  if arm == "latents":
    # MAR draws the noise of each latent four times, which is a fifth more FLOPs.
    config.model.update(head_width=width, num_draws=1)
  config.num_train_steps = 2000
  # Checkpoints for the curve of quality over training, in every arm.
  config.keep_period = 1000
  return config


def sweep_arm():
  for arm in ARMS:
    yield {"arg.arm": arm}


def sweep_size():
  for size in SIZES:
    yield {"arg.size": size}


def sweep_start():
  yield {"init_from": ""}
  yield {"init_from": "diffusion_tiny", "init_fresh": ("backbone",)}


def evaluate_guidance():
  for scale in (1.0, 2.0, 4.0):
    yield {"guidance_video": scale}
