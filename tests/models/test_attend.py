"""Kernels of attention against XLA's, and where each of them runs."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.launch.commands import ROOT
from v2a_jax.models import attend as attend_lib
from v2a_jax.models.attend import AttentionError, attend
from v2a_jax.parallel import collectives
from v2a_jax.parallel import mesh as mesh_lib

LIBTPU = ROOT / ".venv" / "plan"


def draw(t, s, *, heads=2, size=16, dtype="float32", b=2):
  keys = jax.random.split(jax.random.key(0), 3)
  make = lambda key, n: jax.random.normal(key, (b, n, heads, size), dtype)
  return make(keys[0], t), make(keys[1], s), make(keys[2], s)


def error_and_gradients(function, q, k, v):
  def loss(q, k, v):
    out = function(q, k, v).astype(jnp.float32)
    return jnp.square(out).sum(), out

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
  gradients, out = gradient(q, k, v)
  return [np.asarray(x, np.float32) for x in (out, *gradients)]


def emulated(q, k, v, *, mask=None, causal=False):
  """The Pallas kernel as a CPU emulates it."""
  out = attend_lib.splash(q, k, v, mask, causal=causal, interpret=True)
  return out.reshape(*out.shape[:2], -1)


@pytest.mark.parametrize(
  "t, s, size, dtype, tolerance",
  [
    (130, 200, 16, "float32", 2e-5),  # Neither divides a block.
    (128, 128, 64, "bfloat16", 4e-2),
  ],
)
def test_splash_equals_xla_forward_and_backward(t, s, size, dtype, tolerance):
  q, k, v = draw(t, s, size=size, dtype=dtype)
  mask = jax.random.uniform(jax.random.key(1), (2, s)) < 0.7
  xla = functools.partial(attend, mask=mask, implementation="xla")
  found = error_and_gradients(functools.partial(emulated, mask=mask), q, k, v)
  for x, y in zip(found, error_and_gradients(xla, q, k, v)):
    np.testing.assert_allclose(x, y, atol=tolerance * np.abs(y).max())


def test_splash_sees_no_later_key_where_it_is_causal():
  q, k, v = draw(140, 140)
  xla = functools.partial(attend, causal=True, implementation="xla")
  found = error_and_gradients(functools.partial(emulated, causal=True), q, k, v)
  for x, y in zip(found, error_and_gradients(xla, q, k, v)):
    np.testing.assert_allclose(x, y, atol=2e-5 * np.abs(y).max())


def test_rows_without_a_key_are_finite():
  q, k, v = draw(128, 128)
  mask = jnp.zeros((2, 128), bool).at[1].set(True)
  for x in error_and_gradients(functools.partial(emulated, mask=mask), q, k, v):
    assert np.isfinite(x).all()


@pytest.mark.parametrize("name", ["splash", "cudnn"])
def test_a_kernel_of_another_platform_is_refused(name):
  with pytest.raises(AttentionError, match=rf"'{name}' cannot run.*is cpu"):
    attend(*draw(4, 4), implementation=name)
  with pytest.raises(AttentionError, match="'fast' is not one of auto, xla"):
    attend(*draw(4, 4), implementation="fast")


def test_a_kernel_on_a_mesh_moves_nothing():
  """Each device has its rows and heads, as the compiler would not know."""
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=4, tensor=2))
  q, k, v = draw(128, 128, b=4)
  mask = jnp.ones((4, 128), bool)

  def run(q, k, v):
    return attend_lib._on_shards(
      functools.partial(attend_lib.splash, causal=False, interpret=True),
      *(q, k, v, mask),
      ("batch", "length", "heads", None),
      ("batch", None, "heads", None),
    )

  layout = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec("data", None, "tensor")
  )
  with jax.set_mesh(mesh):
    compiled = (
      jax.jit(run)
      .lower(
        *(
          jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
          for x in (q, k, v)
        )
      )
      .compile()
    )
    out = compiled(*jax.device_put((q, k, v), layout))
  assert collectives.read(compiled.as_text()) == []
  expected = attend(q, k, v, implementation="xla")
  np.testing.assert_allclose(out.reshape(expected.shape), expected, atol=1e-5)


FOR_TPU = """
import jax, jax.numpy as jnp
jax.config.update("jax_platforms", "cpu")
from v2a_jax.models.attend import attend
from v2a_jax.parallel import mesh as mesh_lib, topology
devices = topology.describe_devices(topology.parse("v5e:2x2"))
mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=2, tensor=2), devices)
x = jax.ShapeDtypeStruct((4, 300, 2, 64), jnp.bfloat16)
mask = jax.ShapeDtypeStruct((4, 300), bool)
loss = lambda q, k, v, m: attend(q, k, v, mask=m).astype(jnp.float32).sum()
with jax.set_mesh(mesh):
  layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  put = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)
  gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
  compiled = gradient.lower(*map(put, (x, x, x, mask))).compile()
print(compiled.as_text().count("tpu_custom_call"))
"""


@pytest.mark.skipif(
  not (LIBTPU / "libtpu").is_dir(), reason="libtpu is not installed"
)
def test_auto_is_the_pallas_kernel_on_a_tpu_that_is_not_here():
  path = os.pathsep.join([str(ROOT), str(LIBTPU)])
  end = subprocess.run(
    [sys.executable, "-c", FOR_TPU],
    env=os.environ | {"PYTHONPATH": path},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert end.returncode == 0, end.stderr[-2000:]
  assert int(end.stdout) >= 3  # Forward, and two kernels backward.
