"""A keyed audio watermark: `embed` and `detect`.

The watermark changes the energy ratios of neighbouring patches of the
time-frequency plane. `pattern.py` has the mathematics, docs/watermark.md the
measured robustness and the limits.
"""

from v2a_jax.watermark.detector import Detection, Place, detect
from v2a_jax.watermark.embedder import embed
from v2a_jax.watermark.pattern import PUBLIC_KEY, key_digest, resolve_key

__all__ = [
  "PUBLIC_KEY",
  "Detection",
  "Place",
  "detect",
  "embed",
  "key_digest",
  "resolve_key",
]
