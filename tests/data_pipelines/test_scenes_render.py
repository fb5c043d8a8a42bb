"""Shapes against their areas, their positions and supersampled references."""

import numpy as np
import pytest

from data_pipelines.scenes import render

WHITE = render.Surface((1.0, 1.0, 1.0))
BLACK = np.zeros((64, 64, 3))


def _coverage(*shapes, frames=1, size=64):
  """Returns how much of each pixel white shapes cover, [frames, h, w]."""
  black = np.zeros((size, size, 3))
  return render.render(list(shapes), black, frames=frames)[..., 0] / 255


def _centroid(image):
  """Returns x and y of an image's centre of mass, picture widths."""
  grid = (np.arange(len(image)) + 0.5) / len(image)
  return image.sum(0) @ grid / image.sum(), image.sum(1) @ grid / image.sum()


def _supersampled(inside, size=64, factor=8):
  """Returns the share of sub-pixel points inside a shape, [size, size]."""
  grid = (np.arange(size * factor) + 0.5) / (size * factor)
  points = inside(*np.meshgrid(grid, grid)).astype(float)
  return points.reshape(size, factor, size, factor).mean((1, 3))


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_shapes_cover_their_true_area(angle):
  box = ("box", 0.5, 0.5, 0.3, 0.1, WHITE)
  for shape, area in (
    (render.disc(0.5, 0.5, 0.25, WHITE), np.pi * 0.25**2),
    (render.Shape(*box, angle=angle), 0.12),
    # Rounding takes (4 - pi) r^2 from the corners.
    (
      render.Shape(*box, angle=angle, round=0.08),
      0.12 - (4 - np.pi) * 0.08**2,
    ),
    (
      render.Shape("ellipse", 0.5, 0.5, 0.3, 0.15, WHITE, angle=angle),
      np.pi * 0.045,
    ),
  ):
    assert abs(_coverage(shape).mean() - area) < 0.015 * area + 5e-4


@pytest.mark.parametrize("angle", [0.0, 0.5, -1.2])
def test_coverage_is_that_of_a_supersampled_picture(angle):
  """Rotation is clockwise on the screen, where y points downwards."""
  cos, sin = np.cos(angle), np.sin(angle)

  def own(x, y):
    x, y = x - 0.45, y - 0.55
    return cos * x + sin * y, cos * y - sin * x

  def in_box(x, y):
    u, v = own(x, y)
    return (np.abs(u) < 0.3) & (np.abs(v) < 0.12)

  def in_ellipse(x, y):
    u, v = own(x, y)
    return (u / 0.3) ** 2 + (v / 0.12) ** 2 < 1

  for kind, inside in (("box", in_box), ("ellipse", in_ellipse)):
    shape = render.Shape(kind, 0.45, 0.55, 0.3, 0.12, WHITE, angle=angle)
    error = np.abs(_coverage(shape)[0] - _supersampled(inside))
    assert error.mean() < 2e-3 and error.max() < 0.35


def test_a_bar_reaches_from_one_point_to_the_other():
  x0, y0, x1, y1, radius = 0.2, 0.3, 0.8, 0.6, 0.05

  def inside(x, y):
    # Within a radius of the nearest point of the segment.
    dx, dy = x1 - x0, y1 - y0
    along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
    along = np.clip(along, 0, 1)
    return np.hypot(x - x0 - along * dx, y - y0 - along * dy) < radius

  image = _coverage(render.bar(x0, y0, x1, y1, radius, WHITE))[0]
  assert np.abs(image - _supersampled(inside)).mean() < 2e-3


def test_sub_pixel_motion_changes_the_picture_smoothly():
  x = 0.5 + np.linspace(0, 1 / 64, 9)
  frames = _coverage(render.disc(x, 0.5, 0.2, WHITE), frames=9)
  centre = [_centroid(frame)[0] for frame in frames]
  np.testing.assert_allclose(centre, x, atol=5e-4)


def test_every_frame_shows_its_own_values():
  values = dict(
    x=np.array([0.3, 0.5, 0.7]),
    y=np.array([0.6, 0.4, 0.5]),
    rx=np.array([0.1, 0.15, 0.2]),
    ry=np.array([0.1, 0.2, 0.15]),
  )
  angle = np.array([0.0, 0.4, 1.0])
  moving = _coverage(
    render.Shape("ellipse", **values, surface=WHITE, angle=angle), frames=3
  )
  for k in range(3):
    still = render.Shape(
      "ellipse",
      **{name: value[k] for name, value in values.items()},
      surface=WHITE,
      angle=angle[k],
    )
    np.testing.assert_allclose(moving[k], _coverage(still)[0], atol=1 / 255)
    np.testing.assert_allclose(
      _centroid(moving[k]), (values["x"][k], values["y"][k]), atol=2e-3
    )


def test_a_shape_that_stands_still_is_the_same_in_every_frame():
  still = render.disc(0.4, 0.4, 0.2, WHITE)
  moving = render.disc(np.array([0.4, 0.6]), 0.7, 0.1, WHITE)
  assert still.static and not moving.static
  frames = _coverage(still, moving, frames=2)
  alone = _coverage(still)[0]
  np.testing.assert_array_equal(frames[0, :30], alone[:30])
  np.testing.assert_array_equal(frames[1, :30], alone[:30])
  assert (frames[0] != frames[1]).any()


