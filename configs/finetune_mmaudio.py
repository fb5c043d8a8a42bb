r"""Fine-tuning of MMAudio's small_16k on your own clips, by low-rank adaptation.

v2a weights fetch mmaudio:small_16k   # licence CC-BY-NC: docs/mmaudio.md
v2a data build clips/ --captions captions.csv -o data/mine
v2a data precompute data/mine --add features --checkpoint mmaudio:small_16k -o data/mine-features
v2a train --config=configs/finetune_mmaudio.py --workdir=runs/mine
v2a generate clip.mp4 -p "rain" --checkpoint runs/mine -o out

Features of the frames, 8 seconds of each clip, are computed once, before the
training. The published sizes of other networks are in models/mmaudio.py; give
them and the network's name in `--config.init_from` and `--config.codec`.
Latents are drawn as in the original, and a tenth of the clips are learned
without any condition, for its guidance. Not tried with published weights.
"""

from configs import common

NAME = "mmaudio:small_16k"
# DFN5B's ViT-H/14, whatever size of frames its own configuration says.
CLIP = dict(
  family="clip",
  hidden_size=1280,
  intermediate_size=5120,
  num_hidden_layers=32,
  num_attention_heads=16,
  image_size=384,
  patch_size=14,
  hidden_act="quick_gelu",
  layer_norm_eps=1e-5,
  projection_dim=1024,
  image_mean=(0.48145466, 0.4578275, 0.40821073),
  image_std=(0.26862954, 0.26130258, 0.27577711),
)


def get_config():
  config = common.get_config()
  config.name = "finetune_mmaudio"
  config.codec = config.init_from = NAME
  config.data.update(
    paths=("data/mine-features",),
    target="latents",
    seconds=8.0,
    fps=8.0,
    frame_size=64,
    features=3328,
    prompt_length=77,
    crop="start",
  )
  config.model = dict(
    name="mmaudio",
    width=448,
    num_heads=7,
    joint_depth=4,
    depth=8,
    version=1,
    conditioner=dict(
      prompt_encoder=dict(name="open_clip", sizes=dict(hidden_size=1024)),
      clip=dict(name="open_clip", sizes=CLIP),
      sync=dict(name="synchformer", sizes=dict(hidden_size=768)),
    ),
  )
  config.lora = dict(
    rank=16, targets=("qkv", "out", "up", "value", "down", "embed")
  )
  config.objective = dict(
    name="diffusion", cond_drop_rate=0.1, cond_drop_all_rate=0.1
  )
  config.sampler = dict(name="ode", num_steps=25, guidance=dict(joint=4.5))
  config.optimizer.update(learning_rate=1e-4, warmup_steps=20)
  config.num_train_steps = 500
  config.ema_decay = 0.99
  config.eval_every = 0  # a folder of one's own clips may have no val split
  config.checkpoint_every = 100
  return config
