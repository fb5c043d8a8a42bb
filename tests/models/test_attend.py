"""Every implementation of attention is XLA's, and none moves anything."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import for_tpus
from tests.launch.commands import python
from v2a_jax.basics.settings import SettingError
from v2a_jax.models import attend, dit, splash
from v2a_jax.parallel import collectives, mesh

# In bfloat16 XLA's rounds the weights; splash keeps them in float32.
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}
on_cpu = functools.partial(splash.attend, interpret=True)


def draw(b, t, s, heads, size, dtype="float32"):
  shapes = (b, t, heads, size), (b, s, heads, size), (b, s, heads, size)
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(k, n, dtype) for k, n in zip(keys, shapes)]


def both_ways(function, *arguments):
  """The result, and the gradients of a sum that weighs each number."""

  def weighed(*arguments):
    out = function(*arguments).astype(jnp.float32)
    return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

  value = jax.value_and_grad(weighed, (0, 1, 2), has_aux=True)
  (_, out), gradients = jax.jit(value)(*arguments)
  return [out, *gradients]


def by_splash(mask):
  if mask is attend.CAUSAL:
    return functools.partial(on_cpu, causal=True)
  return lambda q, k, v: attend.on_shards(on_cpu, q, k, v, mask)


def by_xla(mask):
  def run(q, k, v):
    out = attend.attend(q, k, v, mask=mask, implementation="xla")
    return out.reshape(q.shape)

  return run


def assert_same(mask, qkv):
  close = TOLERANCE[qkv[0].dtype.name]
  found, expected = (both_ways(f(mask), *qkv) for f in (by_splash, by_xla))
  for x, y in zip(found, expected):
    np.testing.assert_allclose(
      np.asarray(x, np.float32),
      np.asarray(y, np.float32),
      atol=close,
      rtol=close,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["none", "keys", "causal"])
def test_splash_is_a_softmax_in_both_directions(kind, dtype):
  """With odd lengths, and heads smaller than a row of the chip's registers."""
  t, s = (131, 131) if kind == "causal" else (5, 131)
  mask = {"none": None, "causal": attend.CAUSAL}.get(kind)
  if kind == "keys":
    mask = jax.random.bernoulli(jax.random.key(1), 0.5, (2, s))
  assert_same(mask, draw(2, t, s, 2, 12, dtype))


def test_lengths_of_several_blocks_are_attended_whole():
  t = splash.BLOCKS[0] + 1
  mask = jnp.arange(t)[None] % 3 > 0
  assert_same(mask, draw(1, t, t, 1, 8))


def test_a_row_without_any_key_gets_the_mean_and_its_gradient():
  mask = jnp.array([[False] * 7, [True] * 3 + [False] * 4])
  assert_same(mask, draw(2, 5, 7, 1, 8))


def test_splash_alone_is_finite_where_a_row_has_no_key():
  mask = jnp.zeros((1, 7), bool)
  run = lambda q, k, v: on_cpu(q, k, v, mask)
  assert all(np.isfinite(x).all() for x in both_ways(run, *draw(1, 5, 7, 1, 8)))