def test_later_shapes_lie_over_earlier_ones():
  red = render.Surface((1.0, 0.0, 0.0))
  blue = render.Surface((0.0, 0.0, 1.0))
  still, moving = (
    render.disc(x, 0.5, 0.3, surface)
    for x, surface in ((0.5, red), (np.array([0.5]), blue))
  )
  top = render.render([still, moving], BLACK, frames=1)[0, 32, 32]
  np.testing.assert_array_equal(top, [0, 0, 255])
  top = render.render([moving, still], BLACK, frames=1)[0, 32, 32]
  np.testing.assert_array_equal(top, [255, 0, 0])


def test_opacity_mixes_the_colour_with_the_background():
  surface = render.Surface((1.0, 0.5, 0.0), alpha=0.5)
  background = np.full((64, 64, 3), 0.2)
  alpha = np.array([1.0, 0.4, 0.0])
  frames = render.render(
    [render.disc(0.5, 0.5, 0.3, surface, alpha=alpha)], background, frames=3
  )
  for frame, a in zip(frames, 0.5 * alpha):
    expected = 255 * (0.2 + a * (np.array([1.0, 0.5, 0.0]) - 0.2))
    np.testing.assert_allclose(frame[32, 32], expected, atol=0.51)
    np.testing.assert_array_equal(frame[0, 0], [51, 51, 51])


def test_an_outline_colours_the_edge_only():
  surface = render.Surface((1.0, 0.0, 0.0), outline=(0.0, 0.0, 1.0))
  image = render.render(
    [render.disc(0.5, 0.5, 0.25, surface)], BLACK, frames=1
  )[0].astype(float)
  grid = (np.arange(64) + 0.5) / 64 - 0.5
  distance = 64 * (np.hypot(*np.meshgrid(grid, grid)) - 0.25)
  edge = np.abs(distance + 0.7) < 0.2
  assert (image[edge, 2] > image[edge, 0]).all()
  np.testing.assert_array_equal(image[distance < -2.5][:, 2], 0)
  assert not image[distance > 1].any()


def test_shapes_may_leave_the_picture_or_be_absent():
  surface = render.Surface((1.0, 0.0, 0.0), "metal", outline=(0.0, 0.0, 1.0))
  far = np.array([-3.0, 0.5, 4.0])
  alpha = np.array([1.0, 0.0, 1.0])
  frames = render.render(
    [render.disc(far, 0.5, 0.2, surface, alpha=alpha)],
    np.full((32, 32, 3), 0.5),
    frames=3,
  )
  assert (frames == 128).all()


def test_a_shape_at_the_border_is_cut_off_there():
  image = _coverage(render.disc(0.0, 0.5, 0.25, WHITE))[0]
  assert abs(image.mean() - 0.5 * np.pi * 0.25**2) < 2e-3
  assert not image[:, 20:].any()


@pytest.mark.parametrize("texture", sorted(render._TEXTURES))
def test_a_texture_varies_round_the_colour_of_its_surface(texture):
  colour = np.array([0.5, 0.4, 0.3])
  surface = render.Surface(tuple(colour), texture)
  plain = render.Surface(tuple(colour), alpha=surface.alpha)
  images = [
    render.render([render.disc(0.5, 0.5, 0.4, s)], BLACK, frames=1)[0] / 255
    for s in (surface, plain)
  ]
  inner = np.s_[16:48, 16:48]
  textured, flat = (image[inner] for image in images)
  assert textured.std(axis=(0, 1)).max() > 0.01 > flat.std(axis=(0, 1)).max()
  # Glass lets the background through; the others keep their mean brightness.
  low = 0.5 if texture == "glass" else 0.75
  ratio = textured.mean() / flat.mean()
  assert low < ratio < 1.3


def test_textures_differ_from_each_other():
  images = {
    name: render.render(
      [render.disc(0.5, 0.5, 0.4, render.Surface((0.5, 0.5, 0.5), name))],
      BLACK,
      frames=1,
    ).tobytes()
    for name in [*render._TEXTURES, "plain"]
  }
  assert len(set(images.values())) == len(images)


@pytest.mark.parametrize("light", [True, False])
def test_a_wall_is_light_or_dark_and_stands_on_a_darker_floor(light):
  for seed in range(20):
    wall = render.backdrop(
      np.random.default_rng(seed), 64, light=light, floor=0.75
    )
    assert wall.shape == (64, 64, 3)
    assert wall.min() >= 0 and wall.max() <= 1
    above, below = wall[:48].mean(), wall[48:].mean()
    assert (above > 0.5) == light
    assert below < above
    # The edge lies between two rows of pixels.
    rows = wall.mean(axis=(1, 2))
    assert np.argmin(rows[1:] / rows[:-1]) == 47


def test_walls_differ_and_grow_with_the_picture():
  walls = [
    render.backdrop(np.random.default_rng(s), 32, light=True, floor=0.8)
    for s in range(6)
  ]
  assert len({wall.tobytes() for wall in walls}) == 6
  small, large = (
    render.backdrop(np.random.default_rng(3), size, light=True, floor=0.75)
    for size in (32, 64)
  )
  halved = large.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
  assert np.abs(halved - small).mean() < 0.02
