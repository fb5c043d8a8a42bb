"""Shapes and frames of every action against the times of its events.

`play` plays an action at any times: the same seed plays the same thing, so the
shapes can be read at the very times of the events, and just before and after.
"""

import numpy as np
import pytest

from data_pipelines.scenes import ACTIONS, make_scene
from data_pipelines.scenes.stage import Stage
from data_pipelines.scenes.synthesis import MATERIALS

RATE = 16000
FLOOR = 0.85
SEEDS = range(6)


def play(action, seed, times=(0.0,), seconds=4.0):
  stage = Stage(
    rng=np.random.default_rng(seed),
    times=np.asarray(times, float),
    seconds=seconds,
    rate=RATE,
    samples=round(seconds * RATE),
    light=True,
    floor=FLOOR,
  )
  return ACTIONS[action].play(stage)


def event_times(action, seed):
  return np.sort([event.time for event in play(action, seed).events])


def distances(action, take):
  """Returns a distance [n] for each pair of things that come into contact."""
  shapes = take.shapes
  if action == "strike":
    target, head = shapes[0], shapes[-1]
    return [(target.y - target.ry) - (head.y + head.ry)]
  if action == "drum":
    skin, cymbal, tips = shapes[2], shapes[3], (shapes[5], shapes[7])
    # The tips reach a little into the skin and stop short of the cymbal.
    return [
      (skin.y - tips[0].y) - 0.03,
      (cymbal.y - tips[1].y) - 0.05,
    ]
  if action == "bounce":
    balls = [shape for shape in shapes if shape.kind == "ellipse"]
    return [FLOOR - (ball.y + ball.ry) for ball in balls]
  if action == "collide":
    left, right, *balls = shapes
    gaps = [balls[0].x - balls[0].rx - (left.x + left.rx)]
    gaps += [b.x - b.rx - (a.x + a.rx) for a, b in zip(balls[:-1], balls[1:])]
    return [*gaps, right.x - right.rx - (balls[-1].x + balls[-1].rx)]
  if action == "clap":
    left, right = shapes[1], shapes[3]
    return [(right.x - right.rx) - (left.x + left.rx)]
  if action == "walk":
    ground = shapes[0]
    feet = (shapes[2], shapes[4])
    return [ground.y - ground.ry - (foot.y + foot.ry) for foot in feet]
  if action == "spin":
    wheel = shapes[0]
    pegs = shapes[2 : len(shapes) - 2 : 2]
    top = wheel.y - 0.27
    return [np.hypot(peg.x - wheel.x, peg.y - top) for peg in pegs]
  assert action == "pluck"
  # The plectrum moves away from the strings to the right.
  return [shapes[-1].x - 0.58]


CONTACTS = (
  "strike", "drum", "bounce", "collide", "clap", "walk", "spin", "pluck",
)  # fmt: skip


@pytest.mark.parametrize("action", CONTACTS)
def test_things_touch_at_the_events(action):
  for seed in SEEDS:
    events = event_times(action, seed)
    gap = np.min(distances(action, play(action, seed, events)), axis=0)
    # A hundredth of the picture is less than a pixel of 64.
    np.testing.assert_allclose(gap, 0, atol=0.01)


@pytest.mark.parametrize("action", sorted(set(CONTACTS) - {"walk"}))
def test_things_touch_at_the_events_only(action):
  # The last 80 ms of a collision are not simulated.
  times = np.arange(0, 3.9, 1 / 4000)
  near = 0.001 if action == "collide" else 0.012
  for seed in SEEDS:
    gaps = distances(action, play(action, seed, times))
    if action == "bounce" and len(gaps) == 2:
      continue
    contacts = []
    for gap in gaps:
      assert gap.min() > -near
      touching = np.concatenate([[False], gap < near, [False]]).astype(int)
      starts = np.flatnonzero(np.diff(touching) == 1)
      ends = np.flatnonzero(np.diff(touching) == -1)
      contacts += list(zip(times[starts], times[ends - 1]))
    events = event_times(action, seed)
    for event in events:
      assert any(start <= event <= end for start, end in contacts)
    silent = [
      start
      for start, end in contacts
      if not ((start <= events) & (events <= end)).any()
    ]
    # A ball's last flight, below 0.2 s, ends without a sound.
    assert len(silent) <= (action == "bounce")
    assert all(0 < start - events[-1] < 0.2 for start in silent)
    assert len(contacts) - len(silent) == len(events)


