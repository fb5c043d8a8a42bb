"""FLOPs and bytes from a jaxpr, against products counted by hand."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest
import tiny

from v2a_jax.experiment import jaxprs
from v2a_jax.models.spoken import WAVES
from v2a_jax.weights import names

ONE = 2 * 3 * 4 * 5  # FLOPs of [3 4] @ [4 5]


def array(*shape, dtype=np.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


X, W = array(3, 4), array(4, 5)


def test_a_product_counts_two_for_each_multiply_add():
  assert jaxprs.flops_of(jnp.matmul, X, W) == ONE
  batched = functools.partial(jnp.einsum, "bhqd,bhkd->bhqk")
  shapes = array(2, 3, 7, 4), array(2, 3, 5, 4)
  assert jaxprs.flops_of(batched, *shapes) == 2 * (2 * 3 * 7 * 5) * 4
  assert jaxprs.flops_of(lambda x: jnp.tanh(x) + x, X) == 0


@pytest.mark.parametrize(
  "settings,kernel,multiplied",
  [
    (dict(), (3, 6, 8), 20 * 3 * 6 * 8),
    (dict(window_strides=(2,)), (3, 6, 8), 10 * 3 * 6 * 8),
    (dict(rhs_dilation=(4,)), (3, 6, 8), 20 * 3 * 6 * 8),
    (dict(feature_group_count=2), (3, 3, 8), 20 * 3 * 3 * 8),
    # Between two inputs lies a zero that nobody has to multiply.
    (dict(lhs_dilation=(2,), padding=((1, 2),)), (3, 6, 8), 20 * 3 * 6 * 8),
  ],
)
def test_a_convolution_counts_its_taps(settings, kernel, multiplied):
  settings = dict(window_strides=(1,), padding="SAME") | settings
  conv = functools.partial(
    jax.lax.conv_general_dilated,
    dimension_numbers=("NWC", "WIO", "NWC"),
    **settings,
  )
  found = jaxprs.flops_of(conv, array(1, 20, 6), array(*kernel))
  assert found == 2 * multiplied


def test_the_weight_gradient_of_a_convolution_costs_what_the_forward_does():
  conv = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
  )
  shapes = array(2, 20, 6), array(3, 6, 8)
  forward = jaxprs.flops_of(conv, *shapes)
  both = jaxprs.flops_of(jax.grad(lambda w, x: conv(x, w).sum()), *shapes[::-1])
  assert both == pytest.approx(2 * forward)


def test_what_is_called_is_followed():
  @jax.custom_vjp
  def custom(x, w):
    return x @ w

  custom.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: saved)
  for called in (jax.jit(jnp.matmul), jax.checkpoint(jnp.matmul), custom):
    assert jaxprs.flops_of(lambda x, w, f=called: f(x, w) + 1, X, W) == ONE


def test_a_scan_counts_once_an_iteration():
  square = array(4, 4)

  def scanned(x, w):
    step = lambda x, _: jax.lax.scan(lambda x, _: (x @ w, None), x, None, 2)
    return jax.lax.scan(step, x, None, 7, unroll=3)[0]

  assert jaxprs.flops_of(scanned, X, square) == 14 * 2 * 3 * 4 * 4


def test_a_branch_counts_the_largest():
  def branched(x, w):
    branches = (lambda: x[:, :1] * w[0], lambda: x @ w, lambda: 2 * (x @ w))
    return jax.lax.switch(x[0, 0].astype(int), branches)

  assert jaxprs.flops_of(branched, X, W) == ONE


def test_a_loop_of_unknown_length_is_refused_where_it_matters():
  def until(x, body):
    return jax.lax.while_loop(lambda x: x[0, 0] < 1, body, x)

  square = array(3, 3)
  assert jaxprs.flops_of(lambda x: until(x, lambda x: x + 1), square) == 0
  with pytest.raises(ValueError, match="use a scan"):
    jaxprs.flops_of(lambda x: until(x, lambda x: x @ x), square)


def test_the_gradient_costs_twice_the_forward_and_remat_once_more():
  def loss(weights, x, wrap):
    hidden = jnp.tanh(wrap(lambda x: jnp.tanh(x @ weights[0]))(x) @ weights[1])
    return (hidden**2).sum()

  weights = (array(4, 4), array(4, 4))
  one = 2 * 3 * 4 * 4
  count = lambda wrap: jaxprs.flops_of(
    jax.value_and_grad(lambda w, x: loss(w, x, wrap)), weights, X
  )
  # Of the first layer the gradient to the input is not needed.
  assert count(lambda f: f) == 2 * one + 3 * one
  assert count(jax.checkpoint) == 2 * one + 3 * one + one


def test_the_peak_is_what_is_alive_at_once():
  big = array(100, 100)

  def chain(x):
    for _ in range(5):
      x = jnp.sin(x)
    return x.sum()

  def fan(x):
    return sum(jnp.sin(x + i) for i in [jnp.cos(x * i) for i in range(5)]).sum()

  peak = lambda f: jaxprs.peak_bytes(jax.make_jaxpr(f)(big).jaxpr)
  assert peak(chain) == 2 * 40_000  # one being read, one being made
  assert peak(fan) > 5 * 40_000
  assert peak(jax.jit(chain)) == peak(chain)
  kept = peak(jax.grad(lambda x: jax.jit(chain)(x)))
  assert kept >= 5 * 40_000


def test_a_function_of_shards_counts_on_each_device_that_it_names():
  mesh = jax.sharding.AbstractMesh((4, 2), ("rows", "other"))
  rows = jax.shard_map(
    lambda x, w: x @ w,
    mesh=mesh,
    in_specs=(P("rows"), P()),
    out_specs=P("rows"),
    axis_names={"rows"},
    check_vma=False,
  )
  flops = jaxprs.flops_of(rows, array(8, 4), array(4, 4))
  assert flops == 2 * 8 * 4 * 4


def test_scopes_get_their_own_operations_forward_and_backward():
  def loss(w, x):
    with jax.named_scope("first"):
      x = jax.jit(lambda x: jnp.tanh(x @ w[0]))(x)
    with jax.named_scope("second"):
      x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ w[1]), None), x, None, 3)
    return (x @ w[1]).sum()

  w, one = (array(4, 4), array(4, 4)), 2 * 3 * 4 * 4
  jaxpr = jax.make_jaxpr(loss)(w, X).jaxpr
  scopes = ("first", "second")
  assert jaxprs.count_by_scope(jaxpr, scopes) == {
    "first": one, "second": 3 * one, "": one
  }  # fmt: skip
  gradient = jax.make_jaxpr(jax.grad(loss))(w, X).jaxpr
  counts = jaxprs.count_by_scope(gradient, scopes)
  # The gradient to the input of all is not needed.
  assert counts["first"] == 2 * one and counts["second"] == 9 * one
  assert sum(counts.values()) == jaxprs.count_flops(gradient)


COND = tiny.conditioning(1, n=10, size=32, words=7)
LENGTH, FRAMES, TEXT = 41, 10, 14


def backbone_flops(model, x, *time, **more):
  """FLOPs of the backbone's forward pass, counted on its trace."""
  graphdef, state = nnx.split(model)

  def run(state, cond, x, more, *time):
    model = nnx.merge(graphdef, state)
    times = tiny.times(x.shape[1])
    return model(x, *time, model.encode(cond), times=times, **more)

  jaxpr = jax.make_jaxpr(run)(state, COND, x, more, *time).jaxpr
  counts = jaxprs.count_by_scope(jaxpr, ("conditioner", "backbone"))
  assert counts.keys() == {"conditioner", "backbone"}
  return counts["backbone"]


