"""The parts of scenes: trajectories, shapes, modal sound and speech."""

import librosa
import numpy as np
import pytest

from data_pipelines.scenes import physics, render, speech, synthesis

RATE = 16000


def test_irregular_times_keep_their_gap_and_room():
  rng = np.random.default_rng(0)
  for _ in range(20):
    times = physics.irregular_times(rng, 5, first=0.3, last=3.8, gap=0.3)
    assert len(times) == 5 and times[0] >= 0.3 and times[-1] <= 3.8
    assert np.diff(times).min() >= 0.3
  assert len(physics.irregular_times(rng, 9, first=0, last=1, gap=0.4)) == 3
  assert len(physics.irregular_times(rng, 9, first=1, last=0, gap=0.4)) == 0


def test_a_ball_touches_the_floor_at_its_bounces_only():
  motion = dict(gravity=6.0, restitution=0.7)
  hits, speeds = physics.bounces(0.5, 0.6, end=4.0, **motion)
  np.testing.assert_allclose(hits[0], 0.5 + np.sqrt(2 * 0.6 / 6.0))
  np.testing.assert_allclose(speeds[1:] / speeds[:-1], 0.7)
  up = physics.bounce_height(hits, 0.5, 0.6, hits, speeds, **motion)
  np.testing.assert_allclose(up, 0, atol=1e-9)
  between = 0.5 * (hits[1:] + hits[:-1])
  up = physics.bounce_height(between, 0.5, 0.6, hits, speeds, **motion)
  # Half way through a flight the ball is at its top, v^2 / 2 g.
  np.testing.assert_allclose(up, (speeds[1:]) ** 2 / 12.0)


def test_a_tool_touches_down_at_its_hits():
  hits, power = np.array([0.5, 1.3, 2.0]), np.array([0.6, 1.0, 0.8])
  np.testing.assert_allclose(physics.lift(hits, hits, power), 0, atol=1e-9)
  times = np.linspace(0, 3, 3001)
  high = physics.lift(times, hits, power)
  assert high.min() >= 0 and 0.9 < high[(times > 0.5) & (times < 1.3)].max() < 1
  assert np.abs(np.diff(high)).max() < 0.015  # no jump


def test_collisions_keep_the_balls_apart_and_lose_no_momentum():
  x, v = np.array([0.3, 0.6]), np.array([0.4, -0.2])
  masses, radii = np.array([1.0, 2.0]), np.array([0.05, 0.08])
  contacts, knots, places, speeds = physics.track_collisions(
    x, v, masses, radii, walls=(0, 1), restitution=1.0, end=4.0
  )
  assert contacts[0][1] == 0  # the two balls meet first
  np.testing.assert_allclose(contacts[0][0], (0.3 - 0.13) / 0.6)
  np.testing.assert_allclose(speeds[1] @ masses, v @ masses)
  times = np.linspace(0, 3.99, 400)
  path = physics.along_knots(times, knots, places, speeds)
  assert (path[:, 1] - path[:, 0] >= radii.sum() - 1e-9).all()
  assert path.min() >= 0.05 - 1e-9 and path[:, 1].max() <= 0.92 + 1e-9


def test_crossings_are_where_the_path_passes_the_levels():
  grid = np.linspace(0, 2, 2001)
  levels = np.array([0.25, 1.0, 9.0])
  times, speeds = physics.crossings(grid**2, grid, levels)
  np.testing.assert_allclose(times, [0.5, 1.0], atol=1e-3)
  np.testing.assert_allclose(speeds, [1.0, 2.0], atol=1e-2)


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_shapes_cover_their_true_area(angle):
  white = render.Surface((1.0, 1.0, 1.0))
  black = np.zeros((64, 64, 3))
  for shape, area in (
    (render.disc(0.5, 0.5, 0.25, white), np.pi * 0.25**2),
    (render.Shape("box", 0.5, 0.5, 0.3, 0.1, white, angle=angle), 0.12),
    (
      render.Shape("ellipse", 0.5, 0.5, 0.3, 0.15, white, angle=angle),
      np.pi * 0.045,
    ),
  ):
    image = render.render([shape], black, frames=1)[0, :, :, 0] / 255
    assert abs(image.mean() - area) < 0.015 * area + 5e-4


