"""Low-rank adaptation: trains a few new parameters beside frozen weights.

  y = W x + (alpha / rank) B A x,    A [rank, in] random, B [out, rank] zero

for W [out, in]; here A, B and W are held transposed, and `out` is two axes where
a kernel holds several maps (`layers.fused`).

Hu et al., "LoRA", https://arxiv.org/abs/2106.09685, equation 3. W and all else
become `Frozen`, which no optimizer updates; names of weights stay, so a
checkpoint of the plain model fits. Blocks of a `Stack` have their A and B
stacked like their W.
"""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics.settings import SettingError, check
from v2a_jax.parallel.sharding import partitioned

NEW = ("lora_a", "lora_b")


class Frozen(nnx.Variable):
  """A weight that is not trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Low-rank adaptation of a model.

  Attributes:
    rank: rank of the change to each matrix; 0 for no adaptation.
    alpha: numerator of the factor alpha / rank that scales the change.
    targets: names of the linear maps that are adapted.
  """

  rank: int = 0
  alpha: float = 16.0
  targets: tuple[str, ...] = ("qkv", "q", "kv", "out", "up", "down")

  def __post_init__(self):
    check(self, rank="[0, inf)", alpha="(0, inf)")


class LoraLinear(nnx.Module):
  """A linear map with a frozen kernel and a trained change of low rank."""

  def __init__(
    self,
    base: nnx.Linear | nnx.LinearGeneral,
    config: LoraConfig,
    *,
    rngs: nnx.Rngs,
  ):
    self.out_features = base.out_features
    features = np.atleast_1d(base.out_features)
    *stack, features_in = base.kernel.shape[: -len(features)]
    self.base_dtype, self.rank = base.dtype, config.rank
    self.scale = config.alpha / config.rank
    self.kernel, self.bias = base.kernel, base.bias

    def new(init, *shape):
      init = partitioned(init, (None,) * (len(stack) + 2))
      return nnx.Param(init(rngs.params(), (*stack, *shape), jnp.float32))

    normal = nnx.initializers.normal(1 / math.sqrt(features_in))
    self.lora_a = new(normal, features_in, config.rank)
    self.lora_b = new(nnx.initializers.zeros_init(), config.rank, *features)

  def __call__(self, x: jax.Array) -> jax.Array:
    cast = lambda w: w[...].astype(self.base_dtype or w.dtype)
    times = lambda x, w: jnp.tensordot(x, cast(w), axes=1)
    x = x.astype(self.base_dtype or x.dtype)
    y = times(x, self.kernel)
    y = y + self.scale * times(times(x, self.lora_a), self.lora_b)
    return y if self.bias is None else y + cast(self.bias)


def freeze(model: nnx.Module, *, parts: tuple[str, ...] = ()) -> nnx.Module:
  """Makes every parameter `Frozen`, in place; returns the model.

  Args:
    model: model to freeze.
    parts: attributes of the model that are frozen; () for all.
  """
  for module, name, variable in list(_attributes(model, nnx.Param, parts)):
    value = Frozen(variable.get_value(), **variable.get_metadata())
    setattr(module, name, value)
  return model


def adapt(
  model: nnx.Module,
  config: LoraConfig,
  *,
  rngs: nnx.Rngs,
  parts: tuple[str, ...] = (),
) -> nnx.Module:
  """Freezes a model and adds trained changes, in place; returns the model.

  Linear maps that are frozen already are not adapted.

  Args:
    model: model to adapt.
    config: rank, scale and targets of the changes; the rank is at least 1.
    rngs: random stream of A.
    parts: attributes of the model that are adapted; () for all.

  Raises:
    SettingError: the model has none of the targets.
  """
  linear = [
    row
    for row in _attributes(model, nnx.Linear | nnx.LinearGeneral, parts)
    if isinstance(row[2].kernel, nnx.Param)
  ]
  chosen = [row for row in linear if row[1] in config.targets]
  if not chosen:
    names = sorted({name for _, name, _ in linear})
    raise SettingError(
      f"targets={config.targets}: the model has none of them, but"
      f" {', '.join(names)}"
    )
  freeze(model, parts=parts)
  for module, name, base in chosen:
    setattr(module, name, LoraLinear(base, config, rngs=rngs))
  return model


def merge(model: nnx.Module) -> nnx.Module:
  """Adds every change to its matrix, in place; returns the model.

  Its state then has the names and shapes of the plain model's.
  """
  for _, _, linear in list(_attributes(model, LoraLinear)):
    change = linear.scale * _product(linear.lora_a[...], linear.lora_b[...])
    kernel = linear.kernel
    linear.kernel = Frozen(kernel[...] + change, **kernel.get_metadata())
    del linear.lora_a, linear.lora_b
  return model


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Multiplies A [*stack, in, rank] and B [*stack, rank, *out]."""
  stacked = tuple(range(a.ndim - 2))
  contracted = ((a.ndim - 1,), (a.ndim - 2,))
  return jax.lax.dot_general(a, b, (contracted, (stacked, stacked)))


def _attributes(
  model: nnx.Module, kind: Any, parts: tuple[str, ...] = ()
) -> Iterator[tuple[nnx.Module, str, Any]]:
  """Yields (module, attribute, value) of the attributes of a type."""
  for path, module in nnx.iter_modules(model):
    for name, value in list(vars(module).items()):
      inside = not parts or (*path, name)[0] in parts
      if inside and isinstance(value, kind):
        yield module, name, value
