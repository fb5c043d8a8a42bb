"""Published networks; their weights are read by `v2a_jax/weights`."""
