"""What a traced function costs: FLOPs and memory, from its jaxpr alone.

Nothing is compiled or allocated, so a model of billions of parameters is
counted in seconds.

A FLOP is one addition or multiplication in a matrix product or a convolution,
so a multiply-add is two; norms, softmax, Fourier transforms and other work of
the vector units is left out, as in closed forms (arXiv:2204.02311, appendix B). XLA's own cost analysis needs a compiled program
and counts the body of a scan once; here it counts once for each iteration.

Memory is the most that is alive at a time (`peak_bytes`). Of the gradient over 4
clips, in MB, beside the temporaries that XLA for CPU allocates:

  model and remat         peak    XLA
  diffusion_tiny  none     199    204
  diffusion_tiny  full      73    104
  ar_tiny         none     252    372
  ar_tiny         full      94    261
"""

from collections.abc import Callable
import math
import re
from typing import Any

import jax
from jax.extend import core

Jaxpr = core.Jaxpr


def flops_of(function: Callable, *args) -> int:
  """Counts the FLOPs of `function(*args)`; see `count_flops`.

  Args:
    function: function that jax can trace.
    *args: pytrees of arrays or `jax.ShapeDtypeStruct`; no value is read.
  """
  return count_flops(jax.make_jaxpr(function)(*args).jaxpr)


def count_flops(jaxpr: core.Jaxpr) -> int:
  """Counts the FLOPs of a jaxpr, with everything that it calls.

  A scan counts its body once an iteration, a `cond` its largest branch, a
  `shard_map` its body on every device; calls (`jit`, `jax.checkpoint`, custom
  derivatives) count what they call.

  Raises:
    ValueError: a `while` loop with matrix products in it, for nobody knows how
      often it runs.
  """
  return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def count_by_scope(
  jaxpr: core.Jaxpr, scopes: tuple[str, ...], inside: str = ""
) -> dict[str, int]:
  """Counts FLOPs by the `jax.named_scope` that they are in.

  Operations of the backward pass belong to the scope that they differentiate.

  Args:
    jaxpr: as in `count_flops`.
    scopes: names of the scopes; an operation in several counts for the first.
    inside: scope that the whole jaxpr belongs to.

  Returns:
    FLOPs by scope, "" for what is in none of them.
  """
  counts: dict[str, int] = {}
  for equation in jaxpr.eqns:
    words = re.findall(r"\w+", str(equation.source_info.name_stack))
    scope = inside or next((s for s in scopes if s in words), "")
    called = core.jaxprs_in_params(equation.params)
    name = equation.primitive.name
    if scope or name in _COUNTED or name in ("cond", "while"):
      parts = {scope: _equation_flops(equation)}
    else:
      parts = {}
      times = _repeats(name, equation.params)
      for inner in map(_open, called):
        for key, flops in count_by_scope(inner, scopes).items():
          parts[key] = parts.get(key, 0) + times * flops
    for key, flops in parts.items():
      counts[key] = counts.get(key, 0) + flops
  return counts


def _equation_flops(equation: core.JaxprEqn) -> int:
  name, params = equation.primitive.name, equation.params
  if name in _COUNTED:
    return _COUNTED[name](equation)
  called = [_open(j) for j in core.jaxprs_in_params(params)]
  counts = [count_flops(jaxpr) for jaxpr in called]
  if name == "cond":
    return max(counts)
  if name == "while" and any(counts):
    raise ValueError(
      "a while loop with matrix products has no FLOPs that can be counted"
      " beforehand: use a scan, or a fori_loop of known length"
    )
  return _repeats(name, params) * sum(counts)


def _repeats(name: str, params: dict[str, Any]) -> int:
  """Returns how often a primitive runs the jaxprs in its parameters."""
  if name == "scan":
    return params["length"]
  if name == "shard_map":
    shape = params["mesh"].shape
    return math.prod(shape[axis] for axis in params["newly_manual_axes"])
  return 1


def _open(jaxpr: core.Jaxpr | core.ClosedJaxpr) -> core.Jaxpr:
  return getattr(jaxpr, "jaxpr", jaxpr)


def _dot_flops(equation: core.JaxprEqn) -> int:
  """Counts a product: each output is a sum over the contracted axes."""
  (contracted, _), _ = equation.params["dimension_numbers"]
  shape = equation.invars[0].aval.shape
  depth = math.prod(shape[axis] for axis in contracted)
  return 2 * depth * equation.outvars[0].aval.size


def _conv_flops(equation: core.JaxprEqn) -> int:
  """Counts a convolution: each output sums taps and features of its group.

  A kernel's input features are already those of one group. Zeros between the
  inputs of a transposed convolution are not multiplied; padding is.
  """
  params = equation.params
  kernel = equation.invars[1].aval.shape
  _, features, *taps = params["dimension_numbers"].rhs_spec
  depth = kernel[features] * math.prod(kernel[axis] for axis in taps)
  spread = math.prod(params["lhs_dilation"])
  return 2 * depth * equation.outvars[0].aval.size // spread


_COUNTED = {
  "dot_general": _dot_flops,
  "conv_general_dilated": _conv_flops,
}


def peak_bytes(jaxpr: core.Jaxpr) -> int:
  """Counts the most bytes of intermediate values alive at one time.

  Every value lives from the equation that makes it to the last one that reads
  it, in the order of the jaxpr; what an equation calls adds its own peak while
  it runs. Arguments and results are not counted. Of the gradient of a loss
  this is what it keeps for the backward pass and what it works with besides.

  It is an estimate: a compiler reorders, stores less (values inside a fusion)
  and stores more (copies in other layouts).
  """
  last = {}
  for i, equation in enumerate(jaxpr.eqns):
    last |= dict.fromkeys(_variables(equation.invars), i)
  theirs = {*jaxpr.invars, *jaxpr.constvars, *_variables(jaxpr.outvars)}
  alive = peak = 0
  for i, equation in enumerate(jaxpr.eqns):
    made = [v for v in equation.outvars if v in last and v not in theirs]
    called = core.jaxprs_in_params(equation.params)
    inside = max((peak_bytes(_open(j)) for j in called), default=0)
    alive += sum(map(_bytes, made))
    peak = max(peak, alive + inside)
    read = set(_variables(equation.invars)) - theirs
    alive -= sum(_bytes(v) for v in read if last[v] == i)
  return peak


def _variables(atoms) -> list[core.Var]:
  return [atom for atom in atoms if isinstance(atom, core.Var)]


def _bytes(variable: core.Var) -> int:
  return variable.aval.size * variable.aval.dtype.itemsize
