"""Devices: the mesh, the sharding rules, and the processes.

Parameters carry logical axis names (`sharding.partitioned`) and are laid out
when the whole state is initialised under `jit`, so Flax must not also try to
place each variable the moment it is made: that needs a mesh for every unit
test, and places things twice.
"""

from flax import nnx

nnx.use_eager_sharding(False)
