"""Residual vector quantizer: latents [b, t, c] to codes [b, t, q] and back.

Stage i quantizes what the stages before it left over, r_0 = z,

  e_i = W_in r_i,   k_i = argmin_j |e_i - C_i[j]|,
  z_i = W_out C_i[k_i],   r_{i+1} = r_i - z_i,   z_hat = sum_i z_i.

Comparing codes in few dimensions keeps all of them in use (Yu et al.,
arXiv:2110.04627, section 3.2; DAC, arXiv:2306.06546, section 3.2). Those papers
compare angles; here lengths count too, because a code of the right direction
and the wrong length enlarges the residual. The decoder's gradient passes
straight through all stages to the latents (van den Oord et al.,
arXiv:1711.00937); the stages are trained only to approximate the latents, so
that one decoder suits both. Each example uses a random number of stages, so
that the first codes alone are a coarse version (SoundStream, arXiv:2107.03312).

A code that no latent of the batch chose is pulled to the latent nearest to it.
That is a loss like the others, so no usage counts are kept.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.codec.base import Stages
from v2a_jax.parallel import rows

# Adam moves each number by about the learning rate; codes are far apart and
# each is chosen rarely, so their learning rate is this many times larger.
TABLE_SCALE = 10.0


class Codebook(nnx.Module):
  """One stage: a projection down, the nearest code, a projection up."""

  def __init__(self, config, *, rngs: nnx.Rngs):
    sizes = config.latent_dim, config.codebook_dim
    # Orthonormal and transposed, so that no stage adds to the residual.
    basis = nnx.initializers.orthogonal()(rngs.params(), sizes)
    # Full float32 also where products are rounded by default: many codes are
    # nearly as close as the nearest.
    self.project_in = nnx.Linear(*sizes, precision="highest", rngs=rngs)
    self.project_out = nnx.Linear(*sizes[::-1], rngs=rngs)
    self.project_in.kernel[...] = basis
    self.project_out.kernel[...] = basis.T
    shape = config.codebook_size, config.codebook_dim
    self.table = nnx.Param(0.01 * jax.random.normal(rngs.params(), shape))

  @property
  def vectors(self) -> jax.Array:
    """Vectors of the codes, [size, code_dim]."""
    return TABLE_SCALE * self.table[...]

  def nearest(self, encoded: jax.Array) -> jax.Array:
    """Finds the nearest code, int32 [b, t], to `encoded` [b, t, code_dim]."""
    vectors = self.vectors
    products = jnp.matmul(encoded, vectors.T, precision="highest")
    closeness = products - 0.5 * jnp.sum(vectors**2, axis=-1)
    return jnp.argmax(closeness, axis=-1).astype(jnp.int32)

  def encode(self, residual: jax.Array) -> jax.Array:
    """Quantizes a residual [b, t, c] to codes int32 [b, t]."""
    return self.nearest(self.project_in(residual))

  def __call__(self, codes: jax.Array) -> jax.Array:
    """Converts codes [b, t] to their part of the latents [b, t, c]."""
    return self.project_out(self.vectors[codes])

  def train(self, residual: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns this stage's part of a residual [b, t, c] and losses [b].

    The losses train the projections to preserve the residual, move the codes to
    the projected residuals, and these to their codes. The part has no gradient.
    """
    stop = jax.lax.stop_gradient
    encoded = self.project_in(residual)
    codes = self.nearest(encoded)
    chosen = self.vectors[codes]
    part = self.project_out(encoded + stop(chosen - encoded))
    square = lambda a, b: jnp.mean((a - b) ** 2, axis=(1, 2))
    loss = (
      square(residual, part)
      + square(stop(encoded), chosen)
      + 0.25 * square(encoded, stop(chosen))
      + self._revival(stop(encoded), codes)
    )
    return stop(part), loss

  def _revival(self, encoded: jax.Array, codes: jax.Array) -> jax.Array:
    """Averages the squared distance of unused codes to their nearest latent."""
    vectors = self.vectors
    flat = encoded.reshape(-1, vectors.shape[-1])
    count = jnp.zeros(vectors.shape[0]).at[codes.reshape(-1)].add(1.0)
    unused = rows.total(count) == 0
    closeness = vectors @ flat.T - 0.5 * jnp.sum(flat**2, axis=-1)
    nearest = flat[jnp.argmax(closeness, axis=-1)]
    nearest = rows.best(jnp.max(closeness, axis=-1), nearest)
    distance = jnp.mean((vectors - nearest) ** 2, axis=-1)
    return jnp.mean(jnp.where(unused, distance, 0.0))