@pytest.mark.parametrize(
  "length,block,padded",
  [(1, 128, 128), (623, 640, 640), (1400, 768, 1536), (4096, 512, 4096)],
)
def test_blocks_pad_little(length, block, padded):
  assert splash.block_size(length) == block
  assert -(-length // block) * block == padded


@pytest.mark.parametrize("manual", [(), ("data", "fsdp")])
@pytest.mark.parametrize("heads", [2, 3])
def test_on_a_mesh_a_kernel_moves_nothing(manual, heads):
  """Alone, and where rows are manual as in a training step.

  Three heads stay whole, and their gradients are summed over the axis.
  """
  axes = mesh.MeshConfig(data=2, tensor=2)
  devices = mesh.make_mesh(axes, jax.devices()[:4])
  q, k, v = draw(2, 5, 7, heads, 8)
  mask = jnp.array([[True] * 7, [True] * 3 + [False] * 4])
  run = functools.partial(attend.on_shards, on_cpu)
  if manual:
    rows = jax.P("data")
    run = jax.shard_map(
      run,
      in_specs=(rows,) * 4,
      out_specs=rows,
      axis_names=set(manual),
      check_vma=False,
    )
  with jax.set_mesh(devices):
    split = heads == 2
    heads = jax.P("data", None, "tensor" if split else None)
    put = lambda x, at: jax.device_put(x, jax.NamedSharding(devices, at))
    arguments = [*(put(x, heads) for x in (q, k, v)), put(mask, jax.P("data"))]
    weighed = lambda *a: (run(*a) ** 2).sum(axis=(1, 3))
    back = lambda *a: jax.vjp(weighed, *a)[1](jnp.ones(q.shape[::2]))[:3]
    both = (lambda *a: (run(*a), back(*a))) if split else (lambda *a: [run(*a)])
    found = jax.jit(both).lower(*arguments).compile()
    # A sum over an axis of one device moves nothing.
    assert all(c.group == 1 for c in collectives.read(found.as_text()))
    out = found(*arguments)[0]
  np.testing.assert_allclose(out, by_xla(mask)(q, k, v), atol=2e-5)


@pytest.mark.parametrize("size", [8, 6])
def test_cudnn_is_called_with_the_keys_that_count(size, monkeypatch):
  """Lowered for a GPU that is not here; cuDNN's version is that of one."""
  from jax._src.cudnn import fused_attention_stablehlo as fused

  monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
  qkv = draw(2, 5, 7, 2, size, "bfloat16")
  mask = jnp.arange(7)[None] < jnp.array([[0], [3]])
  run = lambda q, k, v: attend.on_shards(attend.cudnn, q, k, v, mask)
  traced = jax.jit(lambda *a: both_ways(run, *a)).trace(*qkv)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert "__cudnn$fmhaSoftmax" in text and "__cudnn$fmhaSoftmaxBackward" in text
  assert "PADDING" in text and "ScaleBias" not in text


@pytest.mark.parametrize("size", [8, 6])
def test_cudnn_gets_all_keys_that_count_first(size, monkeypatch):
  """What cuDNN computes is computed by XLA here."""
  xla = jax.nn.dot_product_attention

  def prefix(q, k, v, *, implementation, **lengths):
    assert implementation == "cudnn" and q.shape[-1] == 8
    return xla(q, k, v, **lengths)

  monkeypatch.setattr(jax.nn, "dot_product_attention", prefix)
  mask = jax.random.bernoulli(jax.random.key(1), 0.5, (3, 7)).at[0].set(False)
  qkv = draw(3, 5, 7, 2, size)
  found = both_ways(
    lambda q, k, v: attend.on_shards(attend.cudnn, q, k, v, mask), *qkv
  )
  monkeypatch.undo()
  for x, y in zip(found, both_ways(by_xla(mask), *qkv)):
    np.testing.assert_allclose(x, y, atol=2e-5)


@pytest.mark.parametrize("name", ["splash", "cudnn"])
def test_a_kernel_that_cannot_run_here_is_refused(name):
  with pytest.raises(SettingError) as error:
    attend.attend(*draw(1, 2, 2, 1, 8), implementation=name)
  said = str(error.value)
  assert f"attention='{name}' cannot run here" in said
  assert "this is a CPU; use xla, or auto" in said


def test_a_model_that_needs_derivatives_by_time_refuses_kernels_without():
  sizes = dict(width=8, num_heads=1, depth=1, joint_depth=0, mlp_dim=8)
  with pytest.raises(SettingError, match="use auto or xla"):
    dit.DiTConfig(**sizes, channels=1, average=True, attention="splash")


FOR_TPU = """
import sys
import jax, jax.numpy as jnp
from v2a_jax.models import attend
from v2a_jax.parallel import mesh, topology
devices = topology.describe_devices(topology.parse("v5e:2x2"))
axes = mesh.make_mesh(mesh.MeshConfig(data=2, tensor=2), devices)
layout = lambda *spec: jax.NamedSharding(axes, jax.P(*spec))
struct = jax.ShapeDtypeStruct
q = struct((2, 623, 2, 64), "bfloat16", sharding=layout("data", None, "tensor"))
mask = struct((2, 623), bool, sharding=layout("data"))
def loss(q, k, v, mask):
  out = attend.attend(q, k, v, mask=mask)
  return out.astype(jnp.float32).sum(axis=(1, 2))
with jax.set_mesh(axes):
  step = jax.jit(lambda *a: jax.vjp(loss, *a)[1](jnp.ones(2))[:3])
  print(step.lower(q, q, q, mask).compile().as_text())
"""


@for_tpus.needed
def test_auto_is_splash_in_a_program_for_tpus_that_are_not_here():
  end = python(FOR_TPU, for_tpus.ENV)
  assert end.returncode == 0, end.stderr
  assert end.stdout.count('custom_call_target="tpu_custom_call"') == 3
  assert collectives.read(end.stdout) == []
