"""Motion in closed form: where things are at any time, and when they touch.

Every trajectory is a pure function of time, so a picture can be drawn at the
true time of each frame and a sound placed at the sample of its event. Lengths
are in picture widths (x to the right, y downwards), times in seconds.
"""

import numpy as np

Array = np.ndarray


def irregular_times(
  rng: np.random.Generator, count: int, *, first: float, last: float, gap: float
) -> Array:
  """`count` sorted random times in [first, last], at least `gap` apart.

  Uniform over all such sets: sorted uniform draws on the interval that is left
  when the gaps are taken out. Fewer times come back where `count` do not fit.
  """
  room = last - first
  if room < 0:
    return np.zeros(0)
  count = min(count, int(room / gap) + 1)
  slack = room - gap * (count - 1)
  draws = np.sort(rng.uniform(0.0, slack, count))
  return first + draws + gap * np.arange(count)


def since(times: Array, events: Array) -> Array:
  """Seconds since the latest event at each time [n]; inf before the first."""
  edges = np.concatenate([[-np.inf], events])
  return times - edges[np.searchsorted(events, times, side="right")]


def until(times: Array, events: Array) -> Array:
  """Seconds until the next event at each time [n]; inf after the last."""
  edges = np.concatenate([events, [np.inf]])
  return edges[np.searchsorted(events, times, side="right")] - times


def lift(
  times: Array,
  hits: Array,
  strengths: Array,
  *,
  fall: float = 0.16,
  rise: float = 0.14,
) -> Array:
  """Height [n] of a tool that touches down (0) exactly at each hit.

  Between two hits the tool rises as 1 - exp(-t / rise) and falls in the last
  `fall` seconds as a quarter sine, so its speed is greatest at the touch. The
  height it reaches, and so the speed, is the strength of the hit to come.
  """
  if not len(hits):
    return np.ones_like(times)
  index = np.minimum(np.searchsorted(hits, times), len(hits) - 1)
  up = 1.0 - np.exp(-since(times, hits) / rise)
  down = np.sin(0.5 * np.pi * np.clip(until(times, hits) / fall, 0.0, 1.0))
  return strengths[index] * np.minimum(up, down)


def jolt(
  times: Array,
  hits: Array,
  strengths: Array,
  *,
  frequency: float = 7.0,
  decay: float = 0.09,
) -> Array:
  """Damped oscillation [n] of whatever is struck; 0 at the moment of a hit."""
  lag = times[:, None] - np.asarray(hits)[None, :]
  ring = np.exp(-np.maximum(lag, 0) / decay) * np.sin(
    2 * np.pi * frequency * lag
  )
  return (np.where(lag > 0, ring, 0.0) * strengths).sum(axis=1)


def bounces(
  start: float,
  height: float,
  *,
  gravity: float,
  restitution: float,
  end: float,
  shortest: float = 0.2,
) -> tuple[Array, Array]:
  """Contact times [k] and impact speeds [k] of a ball dropped at `start`.

  After each contact the speed is multiplied by `restitution`; the ball rests
  once a flight would be shorter than `shortest`. Contacts after `end` drop out.
  """
  speed = np.sqrt(2 * gravity * height)
  now = start + speed / gravity
  hits, speeds = [], []
  while now < end:
    hits.append(now)
    speeds.append(speed)
    speed *= restitution
    flight = 2 * speed / gravity
    if flight < shortest:
      break
    now += flight
  return np.array(hits), np.array(speeds)


def bounce_height(
  times: Array,
  start: float,
  height: float,
  hits: Array,
  speeds: Array,
  *,
  gravity: float,
  restitution: float,
) -> Array:
  """Height [n] over the floor of the ball of `bounces`."""
  drop = height - 0.5 * gravity * np.maximum(times - start, 0.0) ** 2
  if not len(hits):
    return np.maximum(drop, 0.0)
  index = np.searchsorted(hits, times, side="right") - 1
  lag = times - hits[np.maximum(index, 0)]
  speed = speeds[np.maximum(index, 0)] * restitution
  flight = speed * lag - 0.5 * gravity * lag**2
  return np.maximum(np.where(index < 0, drop, flight), 0.0)


