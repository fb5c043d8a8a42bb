"""A causal transformer over residual codes, in a pattern of `pattern.py`.

The input of a step is the sum of the embeddings of the previous step's codes,
one of each codebook; its output are logits of its own codes.
"""

import dataclasses
from typing import ClassVar

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics import settings
from v2a_jax.models import causal, layers
from v2a_jax.models.pattern import PATTERNS, Pattern
from v2a_jax.parallel.sharding import gathered


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenModelConfig(causal.CausalConfig):
  """Sizes of a token transformer; see also `CausalConfig`.

  Attributes:
    num_codebooks: number of residual codebooks that are generated, the first
      ones; 0 for all of the codec's.
    pattern: order in which a frame's codes are decoded, one of
      `pattern.PATTERNS`.
    codebook_size: number of codes in each codebook.
    available: number of codebooks that the codec has.
  """

  family: ClassVar[str] = "tokens"
  target: ClassVar[str] = "codes"

  num_codebooks: int = 0
  pattern: str = "delay"
  codebook_size: int = settings.derived("codec.codebook_size")
  available: int = settings.derived("codec.num_codebooks", default=0)

  def __post_init__(self):
    super().__post_init__()
    settings.choose(self, pattern=PATTERNS)
    if self.available:
      settings.check(self, num_codebooks=f"[0, {self.available}]")
    object.__setattr__(
      self, "num_codebooks", self.num_codebooks or self.available
    )
    settings.check(self, num_codebooks="[1, inf)")

  def make(self, *, rngs: nnx.Rngs) -> "TokenModel":
    """Makes the backbone."""
    return TokenModel(self, rngs=rngs)


class TokenModel(causal.CausalTransformer):
  """(codes so far, condition tokens) → logits of the next codes."""

  def __init__(self, config: TokenModelConfig, *, rngs: nnx.Rngs):
    c = config
    self.pattern = Pattern(PATTERNS[c.pattern](c.num_codebooks))
    self.embed = layers.learned(
      (c.num_codebooks, c.codebook_size + 1, c.width),
      axes=(None, "vocab", "embed"),
      rngs=rngs,
      scale=0.5,
    )
    super().__init__(c, extra=self.pattern.extra, rngs=rngs)
    self.head = layers.dense(
      c.width,
      c.num_codebooks * c.codebook_size,
      axes=("embed", "vocab"),
      rngs=rngs,
      use_bias=True,
      dtype=self.dtype,
    )

  @property
  def pad(self) -> int:
    """Code that stands where a step has none."""
    return self.config.codebook_size

  @property
  def frame(self) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the codes of one latent frame."""
    return jax.ShapeDtypeStruct((self.config.num_codebooks,), jnp.int32)

  def _embed(self, codes):
    books = jnp.arange(self.config.num_codebooks)
    return gathered(self.embed[...])[0][books, codes].sum(axis=-2)

  def _logits(self, x):
    c = self.config
    logits = self.head(x).astype(jnp.float32)
    return logits.reshape(*x.shape[:-1], c.num_codebooks, c.codebook_size)

  def __call__(self, codes, tokens, *, times):
    """Predicts codes with teacher forcing.

    Args:
      codes: int [b t q].
      tokens: `CondTokens` of the same batch.
      times: [t], seconds of each latent frame; t >= 2.

    Returns:
      float32 logits [b t q v]; those of a code depend on the codes that the
      pattern decodes at earlier steps.
    """
    laid = self.pattern.lay_out(codes, self.pad)
    first = jnp.full_like(laid[:, :1], self.pad)
    x = self._embed(jnp.concatenate([first, laid[:, :-1]], axis=1))
    x = self.trunk(x, tokens, times=times)
    return self.pattern.collect(self._logits(x))

  def step(self, codes, index, cache: causal.Cache):
    """Decodes one step.

    Args:
      codes: int [b q], codes of the previous step; all `pad` in step 0.
      index: int scalar, index of the step.
      cache: from `start` or the previous step.

    Returns:
      (float32 logits [b q v], cache).
    """
    x, cache = self.advance(self._embed(codes), index, cache)
    return self._logits(x), cache
