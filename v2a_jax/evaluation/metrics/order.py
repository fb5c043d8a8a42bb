"""Sounds in the order that the prompt tells, on scenes that were made for it."""

import dataclasses

from v2a_jax.evaluation import scene_order
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import base


@dataclasses.dataclass(frozen=True)
class Orders:
  """Counts of one clip.

  Attributes:
    right: 1 if the two things sound in the order that the caption tells.
    asked: 1.
  """

  right: int
  asked: int = 1


class SceneOrder(base.RatioMetric):
  """Share of scenes whose two unseen sounds come in the caption's order."""

  id = "scene_order"
  label = "Scene order"
  direction = "higher"
  variant = scene_order.VARIANT
  numerator, denominator = {"right": 1}, {"asked": 1}
  unmet = "no clip is a scene with two sounds in an order"
  about = (
    "Share of the scenes with two sounds out of sight that come in the order"
    " that the caption tells; 0.5 by chance, for the picture says nothing of it."
  )

  def judges(self, clip: Clip) -> bool:
    return clip.of_scenes and scene_order.names(clip.caption) is not None

  def get_state(self, sample: base.Sample) -> Orders:
    first, then = scene_order.names(sample.clip.caption)
    right = scene_order.in_order(
      sample.waveform, sample.sample_rate, first, then
    )
    return Orders(int(right))