@pytest.mark.parametrize("action", ["strike", "drum", "clap", "pluck"])
def test_things_come_closer_before_a_contact_and_part_after_it(action):
  for seed in SEEDS:
    events = event_times(action, seed)
    before, at, after = (
      np.sort(distances(action, play(action, seed, events + lag)), axis=0)
      for lag in (-0.03, 0.0, 0.03)
    )
    assert (before[0] > at[0] + 0.01).all()
    assert (after[0] > at[0] + 0.01).all()


def test_walking_feet_take_turns_and_land_at_the_steps():
  for seed in SEEDS:
    events = event_times("walk", seed)
    for k, event in enumerate(events):
      times = event + np.array([-0.13, -0.01, 0.0, 0.1])
      gaps = np.array(distances("walk", play("walk", seed, times)))
      swing, stand = gaps[k % 2], gaps[1 - k % 2]
      assert swing[0] > 0.05 and swing[1] > 0.002
      np.testing.assert_allclose(swing[2:], 0, atol=1e-9)
      np.testing.assert_allclose(stand[:3], 0, atol=1e-9)


def test_a_walker_moves_forward_by_equal_steps():
  for seed in SEEDS:
    events = event_times("walk", seed)
    take = play("walk", seed, events)
    feet = np.stack([take.shapes[2].x, take.shapes[4].x])
    landed = feet[np.arange(len(events)) % 2, np.arange(len(events))]
    steps = np.diff(landed)
    np.testing.assert_allclose(steps, steps[0])
    assert 0.05 < abs(steps[0]) < 0.15
    assert 0 < feet.min() and feet.max() < 1


def test_a_rolling_ball_is_over_a_ridge_at_every_bump():
  for seed in SEEDS:
    take = play("roll", seed, event_times("roll", seed))
    ridges = [s for s in take.shapes if s.kind == "box"]
    ball = next(s for s in take.shapes if s.kind == "ellipse")
    gap = np.abs(ball.x[:, None] - [ridge.x for ridge in ridges])
    np.testing.assert_allclose(gap.min(axis=1), 0, atol=2e-3)
    assert 0.1 < ball.x.min() and ball.x.max() < 0.9
    # Each bump has a ridge of its own.
    assert len(set(gap.argmin(axis=1))) == len(take.events)


def test_a_rolling_ball_turns_as_far_as_it_rolls():
  """No slip: the angle of its dots is the distance over the radius."""
  times = np.linspace(0, 3.9, 2000)
  for seed in SEEDS:
    take = play("roll", seed, times)
    shapes = [shape for shape in take.shapes if shape.kind == "ellipse"]
    ball, dot = shapes[0], shapes[1]
    angle = np.unwrap(np.arctan2(dot.y - ball.y, dot.x - ball.x))
    turned, rolled = angle - angle[0], ball.x - ball.x[0]
    # Clockwise on the screen when it rolls to the right.
    np.testing.assert_allclose(turned, rolled / ball.rx, atol=1e-6)


def test_a_bumps_strength_is_the_balls_speed():
  for seed in SEEDS:
    events = play("roll", seed).events
    times = np.array([event.time for event in events])
    before, after = (
      play("roll", seed, times + lag).shapes for lag in (-0.01, 0.01)
    )
    # The ball is painted after the ridges, before its two dots.
    speed = np.abs(after[-3].x - before[-3].x) / 0.02
    np.testing.assert_allclose(
      [event.strength for event in events],
      np.clip(speed / 0.35, 0.45, 1.0),
      atol=0.03,
    )


def test_a_wheel_slows_down_by_constant_friction():
  times = np.linspace(0, 4, 4001)
  for seed in SEEDS:
    take = play("spin", seed, times)
    wheel, peg = take.shapes[0], take.shapes[2]
    angle = np.unwrap(np.arctan2(peg.y - wheel.y, peg.x - wheel.x))
    rate = np.gradient(angle, times)
    assert rate.min() > -1e-6 and 3.9 < rate.max() < 6.6
    slowing = -np.diff(rate)
    # Away from kicks and rest, it loses the same speed in every step.
    steady = slowing[(rate[1:] > 0.1) & (slowing > 0)]
    friction = np.median(steady) * 1000
    assert 1.5 <= friction <= 2.5
    assert (np.abs(steady * 1000 / friction - 1) < 0.05).mean() > 0.98