class ResidualQuantizer(Stages):
  """All stages, with the sizes of a `CodecConfig`."""

  def __init__(self, config, *, rngs: nnx.Rngs):
    stages = range(config.num_codebooks)
    self.codebooks = nnx.List([Codebook(config, rngs=rngs) for _ in stages])

  @property
  def stages(self) -> nnx.List:
    """The stages in order."""
    return self.codebooks

  def train(
    self, latents: jax.Array, num_used: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Quantizes with gradients.

    Args:
      latents: [b, t, c].
      num_used: int [b], number of stages that each example uses, at least 1.

    Returns:
      Quantized latents [b, t, c], whose gradient is that of `latents`, and the
      losses [b] `codebook`, which trains the stages, and `commitment`, which
      trains the encoder: to be near what all stages together make of it, for
      what fewer make of it has fewer directions.
    """
    stop = jax.lax.stop_gradient
    whole = stop(latents)
    residual, total = whole, jnp.zeros_like(latents)
    codebook = jnp.zeros(latents.shape[0])
    for i, book in enumerate(self.codebooks):
      part, loss = book.train(residual)
      codebook += loss
      used = (i < num_used).astype(latents.dtype)
      total += used[:, None, None] * part
      residual = residual - part
    commitment = jnp.mean((latents - stop(whole - residual)) ** 2, axis=(1, 2))
    losses = {"codebook": codebook, "commitment": commitment}
    return latents + stop(total - latents), losses


def fit(
  quantizer: ResidualQuantizer, latents: np.ndarray, *, iterations: int = 20
) -> None:
  """Fits all stages to `latents` in place, by principal axes and k-means.

  Training moves a code only when it is chosen; this fits all codes of each
  stage to what the stages before it left over. The decoder needs no further
  training, as quantized latents only come closer to the latents.

  Args:
    quantizer: quantizer of a codec whose encoder is trained.
    latents: float [n, c], uncalibrated, n well above the codebook's size.
    iterations: iterations of Lloyd's algorithm (IEEE Trans. Inf. Theory 28,
      1982).

  Raises:
    ValueError: there are fewer latents than codes.
  """
  residual = np.asarray(latents, np.float32)
  for i, book in enumerate(quantizer.codebooks):
    size, code_dim = book.table.shape
    if len(residual) < size:
      raise ValueError(
        f"quantizer.fit: {len(residual)} latents for {size} codes; give more."
      )
    mean = residual.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(residual - mean, rowvar=False))
    basis = axes[:, ::-1][:, :code_dim].astype(np.float32)
    encoded = (residual - mean) @ basis
    start = np.random.default_rng(i).permutation(len(encoded))[:size]
    vectors = _lloyd(encoded, encoded[start], iterations)
    book.project_in.kernel[...] = jnp.asarray(basis)
    book.project_in.bias[...] = jnp.asarray(-mean @ basis)
    book.project_out.kernel[...] = jnp.asarray(basis.T)
    book.project_out.bias[...] = jnp.asarray(mean)
    book.table[...] = vectors / TABLE_SCALE
    codes = book.nearest(jnp.asarray(encoded))
    residual = residual - np.asarray(book(codes))


@functools.partial(jax.jit, static_argnums=2)
def _lloyd(points: jax.Array, centres: jax.Array, iterations: int) -> jax.Array:
  """Runs k-means; moves unused centres to the points with the worst fit."""

  def iterate(centres, _):
    closeness = points @ centres.T - 0.5 * jnp.sum(centres**2, axis=-1)
    chosen = jnp.argmax(closeness, axis=-1)
    count = jnp.zeros(len(centres)).at[chosen].add(1.0)
    total = jnp.zeros_like(centres).at[chosen].add(points)
    error = jnp.sum((points - centres[chosen]) ** 2, axis=-1)
    _, worst = jax.lax.top_k(error, len(centres))
    means = total / jnp.maximum(count, 1)[:, None]
    return jnp.where(count[:, None] > 0, means, points[worst]), None

  return jax.lax.scan(iterate, centres, None, length=iterations)[0]
