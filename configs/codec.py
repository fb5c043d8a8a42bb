r"""The codec at full size: `16k`, `44k`, `44k-stereo`, `48k-stereo`."""

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
  config.data.update(batch_size=64, num_workers=8, cache_mb=0)
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
    channels=channels,
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
  config.checkpoint_every = 5000
  config.keep = 3
  return config
