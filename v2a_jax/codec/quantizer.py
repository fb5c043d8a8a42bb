"""Residual vector quantizer: latents [b, t, c] to codes [b, t, q] and back.

Stage i quantizes what the stages before it left over, r_0 = z,

  e_i = W_in r_i,   k_i = argmax_j cos(e_i, C_i[j]),
  z_i = W_out C_i[k_i],   r_{i+1} = r_i - z_i,   z_hat = sum_i z_i.

Looking codes up in few dimensions and by angle keeps them all in use (Yu et
al., arXiv:2110.04627, section 3.2; DAC, arXiv:2306.06546, section 3.2). The
gradient passes straight through the look-up (van den Oord et al.,
arXiv:1711.00937). A random number of stages is used for each example, so that
the first codes alone already make sense (SoundStream, arXiv:2107.03312).

A code that no latent of the batch chose is drawn towards a random one of them.
That is a loss like the others, so no usage counts have to be carried around.
"""

from flax import nnx
import jax
import jax.numpy as jnp


def _unit(x: jax.Array) -> jax.Array:
  return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-8)


class Codebook(nnx.Module):
  """One stage: a projection down, a look-up, a projection back up."""

  def __init__(
      self, features: int, *, size: int, code_dim: int, rngs: nnx.Rngs
  ):
    self.project_in = nnx.Linear(features, code_dim, rngs=rngs)
    self.project_out = nnx.Linear(code_dim, features, rngs=rngs)
    vectors = 0.1 * jax.random.normal(rngs.params(), (size, code_dim))
    self.vectors = nnx.Param(vectors)

  def nearest(self, encoded: jax.Array) -> jax.Array:
    """The code of least angle, int32 [b, t], for `encoded` [b, t, code_dim]."""
    cosine = _unit(encoded) @ _unit(self.vectors[...]).T
    return jnp.argmax(cosine, axis=-1).astype(jnp.int32)

  def __call__(self, codes: jax.Array) -> jax.Array:
    """Codes [b, t] to their part of the latents [b, t, c]."""
    return self.project_out(self.vectors[...][codes])


def _revive(
    book: Codebook, encoded: jax.Array, codes: jax.Array, *, key: jax.Array
) -> jax.Array:
  """Mean squared distance of unused codes to random latents, a scalar."""
  vectors = book.vectors[...]
  flat = jax.lax.stop_gradient(encoded).reshape(-1, vectors.shape[-1])
  unused = jnp.zeros(vectors.shape[0]).at[codes.reshape(-1)].add(1.0) == 0
  drawn = jax.random.randint(key, vectors.shape[:1], 0, flat.shape[0])
  distance = jnp.sum((vectors - flat[drawn]) ** 2, axis=-1)
  return jnp.mean(jnp.where(unused, distance, 0.0))


class ResidualQuantizer(nnx.Module):
  """`num_codebooks` stages of `codebook_size` codes each."""

  def __init__(
      self,
      features: int,
      *,
      num_codebooks: int,
      codebook_size: int,
      code_dim: int,
      rngs: nnx.Rngs,
  ):
    self.codebooks = nnx.List([
        Codebook(features, size=codebook_size, code_dim=code_dim, rngs=rngs)
        for _ in range(num_codebooks)
    ])

  def quantize(self, latents: jax.Array) -> jax.Array:
    """Latents [b, t, c] to codes int32 [b, t, q]."""
    residual, codes = latents, []
    for book in self.codebooks:
      codes.append(book.nearest(book.project_in(residual)))
      residual = residual - book(codes[-1])
    return jnp.stack(codes, axis=-1)

  def dequantize(self, codes: jax.Array) -> jax.Array:
    """Codes [b, t, n] of the first n <= q stages to latents [b, t, c]."""
    count = codes.shape[-1]
    if count > len(self.codebooks):
      raise ValueError(
          f"dequantize: {count} codes a step, but the quantizer has only"
          f" {len(self.codebooks)} codebooks."
      )
    return sum(self.codebooks[i](codes[..., i]) for i in range(count))

  def train(
      self, latents: jax.Array, num_used: jax.Array, *, key: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Quantizes with gradients.

    Args:
      latents: [b, t, c].
      num_used: int [b], how many stages each example uses, at least 1.
      key: draws the latents that unused codes move to.

    Returns:
      Quantized latents [b, t, c], whose gradient is that of `latents`, and the
      losses `commitment`, `codebook`, `revival` and the fraction of the
      latents' power left over, `residual`, each [b].
    """
    stop = jax.lax.stop_gradient
    residual, total = latents, jnp.zeros_like(latents)
    commitment = codebook = jnp.zeros(latents.shape[0])
    revival = jnp.zeros(())
    for i, book in enumerate(self.codebooks):
      used = (i < num_used).astype(latents.dtype)
      encoded = book.project_in(residual)
      codes = book.nearest(encoded)
      chosen = book.vectors[...][codes]
      square = lambda a, b: jnp.mean((a - b) ** 2, axis=(1, 2))
      commitment += used * square(encoded, stop(chosen))
      codebook += used * square(stop(encoded), chosen)
      revival += _revive(book, encoded, codes, key=jax.random.fold_in(key, i))
      through = book.project_out(encoded + stop(chosen - encoded))
      total += used[:, None, None] * through
      residual = residual - through
    power = jnp.sum(latents**2, axis=(1, 2)) + 1e-8
    left = jnp.sum((latents - total) ** 2, axis=(1, 2)) / power
    losses = {
        "commitment": commitment,
        "codebook": codebook,
        "revival": jnp.broadcast_to(revival, commitment.shape),
        "residual": stop(left),
    }
    return total, losses
