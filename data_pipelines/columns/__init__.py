"""Columns beside the shards: what is known or measured of each clip."""
