"""Trajectories against closed forms and against SciPy's integrators."""

import numpy as np
import pytest
from scipy import integrate, signal

from data_pipelines.scenes import physics

BALL = dict(gravity=6.0, restitution=0.7)


def _rng(seed=0):
  return np.random.default_rng(seed)


def test_irregular_times_keep_their_distance_and_interval():
  rng = _rng()
  for _ in range(20):
    times = physics.irregular_times(rng, 5, first=0.3, last=3.8, gap=0.3)
    assert len(times) == 5 and times[0] >= 0.3 and times[-1] <= 3.8
    assert np.diff(times).min() >= 0.3


def test_times_that_do_not_fit_are_left_out():
  for last, number in ((-1.0, 0), (0.0, 1), (0.79, 2), (0.81, 3), (9.0, 9)):
    times = physics.irregular_times(_rng(), 9, first=0, last=last, gap=0.4)
    assert len(times) == number


def test_irregular_times_are_uniform_over_all_sets_that_fit():
  """Rejection sampling from the same set has the same distribution."""
  rng, first, last, gap = _rng(1), 0.0, 2.0, 0.5
  drawn = np.array(
    [
      physics.irregular_times(rng, 3, first=first, last=last, gap=gap)
      for _ in range(4000)
    ]
  )
  cloud = np.sort(rng.uniform(first, last, (40000, 3)), axis=1)
  cloud = cloud[np.diff(cloud, axis=1).min(axis=1) >= gap]
  levels = [0.1, 0.5, 0.9]
  np.testing.assert_allclose(
    np.quantile(drawn, levels, axis=0),
    np.quantile(cloud, levels, axis=0),
    atol=0.04,
  )


def test_time_since_and_until_events():
  times, events = np.array([0.0, 1.0, 1.5, 3.0]), np.array([1.0, 2.5])
  np.testing.assert_allclose(
    physics.since(times, events), [np.inf, 0.0, 0.5, 0.5]
  )
  # At an event the next one counts.
  np.testing.assert_allclose(
    physics.until(times, events), [1.0, 1.5, 1.0, np.inf]
  )


def test_a_tool_touches_down_at_its_hits_and_only_there():
  hits, strengths = np.array([0.5, 1.3, 2.0]), np.array([0.6, 1.0, 0.8])
  np.testing.assert_allclose(physics.lift(hits, hits, strengths), 0, atol=1e-9)
  times = np.linspace(0, 3, 3001)
  height = physics.lift(times, hits, strengths)
  assert height.min() >= 0
  near = np.abs(times[:, None] - hits).min(axis=1) < 0.005
  assert height[~near].min() > 0.01
  assert np.abs(np.diff(height)).max() < 0.015  # no jump


def test_a_tool_follows_its_curves_between_hits():
  hits, strengths = np.array([1.0, 3.0]), np.array([1.0, 0.5])
  after = np.linspace(1.0, 2.5, 50)
  np.testing.assert_allclose(
    physics.lift(after, hits, strengths, rise=0.2),
    0.5 * (1 - np.exp(-(after - 1.0) / 0.2)),
  )
  before = np.linspace(2.85, 3.0, 50)
  np.testing.assert_allclose(
    physics.lift(before, hits, strengths, fall=0.15, rise=0.01),
    0.5 * np.sin(0.5 * np.pi * (3.0 - before) / 0.15),
    atol=1e-9,
  )


def test_a_harder_hit_is_faster_at_contact():
  hits, strengths = np.array([1.0, 2.0]), np.array([0.5, 1.0])
  speeds = [
    (physics.lift(np.array([h - 1e-5]), hits, strengths)[0]) / 1e-5
    for h in hits
  ]
  # The slope of strength sin(pi t / 2 fall) at t = 0, with fall = 0.16 s.
  np.testing.assert_allclose(speeds, strengths * np.pi / 2 / 0.16, rtol=1e-3)


def test_a_tool_without_hits_stays_up():
  times = np.linspace(0, 1, 5)
  np.testing.assert_array_equal(
    physics.lift(times, np.zeros(0), np.zeros(0)), np.ones(5)
  )


def test_a_struck_object_swings_like_a_damped_oscillator():
  """The impulse response of x'' + 2 a x' + (a^2 + w^2) x = w strength."""
  frequency, decay = 5.0, 0.15
  hits, strengths = np.array([0.2, 0.7]), np.array([0.6, 1.0])
  times = np.linspace(0, 2, 2001)
  a, w = 1 / decay, 2 * np.pi * frequency
  system = signal.lti([w], [1.0, 2 * a, a * a + w * w])
  expected = np.zeros_like(times)
  for hit, strength in zip(hits, strengths):
    _, response = signal.impulse(system, T=times)
    start = int(round(hit * 1000))
    expected[start:] += strength * response[: len(times) - start]
  swing = physics.jolt(times, hits, strengths, frequency=frequency, decay=decay)
  np.testing.assert_allclose(swing, expected, atol=1e-9)
  assert not swing[:201].any()


