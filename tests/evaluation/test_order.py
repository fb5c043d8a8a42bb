"""Scenes whose two sounds come in an order that only the caption tells."""

import numpy as np
import pytest

from data_pipelines.scenes import make_scene
from v2a_jax.evaluation import clips, scene_order
from v2a_jax.evaluation.metrics import base, order

SEEDS = range(500_000_000, 500_000_020)


def sample(scene, waveform):
  clip = clips.Clip(
    id="scene",
    audio=scene.audio,
    seconds=scene.seconds,
    caption=scene.caption,
    of_scenes=True,
  )
  return base.Sample(
    clip=clip, waveform=waveform, sample_rate=scene.sample_rate, features={}
  )


def test_true_scenes_are_in_order_and_exchanged_halves_are_not():
  metric = order.SceneOrder()
  right, wrong = [], []
  for seed in SEEDS:
    scene = make_scene(seed, action="order", size=8, fps=1)
    half = len(scene.audio) // 2
    swapped = np.roll(scene.audio, half, axis=0)
    right.append(metric.get_state(sample(scene, scene.audio)))
    wrong.append(metric.get_state(sample(scene, swapped)))
  assert metric.compute(right).value == 1.0
  assert metric.compute(wrong).value == 0.0


def test_the_captions_tell_the_order_and_the_picture_does_not():
  scene = make_scene(7, action="order", size=8, fps=2)
  first, then = scene_order.names(scene.caption)
  heard = list(
    dict.fromkeys(
      event.material for event in scene.events if event.kind == "sound"
    )
  )
  assert heard == [first, then]
  assert scene_order.names(scene.audio_caption) == (first, then)
  assert not any(event.on_screen for event in scene.events)


def test_a_share_of_the_scenes_has_an_order_and_the_others_stay():
  small = dict(size=8, fps=1)
  plain = [make_scene(seed, **small) for seed in range(60)]
  mixed = [make_scene(seed, ordered=0.3, **small) for seed in range(60)]
  labels = [scene.label for scene in mixed]
  assert 8 <= labels.count("order") <= 28
  for a, b in zip(plain, mixed):
    if b.label != "order":
      np.testing.assert_array_equal(a.audio, b.audio)


@pytest.mark.parametrize(
  "caption",
  ["a ball bounces", "first a dog, then a drum", "first a drum then a bell"],
)
def test_other_clips_are_not_judged(caption):
  clip = clips.Clip(
    id="a", audio=np.zeros((4, 1)), seconds=1.0, caption=caption, of_scenes=True
  )
  assert not order.SceneOrder().judges(clip)
