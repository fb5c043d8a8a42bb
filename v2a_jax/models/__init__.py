"""Backbones of the generator, their layers and attention.

To add a backbone, write its settings class (see `generator.BackboneConfig`) and
name it here.
"""

from v2a_jax.models.ar import TokenModelConfig
from v2a_jax.models.ar_latents import LatentModelConfig
from v2a_jax.models.dit import DiTConfig
from v2a_jax.models.generator import BackboneConfig
from v2a_jax.models.mmaudio import MMAudioConfig

BACKBONES: dict[str, type[BackboneConfig]] = {
  "dit": DiTConfig,
  "ar": TokenModelConfig,
  "ar_latents": LatentModelConfig,
  "mmaudio": MMAudioConfig,
}