def test_bounces_lose_the_speed_of_their_material():
  """Flights between bounces shrink by the restitution, which varies by 5 %."""
  checked = 0
  for seed in range(30):
    take = play("bounce", seed)
    materials = {event.material for event in take.events}
    if len(materials) != take.caption.count("ball"):
      continue  # two balls of one material
    for material in materials:
      times = [e.time for e in take.events if e.material == material]
      flights = np.diff(times)
      ratios = flights[1:] / flights[:-1]
      if len(ratios):
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)
        assert abs(ratios[0] / MATERIALS[material].restitution - 1) < 0.051
        checked += 1
  assert checked > 10


def test_a_bounces_strength_is_the_balls_speed():
  """A flight lasts 2 v / g, so strengths fall as the flights before them do."""
  checked = 0
  for seed in range(30):
    take = play("bounce", seed)
    if take.caption.count("ball") > 1:
      continue
    strengths = np.array([event.strength for event in take.events])
    flights = np.diff([event.time for event in take.events])
    assert 0.3 <= strengths.min() and strengths.max() <= 1.0
    free = (strengths[1:] > 0.3) & (strengths[1:] < 1.0)
    scale = (strengths[1:] / flights)[free]
    if len(scale) > 1:
      np.testing.assert_allclose(scale, scale[0], rtol=1e-6)
      checked += 1
  assert checked > 10


def test_a_dropped_ball_falls_with_constant_acceleration():
  for seed in SEEDS:
    first = event_times("bounce", seed)[0]
    # The fall lasts 0.36 s at least.
    times = first - np.linspace(0.3, 0.06, 50)
    gaps = distances("bounce", play("bounce", seed, times))
    gap = min(gaps, key=lambda gap: gap[-1])
    a, b, _ = np.polyfit(times, gap, 2)
    np.testing.assert_allclose(
      gap, np.polyval(np.polyfit(times, gap, 2), times), atol=1e-9
    )
    assert 2 < -2 * a < 12  # gravity
    # It left its holder at rest between 0.36 and 0.5 s before the contact.
    assert 0.355 < first - (-b / (2 * a)) < 0.505


def test_a_drop_reaches_the_water_at_its_event():
  for seed in SEEDS:
    events = event_times("drip", seed)
    for k, event in enumerate(events):
      times = event + np.array([-0.25, -0.05, -1e-6, 1e-6, 0.1])
      shapes = play("drip", seed, times).shapes
      water, (drop, *droplets) = shapes[2], shapes[3 + 3 * k : 6 + 3 * k]
      surface = water.y[2] - water.ry[2]
      assert np.all(np.diff(drop.y[:3]) > 0)
      assert abs(drop.y[2] - surface) < 0.03
      np.testing.assert_array_equal(drop.alpha, [1, 1, 1, 0, 0])
      for droplet in droplets:
        np.testing.assert_array_equal(droplet.alpha, [0, 0, 0, 1, 1])
        assert droplet.y[4] < droplet.y[3]  # it flies up


def test_a_rattle_turns_at_its_events():
  for seed in SEEDS:
    events = event_times("shake", seed)
    before, at, after = (
      play("shake", seed, events + lag).shapes[1].x
      for lag in (-0.02, 0.0, 0.05)
    )
    side = np.sign(at - 0.5)
    assert (side[1:] == -side[:-1]).all()
    np.testing.assert_allclose(np.abs(at - 0.5), 0.24, atol=0.01)
    # Fast until the event, nearly still after it.
    assert (side * (at - before) > 0.05).all()
    assert (np.abs(after - at) < 0.04).all()


def test_a_saw_sets_off_at_its_events():
  for seed in SEEDS:
    events = event_times("saw", seed)
    before, at, after = (
      play("saw", seed, events + lag).shapes[0].x for lag in (-0.02, 0.0, 0.02)
    )
    np.testing.assert_allclose(before, at, atol=1e-9)
    moved = after - at
    assert (np.abs(moved) > 0.01).all()
    assert (np.sign(moved[1:]) == -np.sign(moved[:-1])).all()


