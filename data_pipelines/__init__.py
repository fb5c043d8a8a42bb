"""Raw media to shards, shards to batches; numpy only, never jax."""
