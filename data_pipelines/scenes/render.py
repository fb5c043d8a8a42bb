"""Renders anti-aliased shapes into all frames of a clip at once.

A shape is a signed distance d in pixels (negative inside); it covers
clip(1/2 - d, 0, 1) of a pixel. Its position and size are numbers, or arrays
with one value per frame; only the pixels of its bounding box are computed.
Distance functions: https://iquilezles.org/articles/distfunctions2d/; for the
ellipse the first-order approximation k0 (k0 - 1) / k1 with

  k0 = |(x / rx, y / ry)|,  k1 = |(x / rx^2, y / ry^2)|.

Coordinates are in picture widths: x to the right, y downwards, (0, 0) is the
top left corner. Angles are in radians, clockwise on the screen.
"""

import dataclasses

import numpy as np

Array = np.ndarray
Value = float | Array


@dataclasses.dataclass(frozen=True)
class Surface:
  """Colour and texture of a shape.

  Attributes:
    colour: red, green and blue in 0..1.
    texture: `plain` or a key of `_TEXTURES`.
    alpha: opacity in 0..1.
    outline: colour of the edge, about one pixel wide; None for no outline.
  """

  colour: tuple[float, float, float]
  texture: str = "plain"
  alpha: float = 1.0
  outline: tuple[float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Shape:
  """An ellipse or a box with rounded corners.

  Numbers hold for the whole clip, arrays [n] have one value per frame.

  Attributes:
    kind: `ellipse` or `box`.
    x: centre from the left edge.
    y: centre from the top edge.
    rx: half width before rotation.
    ry: half height before rotation.
    surface: colour and texture.
    angle: rotation.
    round: corner radius of a box.
    alpha: opacity in 0..1 (times the surface's); 0 hides the shape.
  """

  kind: str
  x: Value
  y: Value
  rx: Value
  ry: Value
  surface: Surface
  angle: Value = 0.0
  round: float = 0.0
  alpha: Value = 1.0

  @property
  def static(self) -> bool:
    """Whether the shape is the same in every frame."""
    values = (self.x, self.y, self.rx, self.ry, self.angle, self.alpha)
    return all(np.ndim(value) == 0 for value in values)


def disc(
  x: Value, y: Value, radius: Value, surface: Surface, *, alpha: Value = 1.0
) -> Shape:
  """Returns a circle with centre (x, y)."""
  return Shape("ellipse", x, y, radius, radius, surface, alpha=alpha)


def bar(
  x0: Value, y0: Value, x1: Value, y1: Value, radius: float, surface: Surface
) -> Shape:
  """Returns a rod with round ends (x0, y0) and (x1, y1), 2 `radius` thick."""
  dx, dy = np.subtract(x1, x0), np.subtract(y1, y0)
  length = 0.5 * np.hypot(dx, dy) + radius
  x, y, angle = 0.5 * np.add(x0, x1), 0.5 * np.add(y0, y1), np.arctan2(dy, dx)
  return Shape("box", x, y, length, radius, surface, angle, radius)


def render(shapes: list[Shape], background: Array, *, frames: int) -> Array:
  """Paints shapes from back to front over a background [size, size, 3] in 0..1.

  Returns:
    uint8 [frames, size, size, 3].
  """
  split = next((i for i, s in enumerate(shapes) if not s.static), len(shapes))
  still = np.ascontiguousarray(background.transpose(2, 0, 1)[:, None], "f4")
  for shape in shapes[:split]:
    _paint(still, shape)
  canvas = np.repeat(still, frames, axis=1)
  for shape in shapes[split:]:
    _paint(canvas, shape)
  canvas *= 255.0
  canvas += 0.5
  return np.ascontiguousarray(canvas.astype(np.uint8).transpose(1, 2, 3, 0))


def _paint(canvas: Array, shape: Shape) -> None:
  """Blends a shape into planes [3, n, size, size], in place.

  Distances are computed on the shape's bounding box; everything after that only
  on the k covered pixels, as flat arrays [k].
  """
  (_, frames, size, _), surface = canvas.shape, shape.surface
  values = (shape.x, shape.y, shape.rx, shape.ry, shape.angle, shape.alpha)
  values = [np.broadcast_to(np.asarray(v, "f4"), frames) for v in values]
  x, y, rx, ry, angle, alpha = (v.reshape(frames, 1, 1) for v in values)
  x, y, rx, ry = x * size, y * size, rx * size, ry * size
  alpha = alpha * surface.alpha
  left, top, dx, dy = _patch(x, y, rx, ry, angle, size)
  if np.any(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
  distance = _distance(shape, dx, dy, rx, ry, size)
  covered = np.nonzero((distance < 0.5) & (alpha > 0))
  frame, row, column = covered
  index = (frame * size + top[frame, 0, 0] + row) * size
  index += left[frame, 0, 0] + column
  pick = lambda value: np.broadcast_to(value, distance.shape)[covered]
  edge = distance[covered]
  weight = np.minimum(0.5 - edge, 1.0) * alpha[frame, 0, 0]
  shade, shine, rim = 1.0, 0.0, 0.0
  if surface.texture != "plain":
    u, v = pick(dx / np.maximum(rx, 1.0)), pick(dy / np.maximum(ry, 1.0))
    shade, shine = _TEXTURES[surface.texture](u, v)
  if surface.texture == "glass":
    weight *= 0.62 + 0.38 * np.clip(1.0 + edge / 4, 0.0, 1.0)
  if surface.outline is not None:
    rim = 0.85 * np.clip(1.2 - np.abs(edge + 0.7), 0.0, 1.0)
  outline = surface.outline or surface.colour
  for plane, base, line in zip(canvas.reshape(3, -1), surface.colour, outline):
    colour = np.clip(base * shade + shine, 0.0, 1.0)
    colour = colour + rim * (line - colour)
    plane[index] += weight * (colour - plane[index])


def _patch(x, y, rx, ry, angle, size):
  """Returns a shape's box in pixels: left, top, and offsets from its centre."""
  cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
  half_x = float(np.max(rx * cos + ry * sin)) + 1.5
  half_y = float(np.max(rx * sin + ry * cos)) + 1.5
  wide = min(size, int(np.ceil(2 * half_x)) + 1)
  high = min(size, int(np.ceil(2 * half_y)) + 1)
  left = np.clip(np.floor(x - half_x), 0, size - wide)
  top = np.clip(np.floor(y - half_y), 0, size - high)
  dx = (left - x + 0.5) + np.arange(wide, dtype=np.float32)[None, None, :]
  dy = (top - y + 0.5) + np.arange(high, dtype=np.float32)[None, :, None]
  return left.astype(np.intp), top.astype(np.intp), dx, dy


def _distance(shape: Shape, dx, dy, rx, ry, size) -> Array:
  """Returns the signed distance [n, h, w] to the shape's edge in pixels."""
  if shape.kind == "ellipse" and shape.rx is shape.ry:
    distance = np.sqrt(dx * dx + dy * dy) - rx
  elif shape.kind == "ellipse":
    rx, ry = np.maximum(rx, 0.3), np.maximum(ry, 0.3)
    ux, uy = dx / rx, dy / ry
    k0 = np.sqrt(ux * ux + uy * uy)
    k1 = np.sqrt((ux / rx) ** 2 + (uy / ry) ** 2)
    distance = k0 * (k0 - 1.0) / np.maximum(k1, 1e-6)
    distance = np.where(k0 < 1e-3, -np.minimum(rx, ry), distance)
  else:
    corner = np.float32(shape.round * size)
    qx, qy = np.abs(dx) - rx + corner, np.abs(dy) - ry + corner
    far_x, far_y = np.maximum(qx, 0.0), np.maximum(qy, 0.0)
    outside = np.sqrt(far_x * far_x + far_y * far_y)
    distance = outside + np.minimum(np.maximum(qx, qy), 0.0) - corner
  return distance


def _spot(u, v, width=0.3):
  """Returns a highlight in 0..1 centred on the upper left of a surface."""
  return np.exp(-((u + 0.4) ** 2 + (v + 0.45) ** 2) / width**2)


# From the surface's coordinates in [-1, 1], a texture returns a factor on the
# colour and a white highlight to add.
_TEXTURES = {
  "wood": lambda u, v: (
    0.92 + 0.22 * np.sin(9.0 * v + 1.5 * np.sin(3.0 * u)), 0.0),
  "metal": lambda u, v: (
    0.8 - 0.3 * v, 0.55 * np.exp(-(((u + v + 0.5) / 0.28) ** 2))),
  "glass": lambda u, v: (1.0, 0.6 * _spot(u, v, 0.28)),
  "plastic": lambda u, v: (1.0 - 0.12 * v, 0.4 * _spot(u, v)),
  "stone": lambda u, v: (
    1.0 + 0.28 * np.sin(11.0 * u + 3.0 * v) * np.sin(12.0 * v - 4.0 * u), 0.0),
  "rubber": lambda u, v: (
    1.0 - 0.15 * v, np.where(np.abs(v) < 0.2, 0.22, 0.0)),
  "ceramic": lambda u, v: (
    np.where(np.abs(v + 0.1) < 0.22, 0.62, 1.0), 0.3 * _spot(u, v)),
}  # fmt: skip


def backdrop(
  rng: np.random.Generator, size: int, *, light: bool, floor: float
) -> Array:
  """Draws a random wall, bright or dark, with a floor below y = `floor`.

  Returns:
    float [size, size, 3] in 0..1, muted colours.
  """
  grid = (np.arange(size) + 0.5) / size
  x, y = np.meshgrid(grid, grid)
  base = rng.uniform(0.66, 0.86) if light else rng.uniform(0.13, 0.27)
  tint = 1.0 + rng.uniform(-0.16, 0.16, 3)
  slope, tilt = rng.uniform(-0.12, 0.12, 2)
  wall = 1.0 + slope * (y - 0.5) + tilt * (x - 0.5)
  wall = wall * (1.0 + _pattern(rng, x, y))
  ground = np.clip((y - floor) * size + 0.5, 0.0, 1.0)[..., None]
  shade = 0.72 * (1.0 + rng.uniform(-0.2, 0.2, 3))
  colour = base * wall[..., None] * tint
  colour = colour * (1 - ground * (1 - shade))
  return np.clip(colour, 0.0, 1.0)


def _pattern(rng: np.random.Generator, x: Array, y: Array) -> Array:
  """Returns a random wallpaper [h, w]: relative brightness, about 0."""
  kind = rng.choice(["none", "stripes", "tiles", "spots", "clouds"])
  depth, pitch = rng.uniform(0.03, 0.09), rng.uniform(4.0, 9.0)
  phase = rng.uniform(0, 2 * np.pi, 2)
  wave_x = np.sin(2 * np.pi * pitch * x + phase[0])
  wave_y = np.sin(2 * np.pi * pitch * y + phase[1])
  if kind == "stripes":
    return depth * np.clip(4 * wave_x, -1, 1)
  if kind == "tiles":
    return depth * np.clip(6 * wave_x * wave_y, -1, 1)
  if kind == "spots":
    return 2 * depth * np.clip(3 * (wave_x + wave_y - 1.2), 0, 1)
  if kind == "clouds":
    return depth * (
      np.sin(5 * x + 3 * y + phase[0]) + np.sin(7 * y - 4 * x + phase[1])
    )
  return np.zeros_like(x)