def test_sub_pixel_motion_changes_the_picture_smoothly():
  x = 0.5 + np.linspace(0, 1 / 64, 9)
  look = render.Surface((1.0, 1.0, 1.0))
  frames = render.render(
    [render.disc(x, 0.5, 0.2, look)], np.zeros((64, 64, 3)), frames=9
  )
  place = (frames[..., 0] / frames[..., 0].sum((1, 2), keepdims=True)).sum(1)
  centre = place @ ((np.arange(64) + 0.5) / 64)
  np.testing.assert_allclose(centre, x, atol=5e-4)


def test_shapes_may_leave_the_picture_or_be_absent():
  look = render.Surface((1.0, 0.0, 0.0), "metal", outline=(0.0, 0.0, 1.0))
  far = np.array([-3.0, 0.5, 4.0])
  there = np.array([1.0, 0.0, 1.0])
  frames = render.render(
    [render.disc(far, 0.5, 0.2, look, alpha=there)],
    np.full((32, 32, 3), 0.5),
    frames=3,
  )
  assert (frames == 128).all()


def test_modes_equal_the_sum_of_damped_sines():
  frequencies, decays, gains = (
    [440.0, 910.0, 9000.0],
    [0.2, 0.1, 0.1],
    [1, 0.5, 1],
  )
  sound = synthesis.ring(frequencies, decays, gains, samples=3000, rate=RATE)
  n = np.arange(3000) / RATE
  # The third mode lies above the audible band and is left out.
  truth = sum(
    g * np.exp(-np.log(1000) * n / d) * np.sin(2 * np.pi * f * n)
    for f, d, g in list(zip(frequencies, decays, gains))[:2]
  )
  np.testing.assert_allclose(sound, truth, atol=2e-5)


def test_a_harder_hit_is_louder_and_brighter():
  material = synthesis.MATERIALS["wood"]
  sounds = [
    synthesis.strike(
      np.random.default_rng(1), material, 0.5, strength=s, rate=RATE
    )
    for s in (0.3, 1.0)
  ]
  assert np.abs(sounds[1]).max() > 3 * np.abs(sounds[0]).max()
  centre = [
    librosa.feature.spectral_centroid(y=x, sr=RATE).mean() for x in sounds
  ]
  assert centre[1] > centre[0]


def test_metal_rings_longer_than_stone_and_rubber_is_low():
  def spectrum(name):
    sound = synthesis.strike(
      np.random.default_rng(1),
      synthesis.MATERIALS[name],
      0.5,
      strength=1.0,
      rate=RATE,
    )
    peak = np.argmax(np.abs(np.fft.rfft(sound, RATE)))
    loud = np.flatnonzero(np.abs(sound) > 0.05)[-1] / RATE
    return peak, loud

  assert spectrum("metal")[1] > 3 * spectrum("stone")[1]
  assert spectrum("rubber")[0] < 250 < spectrum("wood")[0]
  assert spectrum("wood")[0] < spectrum("glass")[0]


def test_every_word_can_be_told_from_the_others_across_speakers():
  """A nearest-neighbour recogniser, told one speaker, hears another."""
  words = list(speech.VOCABULARY)[::3]

  def heard(word, voice, seed):
    rng = np.random.default_rng(seed)
    said = speech.schedule(rng, [word], voice, seconds=3.0)
    sound = speech.speak(rng, said, voice, samples=3 * RATE, rate=RATE)
    _, start, end = said.words[0]
    sound = sound[int(start * RATE) : int(end * RATE)]
    sound = sound + 1e-4 * rng.standard_normal(len(sound))
    return librosa.feature.mfcc(
      y=sound, sr=RATE, n_mfcc=13, n_mels=40, n_fft=400, hop_length=160
    )[1:]

  low, high = speech.Voice(110, 1.0, 0.9), speech.Voice(190, 1.1, 0.8)
  known = [heard(word, low, 1) for word in words]
  right = 0
  for word in words:
    new = heard(word, high, 2)
    cost = [
      librosa.sequence.dtw(new, old)[0][-1, -1] / (new.shape[1] + old.shape[1])
      for old in known
    ]
    right += words[int(np.argmin(cost))] == word
  assert right >= 0.8 * len(words)


def test_lips_close_for_m_and_open_for_a():
  voice = speech.Voice(120, 1.0, 1.0)
  said = speech.schedule(
    np.random.default_rng(0), ["my", "move"], voice, seconds=3.0
  )
  middles = {p: (s + e) / 2 for p, s, e in reversed(said.phones)}
  jaw, lips = speech.mouth(
    said, np.array([middles[p] for p in ("m", "aa", "uw")])
  )
  assert jaw[0] < 0.05 and jaw[1] > 0.9
  assert lips[2] > 0.9 > lips[1]