def test_a_dropped_ball_touches_the_floor_at_its_bounces_only():
  hits, speeds = physics.bounces(0.5, 0.6, end=4.0, **BALL)
  np.testing.assert_allclose(hits[0], 0.5 + np.sqrt(2 * 0.6 / 6.0))
  np.testing.assert_allclose(speeds[0], np.sqrt(2 * 6.0 * 0.6))
  np.testing.assert_allclose(speeds[1:] / speeds[:-1], 0.7)
  np.testing.assert_allclose(np.diff(hits), 2 * 0.7 * speeds[:-1] / 6.0)
  height = physics.bounce_height(hits, 0.5, 0.6, hits, speeds, **BALL)
  np.testing.assert_allclose(height, 0, atol=1e-9)
  between = 0.5 * (hits[1:] + hits[:-1])
  height = physics.bounce_height(between, 0.5, 0.6, hits, speeds, **BALL)
  # Half way through a flight the ball is at its highest point, v^2 / 2 g.
  np.testing.assert_allclose(height, speeds[1:] ** 2 / 12.0)


def test_bounces_agree_with_an_integrator_that_searches_for_contacts():
  start, fall, end = 0.3, 0.5, 2.5
  hits, speeds = physics.bounces(start, fall, end=end, **BALL)

  def contact(t, y):
    return y[0] if y[1] < 0 else 1.0

  contact.terminal, contact.direction = True, -1
  now, state, contacts = start, [fall, 0.0], []
  while len(contacts) < len(hits):
    run = integrate.solve_ivp(
      lambda t, y: [y[1], -BALL["gravity"]],
      (now, end + 1),
      state,
      events=contact,
      rtol=1e-9,
      atol=1e-9,
      max_step=0.01,
    )
    now, speed = run.t[-1], -run.y[1, -1]
    contacts.append((now, speed))
    state = [1e-9, BALL["restitution"] * speed]
  np.testing.assert_allclose(np.array(contacts).T, [hits, speeds], atol=1e-5)


def test_a_ball_hangs_before_its_drop_and_rests_at_its_end():
  hits, speeds = physics.bounces(0.5, 0.6, end=9.0, shortest=0.2, **BALL)
  # The last contact is the first whose flight would be shorter than 0.2 s.
  flights = 2 * 0.7 * speeds / 6.0
  assert flights[-1] < 0.2 <= flights[-2]
  height = physics.bounce_height(
    np.array([0.0, 0.5, 0.7, 8.0]), 0.5, 0.6, hits, speeds, **BALL
  )
  np.testing.assert_allclose(height, [0.6, 0.6, 0.6 - 3.0 * 0.04, 0], atol=1e-9)


def test_contacts_after_the_end_are_left_out():
  whole, _ = physics.bounces(0.0, 0.6, end=9.0, **BALL)
  hits, speeds = physics.bounces(0.0, 0.6, end=whole[2], **BALL)
  np.testing.assert_allclose(hits, whole[:2])
  none, _ = physics.bounces(1.0, 0.6, end=1.2, **BALL)
  assert len(none) == 0
  height = physics.bounce_height(np.array([1.1]), 1.0, 0.6, none, none, **BALL)
  np.testing.assert_allclose(height, 0.6 - 0.5 * 6.0 * 0.01)


def test_crossings_are_where_the_path_passes_the_levels():
  grid = np.linspace(0, 2, 2001)
  levels = np.array([1.0, 0.25, 9.0, 0.0])
  times, speeds = physics.crossings(grid**2, grid, levels)
  # x = t^2 passes x at sqrt(x) with speed 2 sqrt(x).
  np.testing.assert_allclose(times, [0.5, 1.0], atol=1e-3)
  np.testing.assert_allclose(speeds, [1.0, 2.0], atol=1e-2)


def test_a_path_that_rests_on_a_level_passes_it_once():
  grid = np.linspace(0, 3, 3001)
  path = np.where(grid < 1, grid, np.where(grid < 2, 1.0, grid - 1))
  times, _ = physics.crossings(path, grid, np.array([0.5, 1.0, 1.5]))
  assert len(times) == 3
  np.testing.assert_allclose(times[[0, 2]], [0.5, 2.5], atol=2e-3)
  assert 1.0 - 2e-3 <= times[1] <= 2.0 + 2e-3


def _collide(restitution=1.0, end=4.0, **options):
  x, v = np.array([0.3, 0.6]), np.array([0.4, -0.2])
  masses, radii = np.array([1.0, 2.0]), np.array([0.05, 0.08])
  run = physics.track_collisions(
    x, v, masses, radii, walls=(0, 1), restitution=restitution, end=end,
    **options,
  )  # fmt: skip
  return x, v, masses, radii, *run