def linear_flops(model, tokens_of) -> int:
  """2 · size · tokens of every kernel; `tokens_of` maps a name to tokens."""
  params = names.joined(names.flatten(nnx.state(model.backbone, nnx.Param)))
  kernels = {k: v for k, v in params.items() if k.endswith("kernel")}
  return sum(2 * v.size * tokens_of(k) for k, v in kernels.items())


def attention_flops(queries, keys):
  """Scores and weighted sum of one attention of the width of `tiny`."""
  return 4 * queries * keys * tiny.WIDTH


WORDS = 7


def read_flops(steps):
  """Reading frames, words and places in words at each step's time."""
  return 2 * steps * (FRAMES * tiny.WIDTH + WORDS * (tiny.WIDTH + WAVES))


def test_diffusion_costs_its_closed_form():
  model = tiny.diffusion(joint_depth=2, depth=3)
  tokens = {"time": 1, "spoken/word": WORDS}
  for joint in ("joint", "last_joint"):
    tokens |= {f"{joint}/blocks/video": FRAMES, f"{joint}/blocks/text": TEXT}

  def tokens_of(name):
    return next((n for k, n in tokens.items() if name.startswith(k)), LENGTH)

  total = LENGTH + FRAMES + TEXT
  expected = linear_flops(model, tokens_of) + read_flops(LENGTH)
  # Of the last joint block only the audio's queries are used.
  expected += attention_flops(total, total) + attention_flops(LENGTH, total)
  expected += 3 * attention_flops(LENGTH, LENGTH)
  x = array(1, LENGTH, tiny.CHANNELS)
  assert backbone_flops(model, x, array(1)) == expected


def test_tokens_cost_their_closed_form():
  model = tiny.tokens(depth=3)
  steps, cond = LENGTH + tiny.BOOKS - 1, FRAMES + TEXT  # the delay pattern

  def tokens_of(name):
    if "spoken/word" in name:
      return WORDS
    return cond if "cross/kv" in name else steps

  expected = linear_flops(model, tokens_of) + read_flops(steps)
  expected += 3 * (attention_flops(steps, steps) + attention_flops(steps, cond))
  codes = array(1, LENGTH, tiny.BOOKS, dtype=np.int32)
  assert backbone_flops(model, codes) == expected


def test_next_latents_cost_their_closed_form():
  model, draws = tiny.latents(depth=3), 5
  cond = FRAMES + TEXT

  def tokens_of(name):
    if name.startswith("head/vector"):
      return LENGTH
    if name.startswith("head/"):
      return LENGTH * draws
    if name.startswith("embed"):
      return LENGTH - 1
    if "spoken/word" in name:
      return WORDS
    return cond if "cross/kv" in name else LENGTH

  expected = linear_flops(model, tokens_of) + read_flops(LENGTH)
  each = attention_flops(LENGTH, LENGTH) + attention_flops(LENGTH, cond)
  found = backbone_flops(
    model,
    array(1, LENGTH, tiny.CHANNELS),
    noisy=array(1, LENGTH, draws, tiny.CHANNELS),
    time=array(1, LENGTH, draws),
  )
  assert found == expected + 3 * each