def crossings(
  path: Array, grid: Array, levels: Array
) -> tuple[Array, Array, Array]:
  """Times, speeds and level indices where a rising path passes each level.

  `path` [m] is non-decreasing, sampled at `grid` [m] (seconds); levels outside
  its range are left out.
  """
  inside = (levels > path[0]) & (levels < path[-1])
  index = np.flatnonzero(inside)
  steady = path + 1e-9 * np.arange(len(path))
  times = np.interp(levels[index], steady, grid)
  speeds = np.interp(times, grid, np.gradient(path, grid))
  order = np.argsort(times)
  return times[order], speeds[order], index[order]


def track_collisions(
  positions: Array,
  velocities: Array,
  masses: Array,
  radii: Array,
  *,
  walls: tuple[float, float],
  restitution: float,
  end: float,
  limit: int = 64,
) -> tuple[list[tuple[float, int, float]], Array, Array, Array]:
  """Discs on a line between two walls, from contact to contact.

  Args:
    positions: centres [k] from left to right.
    velocities: [k], widths a second.
    masses: [k]. radii: [k].
    walls: left and right wall.
    restitution: of every contact.
    end: seconds simulated. limit: at most so many contacts.

  Returns:
    contacts (time, i, closing speed), where i is the left partner, -1 for the
    left wall and k - 1 for the right wall; and knots [m], positions [m, k] and
    velocities [m, k] just after each knot.
  """
  x, v = positions.astype(float), velocities.astype(float)
  count, now = len(x), 0.0
  contacts, knots, states, speeds = [], [0.0], [x.copy()], [v.copy()]
  while now < end and len(contacts) < limit:
    left = np.concatenate([[walls[0]], x + radii])
    right = np.concatenate([x - radii, [walls[1]]])
    closing = np.concatenate([[0.0], v]) - np.concatenate([v, [0.0]])
    gap = np.maximum(right - left, 0.0)
    wait = np.where(closing > 1e-6, gap / np.maximum(closing, 1e-6), np.inf)
    pick = int(np.argmin(wait))
    if now + wait[pick] >= end:
      break
    now += wait[pick]
    x = x + v * wait[pick]
    i = pick - 1
    contacts.append((now, i, float(closing[pick])))
    if i < 0:
      v[0] *= -restitution
    elif i == count - 1:
      v[-1] *= -restitution
    else:
      impulse = (1 + restitution) * closing[pick]
      total = masses[i] + masses[i + 1]
      v[i] -= impulse * masses[i + 1] / total
      v[i + 1] += impulse * masses[i] / total
    knots.append(now)
    states.append(x.copy())
    speeds.append(v.copy())
  return contacts, np.array(knots), np.array(states), np.array(speeds)


def along_knots(
  times: Array, knots: Array, positions: Array, velocities: Array
) -> Array:
  """Positions [n, k] at `times` of the discs of `track_collisions`."""
  index = np.searchsorted(knots, times, side="right") - 1
  lag = (times - knots[index])[:, None]
  return positions[index] + velocities[index] * lag


def stroke_path(
  times: Array, starts: Array, durations: Array, *, attack: float = 0.008
) -> tuple[Array, Array]:
  """Back-and-forth strokes: position in [0, 1] and speed, each [n].

  Stroke k runs from one end to the other, the first from 0 to 1, the next back.
  It sets off within `attack` seconds and slows down along a half cosine.
  """
  position, speed = np.zeros_like(times), np.zeros_like(times)
  for k, (start, duration) in enumerate(zip(starts, durations)):
    u = np.clip((times - start) / duration, 0.0, 1.0)
    progress = np.sin(0.5 * np.pi * u)
    position += (1 - 2 * (k % 2)) * progress
    set_off = 1.0 - np.exp(-np.maximum(times - start, 0.0) / attack)
    running = (times >= start) & (times < start + duration)
    speed += running * set_off * np.cos(0.5 * np.pi * u) / duration
  return position, speed
