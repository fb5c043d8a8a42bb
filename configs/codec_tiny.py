"""The tiny codec: 16 kHz, 31.25 latents of 32 numbers a second, 8 x 10 bits.

v2a data scenes -o data/scenes --num 2400 --seed 0
v2a train --config=configs/codec_tiny.py --workdir=runs/codec_tiny
v2a weights export runs/codec_tiny -o codec_tiny

Before the latents were committed to all codebooks instead of a random number of
them: 18,000 steps in 33 minutes on two cores (56 CPU minutes), here with real
audio besides the scenes; 64 held-out scenes, reconstructed:
  onset F1 at 50 ms 0.93   level -2.6 dB   FAD (mn04) 3.5; true sounds 1.1
The critics cost a third more time a step and are worth it: in trials of three
minutes each, with the mel loss still of magnitudes, the Frechet distance was 27
without them and 6 with them. All rows and how the real audio was chosen stand
in v2a_jax/assets/codec_tiny/CARD.md.
"""

from configs import common


def get_config():
  config = common.get_config()
  config.name = "codec_tiny"
  config.codec = ""  # this is what is being trained
  config.data.batch_size = 10
  config.data.frame_size = 8  # frames are not used
  config.data.fps = 1.0
  config.model = dict(
    name="codec",
    sample_rate=16000,
    channels=1,
    strides=(32, 4, 4),
    encoder_widths=(48, 96, 160),
    decoder_widths=(112, 160, 224),
    dilations=((1, 3, 9), (1, 3, 9), (1, 3)),
    latent_dim=32,
    num_codebooks=8,
    codebook_size=1024,
    codebook_dim=8,
    discriminator=dict(
      periods=(),
      fft_sizes=(256, 512, 1024),
      num_bands=8,
      widths=(32, 64, 96),
    ),
  )
  config.objective = dict(
    name="codec",
    crop=8192,
    gain_db=(-9.0, 3.0),
    quantized_rate=0.35,
    fft_sizes=(128, 512, 2048),
    convergence_weight=1.0,
    log_magnitude_weight=1.0,
    mel_weight=4.0,
    waveform_weight=0.1,
    kl_weight=0.001,
    codebook_weight=1.0,
    commitment_weight=0.03,
    adversarial_weight=1.0,
    feature_weight=2.0,
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=100,
    final_fraction=0.02,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    max_grad_norm=5.0,
    partitions=dict(discriminator=dict(learning_rate=3e-4, betas=(0.5, 0.9))),
  )
  config.num_train_steps = 18000
  config.ema_decay = 0.999
  config.log_every = 100
  config.checkpoint_every = 2000
  return config
