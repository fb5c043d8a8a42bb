"""Video-to-audio generation in JAX: train, judge and use it."""

__version__ = "0.1.0"


def __getattr__(name):
  # `from v2a_jax import Soundtracker` without importing jax for `v2a doctor`.
  if name in ("Soundtracker", "Soundtrack"):
    from v2a_jax.soundtrack import tracker

    return getattr(tracker, name)
  raise AttributeError(f"module 'v2a_jax' has no attribute {name!r}")
