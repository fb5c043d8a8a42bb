"""Low-rank adaptation: a few new parameters steer a model that stays as it is.

  y = W x + (alpha / rank) B A x,    A [rank, in] random, B [out, rank] zero

Hu et al., "LoRA", https://arxiv.org/abs/2106.09685, equation 3. W and everything
else becomes `Frozen`, which no optimizer touches; names of weights stay, so a
checkpoint of the plain model fits. Blocks of a `Stack` have their A and B
stacked like their W.
"""

import dataclasses
import math

from flax import nnx
import jax
import jax.numpy as jnp

from v2a_jax.basics.settings import check
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

  def __init__(self, base: nnx.Linear, config: LoraConfig, *, rngs: nnx.Rngs):
    *stack, features_in, features = base.kernel.shape
    self.base_dtype, self.rank = base.dtype, config.rank
    self.scale = config.alpha / config.rank
    self.out_features = base.out_features
    self.kernel, self.bias = base.kernel, base.bias
    names = (None,) * (len(stack) + 2)
    normal = partitioned(
      nnx.initializers.normal(1 / math.sqrt(features_in)), names
    )
    zeros = partitioned(nnx.initializers.zeros_init(), names)
    shape = (*stack, features_in, config.rank)
    self.lora_a = nnx.Param(normal(rngs.params(), shape, jnp.float32))
    shape = (*stack, config.rank, features)
    self.lora_b = nnx.Param(zeros(rngs.params(), shape, jnp.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    cast = lambda w: w[...].astype(self.base_dtype or w.dtype)
    x = x.astype(self.base_dtype or x.dtype)
    y = x @ cast(self.kernel)
    y = y + self.scale * ((x @ cast(self.lora_a)) @ cast(self.lora_b))
    return y if self.bias is None else y + cast(self.bias)


def freeze(model: nnx.Module, *, parts: tuple[str, ...] = ()) -> nnx.Module:
  """Makes every parameter `Frozen`, in place; returns the model.

  Args:
    model: to be frozen.
    parts: only what lies in these attributes of the model; () is everything.
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
):
  """Freezes a model and adds what is trained, in place; returns the model.

  What is frozen already is not adapted.

  Args:
    model: to be adapted.
    config: how.
    rngs: of A.
    parts: only what lies in these attributes of the model; () is everything.

  Raises:
    ValueError: none of the targets is in the model.
  """
  linear = [
    row
    for row in _attributes(model, nnx.Linear, parts)
    if isinstance(row[2].kernel, nnx.Param)  # else it was frozen before
  ]
  chosen = [row for row in linear if row[1] in config.targets]
  if not chosen:
    known = sorted({name for _, name, _ in linear})
    raise ValueError(
      f"targets {', '.join(config.targets)}: the model has none of them, but"
      f" {', '.join(known)}"
    )
  freeze(model, parts=parts)
  for module, name, base in chosen:
    setattr(module, name, LoraLinear(base, config, rngs=rngs))
  return model


def _attributes(model: nnx.Module, kind: type, parts: tuple[str, ...] = ()):
  """(module, attribute, value) of every attribute of a type, at any depth."""
  for path, module in nnx.iter_modules(model):
    for name, value in list(vars(module).items()):
      inside = not parts or (*path, name)[0] in parts
      if inside and isinstance(value, kind):
        yield module, name, value


def merge(model: nnx.Module) -> nnx.Module:
  """Adds every change to its matrix, in place; returns the model.

  Its state then has the names and shapes of the plain model's.
  """
  for _, _, linear in list(_attributes(model, LoraLinear)):
    change = linear.scale * (linear.lora_a[...] @ linear.lora_b[...])
    kernel = linear.kernel
    linear.kernel = Frozen(kernel[...] + change, **kernel.get_metadata())
    del linear.lora_a, linear.lora_b
  return model
