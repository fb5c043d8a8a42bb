r"""Fine-tuning of a trained model on your own clips.

v2a data build clips/ --captions captions.csv -o data/mine
v2a train --config=configs/finetune.py --config.data.paths="('data/mine',)" \
  --workdir=runs/mine
v2a generate clip.mp4 --checkpoint runs/mine -o out

Starts from the bundled diffusion_tiny; `--config.init_from=` names another
work directory or bundle (then give `--config.model` and `--config.codec` as it
was trained with). Its tokenizer is kept: words that it never saw are spelled in
smaller pieces. `--config.lora.rank=8 --config.optimizer.learning_rate=2e-3`
adapts it with few new weights (arXiv:2106.09685), which `v2a weights export`
merges. The 500 steps took 2 minutes 20 seconds on two cores with 70 real clips
and the settings of configs/diffusion_tiny.py's header; what is learned from so
few clips has not been scored.
"""

from configs import diffusion_tiny


def get_config():
  config = diffusion_tiny.get_config()
  config.name = "finetune"
  config.init_from = "diffusion_tiny"
  config.data.paths = ("data/mine",)
  config.optimizer.learning_rate = 2e-4
  config.optimizer.warmup_steps = 20
  config.num_train_steps = 500
  config.ema_decay = 0.99
  config.eval_every = 0  # a folder of one's own clips may have no val split
  config.checkpoint_every = 100
  return config
