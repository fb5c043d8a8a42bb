"""Eight virtual CPU devices for every test, and fixtures that rooms share."""

from absl import flags
import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Grain's worker processes read absl flags, which pytest never parses.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def mesh():
  """A 2 x 2 x 2 mesh of (data, fsdp, tensor)."""
  from v2a_jax.parallel import mesh as mesh_lib

  return mesh_lib.make_mesh(mesh_lib.MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.fixture
def key():
  return jax.random.key(0)
