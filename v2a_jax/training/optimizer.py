"""Optimizers by name, with one schedule, one decay rule and partitions.

Learning rate at step s, with peak p, warmup w, horizon n, final fraction f:

  warm(s)     = min(1, (s + 1) / w)
  constant    : p warm(s)
  cosine      : p warm(s) (f + (1 - f) (1 + cos(pi u)) / 2),
                u = clip((s - w) / (n - w), 0, 1); in a run with a limit of
                time, of which the share t is spent, n is the smaller one of
                the number of steps and s / t
  rsqrt       : p warm(s) sqrt(max(w, 1) / max(s, w, 1))

Weight decay (decoupled, arXiv:1711.05101) acts on kernels and tables only: not
on what has one axis besides `layers`, nor on anything named bias or scale.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from v2a_jax.basics import settings
from v2a_jax.weights import names

OPTIMIZERS = ("adamw", "muon", "adafactor")
SCHEDULES = ("cosine", "constant", "rsqrt")
_REST = "rest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """How parameters are updated.

  Attributes:
    name: `adamw`; `muon` (arXiv:2502.16982: matrices of hidden layers, their
      update scaled to AdamW's, the rest by AdamW); `adafactor`
      (arXiv:1804.04235, factored second moments, no relative step size).
    learning_rate: peak of the learning rate; 0, for a partition, leaves its
      weights as they are.
    schedule: `cosine`, `constant` or `rsqrt`.
    warmup_steps: number of steps of linear warmup.
    final_fraction: share of the peak at which the cosine ends.
    betas: decays of AdamW's two moments.
    eps: term that AdamW adds to the denominator.
    momentum_dtype: dtype of AdamW's and Muon's first moment, `float32` or
      `bfloat16`.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    max_grad_norm: norm that the gradients of a partition are clipped to; 0 for
      no limit.
    partitions: overrides of the fields above for the parameters under a path,
      such as `{"discriminator": {"learning_rate": 1e-4}}`; each partition is
      clipped by its own norm.
  """

  name: str = "adamw"
  learning_rate: float = 1e-3
  schedule: str = "cosine"
  warmup_steps: int = 0
  final_fraction: float = 0.0
  betas: tuple[float, float] = (0.9, 0.99)
  eps: float = 1e-8
  momentum_dtype: str = "float32"
  weight_decay: float = 0.0
  max_grad_norm: float = 1.0
  partitions: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self):
    settings.choose(
      self,
      name=OPTIMIZERS,
      schedule=SCHEDULES,
      momentum_dtype=("float32", "bfloat16"),
    )
    settings.check(
      self,
      learning_rate="[0, inf)",
      warmup_steps="[0, inf)",
      final_fraction="[0, 1]",
      betas="[0, 1)",
      eps="(0, inf)",
      weight_decay="[0, inf)",
      max_grad_norm="[0, inf)",
    )
    if len(self.betas) != 2:
      raise settings.SettingError(f"betas={self.betas!r} is not a pair")
    for path in self.partitions:
      self.partition(path)

  def partition(self, path: str) -> "OptimizerConfig":
    """Returns the settings of the parameters under a path of `partitions`.

    Raises:
      SettingError: it overrides an unknown field or with a refused value.
    """
    base = settings.as_dict(dataclasses.replace(self, partitions={}))
    try:
      return settings.build(OptimizerConfig, base | dict(self.partitions[path]))
    except settings.SettingError as error:
      raise settings.SettingError(f"partitions.{path}.{error}") from None


def make_schedule(
  config: OptimizerConfig, num_train_steps: int, spent: Any = None
) -> Callable[[Any], jax.Array]:
  """Returns the learning rate as a function of the step.

  Args:
    config: settings of the optimizer.
    num_train_steps: number of steps that a run has at most.
    spent: share in [0, 1] of the run's time limit that is over, a scalar that
      may be traced; None in a run without one.
  """
  warmup, final = config.warmup_steps, config.final_fraction

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    rate = config.learning_rate * jnp.minimum(1, (step + 1) / max(warmup, 1))
    if config.schedule == "cosine":
      span = max(num_train_steps - warmup, 1)
      done = jnp.clip((step - warmup) / span, 0, 1)
      if spent is not None:
        over = spent * (step - warmup) / jnp.maximum(step - spent * warmup, 1)
        done = jnp.clip(over, done, 1)
      rate *= final + (1 - final) * (1 + jnp.cos(math.pi * done)) / 2
    elif config.schedule == "rsqrt":
      flat = max(warmup, 1)
      rate *= jnp.sqrt(flat / jnp.maximum(step, flat))
    return rate

  return schedule


def make_optimizer(
  config: OptimizerConfig, num_train_steps: int, spent: Any = None
) -> optax.GradientTransformation:
  """Builds the optimizer, for a pytree of `nnx.Param` variables.

  Args are those of `make_schedule`; its state does not depend on `spent`.

  Raises:
    ValueError: at `init`, if a partition's path names no parameter.
  """
  if not config.partitions:
    return _chain(config, make_schedule(config, num_train_steps, spent))
  base = dataclasses.replace(config, partitions={})
  settings_of = {path: config.partition(path) for path in config.partitions}
  chains = {
    label: _chain(part, make_schedule(part, num_train_steps, spent))
    for label, part in {_REST: base, **settings_of}.items()
  }
  return optax.partition(
    chains,
    lambda params: _labels(params, tuple(config.partitions)),
  )


def _chain(
  config: OptimizerConfig, schedule: Callable[[Any], jax.Array]
) -> optax.GradientTransformation:
  """Builds the update of one partition."""
  clip = (
    optax.clip_by_global_norm(config.max_grad_norm)
    if config.max_grad_norm
    else optax.identity()
  )
  b1, b2 = config.betas
  if config.name == "muon":
    muon = optax.contrib.muon(
      schedule,
      weight_decay=config.weight_decay,
      adam_b1=b1,
      adam_b2=b2,
      eps=config.eps,
      mu_dtype=config.momentum_dtype,
      muon_weight_dimension_numbers=_muon_axes,
      # The root mean square of AdamW's updates: one learning rate for both.
      consistent_rms=0.2,
    )
    return optax.chain(clip, muon)
  scale = {
    "adamw": lambda: optax.scale_by_adam(
      b1, b2, config.eps, mu_dtype=config.momentum_dtype
    ),
    "adafactor": lambda: optax.chain(
      optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)
    ),
  }[config.name]()
  return optax.chain(
    clip,
    scale,
    optax.add_decayed_weights(config.weight_decay, _decays),
    optax.scale_by_learning_rate(schedule),
  )


def _map_variables(fn: Callable[[tuple[str, ...], Any], Any], params: Any):
  """Maps `fn(path, variable)`; in a partition some hold a `MaskedNode`."""
  is_variable = lambda x: isinstance(x, nnx.Variable)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: fn(names.name_of(path), leaf),
    params,
    is_leaf=is_variable,
  )


def _rank(leaf: Any) -> int:
  """Returns the axes of one map's array; 0 for a `MaskedNode`."""
  arrays = jax.tree.leaves(leaf)
  several = sum(axis in ("layers", "parts") for axis in _axes(leaf))
  return arrays[0].ndim - several if arrays else 0


def _axes(leaf: Any) -> tuple[str | None, ...]:
  if not isinstance(leaf, nnx.Variable):
    return ()
  return leaf.get_metadata().get("out_sharding") or ()


def _decays(params: Any) -> Any:
  """Marks the parameters that weight decay acts on."""
  return _map_variables(
    lambda path, leaf: _rank(leaf) > 1 and path[-1] not in ("bias", "scale"),
    params,
  )


def _muon_axes(params: Any) -> Any:
  """Matrices of hidden layers get their (input, output) axes, others None."""

  def axes(path, leaf):
    table = path[-1] == "embedding" or "vocab" in _axes(leaf)
    if _rank(leaf) != 2 or table or path[-1] in ("bias", "scale"):
      return None
    # The parts of a fused kernel [in parts out] are matrices of their own.
    return optax.contrib.MuonDimensionNumbers(
      -3 if "parts" in _axes(leaf) else -2, -1
    )

  return _map_variables(axes, params)


def _labels(params: Any, paths: tuple[str, ...]) -> Any:
  """Labels each parameter with the longest of `paths` that it lies under."""
  found = set()

  def label(path, _):
    name = "/".join(path) + "/"
    under = [p for p in paths if name.startswith(p.rstrip("/") + "/")]
    found.update(under)
    return max(under, key=len, default=_REST)

  labels = _map_variables(label, params)
  if missing := set(paths) - found:
    raise ValueError(
      f"optimizer.partitions: no parameter under {sorted(missing)}; the model"
      f" has {sorted(str(k) for k in params)}"
    )
  return labels
