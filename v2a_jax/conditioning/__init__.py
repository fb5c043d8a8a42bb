"""Condition encoders, by the name that a backbone's settings class gives.

To add one, write a settings class with what `encoder.ConditionerConfig` has and
name it here.
"""

from v2a_jax.conditioning.encoder import ConditionerConfig
from v2a_jax.conditioning.mmaudio import MMAudioConditionerConfig

CONDITIONERS: dict[str, type] = {
  "streams": ConditionerConfig,
  "mmaudio": MMAudioConditionerConfig,
}
