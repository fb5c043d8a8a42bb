"""Decodes latents of any length in memory that does not depend on it.

The samples of latents [i, j) depend on latents [i - h, j + h) alone, with h the
codec's `decoder_halo`. So the sound is decoded in windows of one width,

  w = chunk + 2 h,   the k-th starts at clip(k chunk - h, 0, t - w),

of which the samples of latents [k chunk, (k + 1) chunk) are kept. No window
reaches beyond the latents: the first begins and the last ends where they do,
where each layer pads with zeros as it does in `decode`, so that what comes out
is the whole decode, and all windows, having one shape, are compiled once.
"""

from collections.abc import Iterator
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.codec.base import LatentCodec

CHUNK = 512  # latents: 12 to 20 seconds of 43 to 25 hertz


def stream(
  codec: LatentCodec, latents, *, chunk: int = CHUNK
) -> Iterator[np.ndarray]:
  """Waveforms float32 [b, samples, channels] that follow one another.

  Args:
    codec: the decoder.
    latents: float [b, t, c]; or codes, int [b, t, q].
    chunk: latents that each waveform but the last stands for; what is up to
      this and twice the halo long is decoded in one piece.

  Raises:
    ValueError: `chunk` is not positive.
  """
  if chunk < 1:
    raise ValueError(f"stream: chunk={chunk} latents; give at least 1.")
  graphdef, state = nnx.split(codec)
  latents = np.asarray(latents)
  halo, hop, total = codec.decoder_halo, codec.config.hop, latents.shape[1]
  width = min(chunk + 2 * halo, total)
  step = chunk if width < total else total
  for start in range(0, total, step):
    first = min(max(start - halo, 0), total - width)
    window = _decode(graphdef, state, latents[:, first : first + width])
    kept = slice((start - first) * hop, (start - first + step) * hop)
    yield np.asarray(window)[:, kept]


def decode(codec: LatentCodec, latents, *, chunk: int = CHUNK) -> np.ndarray:
  """The whole of `stream`, float32 [b, t hop, channels]."""
  return np.concatenate(list(stream(codec, latents, chunk=chunk)), axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _decode(graphdef, state, latents):
  codec = nnx.merge(graphdef, state)
  if jnp.issubdtype(latents.dtype, jnp.integer):
    latents = codec.dequantize(latents)
  return codec.decode(latents)
