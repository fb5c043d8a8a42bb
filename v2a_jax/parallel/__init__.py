"""Devices: the mesh, the sharding rules, and the processes.

Parameters carry logical axis names (`sharding.partitioned`) and are laid out
when the whole state is initialised under `jit`. Flax must not also place each
variable as it is made: that would need a mesh in every unit test, and place
things twice.
"""

from flax import nnx

nnx.use_eager_sharding(False)
