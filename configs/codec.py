r"""The codec at full size: `16k` and `44k` in mono, `44k-stereo`, `48k-stereo`.

v2a train --config=configs/codec.py:44k-stereo \
  --config.data.paths="('data/a',)" --workdir=runs/codec_44k
v2a weights export runs/codec_44k -o codec_44k
v2a train --config=configs/diffusion.py:small --config.codec=codec_44k ...
v2a inspect --config=configs/codec.py:44k-stereo --config.mesh.data=8

As `v2a inspect` counts them, without weights; batch 64 on 8 devices, float32;
the time is for 400,000 steps at 495 TFLOP/s (TF32) a device, 20 % of it used,
an estimate from FLOPs and not a measurement:

  variant     latents       codec   critics  training a clip  a device  time
  16k         32, 31.25 Hz  49.6 M  13.7 M         85 GFLOP     5.7 GB  0.8 h
  44k         64, 43.07 Hz  49.8 M  13.7 M        180 GFLOP     8.8 GB  1.6 h
  44k-stereo  64, 21.53 Hz  54.8 M  13.8 M        263 GFLOP    12.8 GB  2.4 h
  48k-stereo  64, 25.00 Hz  53.0 M  13.8 M        264 GFLOP    12.7 GB  2.4 h

For comparison, the public DAC for 44.1 kHz has 76.6 M and 86 latents a second.
There is a critic for each of the periods 2, 3, 5, 7, 11 and of the windows 512,
1024, 2048, as in DAC (arXiv:2306.06546); the weights of the losses are those of
codec_tiny. The first stage folds 16 or 32 samples, so the inverse Fourier
transform at the end has windows of 64 or 128. The variants are built, counted
and, shrunken, trained by tests; none has been trained at this size here.
"""

from configs import codec_tiny

# Of each variant: hertz, channels, strides, channels of the latents, codebooks,
# samples of a clip that a step sees.
VARIANTS = {
  "16k": (16_000, 1, (16, 4, 4, 2), 32, 12, 16_384),
  "44k": (44_100, 1, (32, 4, 4, 2), 64, 12, 45_056),
  "44k-stereo": (44_100, 2, (32, 4, 4, 4), 64, 16, 65_536),
  "48k-stereo": (48_000, 2, (32, 5, 4, 3), 64, 16, 67_200),
}


def get_config(variant="44k-stereo"):
  if variant not in VARIANTS:
    raise ValueError(f"codec {variant!r} is not one of {', '.join(VARIANTS)}")
  rate, channels, strides, latent_dim, books, crop = VARIANTS[variant]
  config = codec_tiny.get_config()
  config.name = f"codec_{variant}"
  config.data.update(
    batch_size=64, num_threads=-1, num_workers=-1, cache_mb=0.0
  )
  config.model.update(
    sample_rate=rate,
    channels=channels,
    strides=strides,
    encoder_widths=(256, 384, 512, 768),
    decoder_widths=(384, 512, 768, 1024),
    dilations=((1, 3, 9),) * 4,
    latent_dim=latent_dim,
    num_codebooks=books,
  )
  config.model.discriminator.update(
    periods=(2, 3, 5, 7, 11),
    fft_sizes=(512, 1024, 2048),
    widths=(64, 128, 256, 512),
  )
  config.objective.update(
    crop=crop, quantized_rate=0.5, fft_sizes=(128, 256, 512, 1024, 2048)
  )
  config.optimizer.learning_rate = 3e-4
  config.optimizer.warmup_steps = 1000
  config.optimizer.partitions.discriminator.learning_rate = 1e-4
  config.num_train_steps = 400_000
  config.ema_decay = 0.9995
  config.eval_every = 5000
  config.checkpoint_every = 5000
  config.keep = 3
  return config
