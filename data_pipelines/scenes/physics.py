"""Trajectories in closed form, and the times of their contacts.

Every trajectory is a pure function of time, so that each frame shows it at the
frame's own time and each sound starts at the sample nearest to its contact.
Lengths are in picture widths (x to the right, y downwards), times in seconds,
speeds in picture widths per second.

Free fall from height h under gravity g: contact after sqrt(2 h / g) seconds at
speed v = sqrt(2 g h). A contact with restitution e turns v into e v, and the
next flight lasts 2 e v / g. Two discs with masses m1, m2 that close in at speed
c exchange the impulse (1 + e) c m1 m2 / (m1 + m2).
"""

import numpy as np

Array = np.ndarray


def irregular_times(
  rng: np.random.Generator, count: int, *, first: float, last: float, gap: float
) -> Array:
  """Draws `count` sorted random times in [first, last], `gap` apart at least.

  The distribution is uniform over all such sets: sorted uniform draws on the
  interval less its gaps, which are then put back. Fewer are returned where
  they do not fit, none if `last` < `first`.
  """
  room = last - first
  if room < 0:
    return np.zeros(0)
  count = min(count, int(room / gap) + 1)
  slack = room - gap * (count - 1)
  draws = np.sort(rng.uniform(0.0, slack, count))
  return first + draws + gap * np.arange(count)


def since(times: Array, events: Array) -> Array:
  """Returns seconds [n] since the latest event, inf before the first."""
  edges = np.concatenate([[-np.inf], events])
  return times - edges[np.searchsorted(events, times, side="right")]


def until(times: Array, events: Array) -> Array:
  """Returns seconds [n] until the next event, inf after the last."""
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
  """Returns the height [n] of a tool, 0..1, that is zero exactly at each hit.

  Between two hits the tool rises as 1 - exp(-t / rise) and falls in the last
  `fall` seconds as a quarter sine, so that it is fastest at the contact. Height
  and speed are proportional to the strength [k], 0..1, of the next hit. Without
  hits it is 1 everywhere.
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
  """Returns the damped oscillation [n] of a struck object.

    sum_k strength_k exp(-(t - hit_k) / decay) sin(2 pi frequency (t - hit_k))

  over the hits before t; zero at an isolated hit. `decay` is in seconds,
  `frequency` in Hz.
  """
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
  """Returns times [k] and speeds [k] of a dropped ball's contacts with a floor.

  The ball is dropped at `start` from `height`; the speeds are those just before
  each contact. Contacts from `end` on, or after a flight of less than
  `shortest`, are left out.
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
  """Returns the height [n] of a dropped ball's lowest point above the floor.

  The arguments are those and the results of `bounces`. After the last contact
  the ball makes one more flight and rests on the floor, at 0.
  """
  drop = height - 0.5 * gravity * np.maximum(times - start, 0.0) ** 2
  if not len(hits):
    return np.maximum(drop, 0.0)
  index = np.searchsorted(hits, times, side="right") - 1
  lag = times - hits[np.maximum(index, 0)]
  speed = speeds[np.maximum(index, 0)] * restitution
  flight = speed * lag - 0.5 * gravity * lag**2
  return np.maximum(np.where(index < 0, drop, flight), 0.0)


def crossings(
  path: Array, grid: Array, levels: Array, *, end: float = np.inf
) -> tuple[Array, Array]:
  """Returns times before `end`, and speeds, at which a path passes levels.

  The path [m] at the times `grid` [m] does not decrease; levels [k] outside its
  range are left out.
  """
  inside = levels[(levels > path[0]) & (levels < path[-1])]
  steady = path + 1e-9 * np.arange(len(path))
  times = np.sort(np.interp(inside, steady, grid))
  times = times[times < end]
  return times, np.interp(times, grid, np.gradient(path, grid))


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
  """Simulates discs on a line between two walls, from contact to contact.

  Args:
    positions: centres [k] from left to right.
    velocities: [k], positive to the right.
    masses: [k], in any unit.
    radii: [k].
    walls: positions of the left and the right wall.
    restitution: ratio of the closing speeds after and before a contact.
    end: time at which the simulation ends.
    limit: largest number of contacts.

  Returns:
    The contacts (time, i, closing speed), with i the disc on the left, -1 for
    the left wall and k - 1 for a contact with the right one; the knots [m], 0
    and the times of the contacts; positions [m, k] at, velocities [m, k] just
    after the knots.
  """
  x, v = positions.astype(float), velocities.astype(float)
  count, now = len(x), 0.0
  contacts, history = [], [(now, x.copy(), v.copy())]
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
    history.append((now, x.copy(), v.copy()))
  return contacts, *map(np.array, zip(*history))


def along_knots(
  times: Array, knots: Array, positions: Array, velocities: Array
) -> Array:
  """Returns positions [n, k] at times [n] of discs from `track_collisions`."""
  index = np.searchsorted(knots, times, side="right") - 1
  lag = (times - knots[index])[:, None]
  return positions[index] + velocities[index] * lag


def stroke_path(times: Array, starts: Array, durations: Array) -> Array:
  """Returns the position [n], 0..1, of a tool that strokes back and forth.

  Stroke k moves as a quarter sine, sin(pi u / 2) of the elapsed share u: it
  starts at full speed and slows down to rest at the other end. It lasts from
  `starts` [k] for `durations` [k].
  """
  position = np.zeros_like(times)
  for k, (start, duration) in enumerate(zip(starts, durations)):
    u = np.clip((times - start) / duration, 0.0, 1.0)
    position += (1 - 2 * (k % 2)) * np.sin(0.5 * np.pi * u)
  return position