def test_elastic_collisions_keep_momentum_and_energy():
  _, v, masses, _, contacts, _, _, speeds = _collide()
  assert contacts[0][1] == 0  # the two balls meet first
  np.testing.assert_allclose(contacts[0][0], (0.3 - 0.13) / 0.6)
  np.testing.assert_allclose(speeds[1] @ masses, v @ masses)
  energy = speeds**2 @ masses
  np.testing.assert_allclose(energy, energy[0])


def test_a_row_of_discs_hands_its_momentum_on():
  """Equal elastic discs exchange velocities; a heavy one drives a light one."""
  x, radii = np.array([0.2, 0.5, 0.8]), np.full(3, 0.05)
  row = lambda masses: physics.track_collisions(
    x, np.array([0.5, 0.0, 0.0]), masses, radii, walls=(0, 9),
    restitution=1.0, end=2.0,
  )  # fmt: skip
  contacts, _, _, speeds = row(np.ones(3))
  assert [left for _, left, _ in contacts] == [0, 1]
  np.testing.assert_allclose([time for time, _, _ in contacts], [0.4, 0.8])
  np.testing.assert_allclose(speeds[1:], [[0, 0.5, 0], [0, 0, 0.5]], atol=1e-12)
  masses = np.array([4.0, 2.0, 1.0])
  _, _, _, speeds = row(masses)
  np.testing.assert_allclose(speeds[:3] @ masses, speeds[0] @ masses)
  # 2 m1 / (m1 + m2) of the speed, twice.
  np.testing.assert_allclose(speeds[2, 2], 0.5 * (8 / 6) * (4 / 3))


@pytest.mark.parametrize("restitution", [0.6, 0.9])
def test_a_contact_multiplies_the_closing_speed_by_the_restitution(restitution):
  _, v, masses, _, contacts, _, _, speeds = _collide(restitution)
  assert len(contacts) > 2
  for k, (_, left, closing) in enumerate(contacts):
    # Walls have no velocity.
    before = np.concatenate([[0.0], speeds[k], [0.0]])[left + 1 : left + 3]
    after = np.concatenate([[0.0], speeds[k + 1], [0.0]])[left + 1 : left + 3]
    np.testing.assert_allclose(before[0] - before[1], closing)
    np.testing.assert_allclose(after[1] - after[0], restitution * closing)
  energy = speeds**2 @ masses
  assert (np.diff(energy) < 0).all()


def test_discs_stay_apart_and_between_the_walls():
  _, _, _, radii, _, knots, places, speeds = _collide()
  times = np.linspace(0, 3.99, 400)
  path = physics.along_knots(times, knots, places, speeds)
  assert (path[:, 1] - path[:, 0] >= radii.sum() - 1e-9).all()
  assert path.min() >= 0.05 - 1e-9 and path[:, 1].max() <= 0.92 + 1e-9


def test_discs_move_as_a_small_step_simulation_says():
  x, v, masses, radii, contacts, knots, places, speeds = _collide(0.8)
  step, now, times, path = 4e-5, 0.0, [], []
  x, v = x.copy(), v.copy()
  for k in range(100000):
    if k % 5000 == 0:
      times.append(now)
      path.append(x.copy())
    x, now = x + v * step, now + step
    if x[0] < radii[0] and v[0] < 0:
      v[0] *= -0.8
    if x[1] > 1 - radii[1] and v[1] > 0:
      v[1] *= -0.8
    if x[1] - x[0] < radii.sum() and v[0] > v[1]:
      mean, closing = v @ masses / masses.sum(), v[0] - v[1]
      v[0] = mean - 0.8 * closing * masses[1] / masses.sum()
      v[1] = mean + 0.8 * closing * masses[0] / masses.sum()
  assert len(contacts) >= 3
  np.testing.assert_allclose(
    physics.along_knots(np.array(times), knots, places, speeds),
    path,
    atol=2e-4,
  )


def test_the_simulation_stops_at_its_end_and_at_its_limit():
  contacts = _collide()[4]
  times = [time for time, _, _ in contacts]
  assert times == sorted(times) and times[-1] < 4.0
  assert _collide(end=times[1])[4] == contacts[:1]
  assert _collide(limit=2)[4] == contacts[:2]


def test_strokes_run_back_and_forth_and_slow_down():
  starts, durations = np.array([0.5, 1.5]), np.array([0.4, 0.2])
  times = np.array([0.0, 0.5, 0.7, 0.9, 1.4, 1.5, 1.6, 1.7, 2.0])
  half = np.sin(np.pi / 4)
  np.testing.assert_allclose(
    physics.stroke_path(times, starts, durations),
    [0, 0, half, 1, 1, 1, 1 - half, 0, 0],
    atol=1e-9,
  )