def test_a_plectrum_is_at_the_string_that_swings_after_it():
  for seed in SEEDS:
    events = event_times("pluck", seed)
    pick = play("pluck", seed, events).shapes[-1]
    later = play("pluck", seed, events + 0.03).shapes
    rest = np.array([0.72, 0.56, 0.4, 0.24])
    # Each string is two bars that meet where it is plucked.
    middles = np.stack(
      [later[3 + 2 * s].y + later[3 + 2 * s].rx * 0 for s in range(4)]
    )
    swing = np.abs(middles - rest[:, None])
    string = swing.argmax(axis=0)
    np.testing.assert_allclose(pick.y + 0.05, rest[string], atol=1e-9)


def test_liquid_flows_from_its_event_on_and_fills_the_glass():
  for seed in SEEDS:
    for event in event_times("pour", seed):
      times = event + np.array([-0.3, -1e-4, 1e-4, 0.3, 0.5])
      shapes = play("pour", seed, times).shapes
      liquid, stream, jug = shapes[1:]
      np.testing.assert_array_equal(stream.alpha, [0, 0, 1, 1, 1])
      level = FLOOR - (liquid.y - liquid.ry)
      assert level[0] == level[1] and (np.diff(level[1:]) > 0).all()
      # The jug is tipped before it flows.
      assert jug.angle[1] < jug.angle[0] - 0.5
      glass = shapes[0]
      assert level[-1] < 2 * glass.ry


def test_a_ball_in_the_frames_is_lowest_at_its_bounces():
  """Read from the pixels alone: the lowest row that differs from the wall."""
  checked = 0
  for seed in range(6):
    scene = make_scene(seed, action="bounce", fps=250)
    if "and a" in scene.caption or "behind" in scene.caption:
      continue
    frames = scene.frames.astype(float)
    still = np.median(frames, axis=0)
    moving = (np.abs(frames - still).max(axis=-1) > 40).any(axis=2)
    lowest = np.array([np.flatnonzero(row).max(initial=0) for row in moving])
    times = np.array([e.time for e in scene.events if e.on_screen][:4])
    at, before, after = (
      lowest[np.round((times + lag) * 250).astype(int)]
      for lag in (0, -0.08, 0.08)
    )
    assert np.ptp(at) <= 1
    assert (at > before).all() and (at > after).all()
    checked += 1
  assert checked >= 3


def test_hands_in_the_frames_close_at_the_claps():
  """The pixel between the hands has the colour of skin at the claps only."""
  for seed in range(5):
    scene = make_scene(seed, action="clap", fps=100)
    between = scene.frames[:, 26:38, 31:33].astype(float).mean(axis=(1, 2))
    open_hands = np.median(between, axis=0)
    closed = np.abs(between - open_hands).max(axis=1)
    wait = np.abs(
      scene.frame_times[:, None]
      - np.array([e.time for e in scene.events if e.on_screen])
    ).min(axis=1)
    at, away = closed[wait < 0.006], closed[wait > 0.06]
    assert at.min() > 3 * away.max()


@pytest.mark.parametrize(
  "action", ["strike", "shake", "clap", "bounce", "walk"]
)
def test_the_picture_moves_just_before_a_contact(action):
  near, far = [], []
  for seed in SEEDS:
    scene = make_scene(seed, action=action, size=32, fps=50)
    gray = scene.frames.astype(float).mean(axis=-1)
    motion = np.abs(np.diff(gray, axis=0)).mean(axis=(1, 2))
    middle = scene.frame_times[:-1] + 0.01
    events = np.array([e.time for e in scene.events if e.on_screen])
    wait = events[None, :] - middle[:, None]
    soon = ((wait > 0) & (wait < 0.08)).any(axis=1)
    near.append(motion[soon].mean())
    far.append(motion[~soon].mean())
  assert np.mean(near) > 2 * np.mean(far)


@pytest.mark.parametrize("action", ACTIONS)
def test_everything_seen_is_finite_and_its_colours_in_range(action):
  times = np.linspace(0, 4, 41)
  for seed in SEEDS:
    for shape in play(action, seed, times).shapes:
      for value in (shape.x, shape.y, shape.rx, shape.ry, shape.angle):
        assert np.isfinite(value).all()
      assert np.min(shape.rx) > 0 and np.min(shape.ry) > 0
      assert 0 <= np.min(shape.alpha) and np.max(shape.alpha) <= 1
      assert all(0 <= value <= 1 for value in shape.surface.colour)
