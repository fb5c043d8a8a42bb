"""Figures of a report: curves and intervals as SVG, spectrograms as WebP.

SVG is markup without colours of its own; the page's style sheet colours its
classes, so that one figure serves light, dark and paper.
"""

from collections.abc import Sequence
import dataclasses
import html
import math

import cv2
import numpy as np
from scipy import signal

from v2a_jax.evaluation.report.columns import Column

_LABEL, _LETTER = 33, 6.2  # letters of a label, and the width of one
_POINTS = 240  # of a curve; more are averaged in groups
_SPECTROGRAM = (72, 480)  # pixels, rows and columns
_WEBP_QUALITY = 85
_LOWEST = 50.0  # Hz
_RANGE = 70.0  # dB shown


def ticks(low: float, high: float, count: int = 4) -> list[float]:
  """Returns about `count` round numbers within [low, high]."""
  span = high - low
  if not span > 0 or not math.isfinite(span):
    return [low]
  raw = span / count
  unit = 10 ** math.floor(math.log10(raw))
  step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
  first = math.ceil(low / step - 1e-9)
  return [step * i for i in range(first, int(high / step + 1e-9) + 1)]


def short(value: float) -> str:
  """Formats a number briefly: 1,200 as 1.2k, without trailing zeros."""
  for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if abs(value) >= limit:
      return f"{value / limit:.3g}{letter}"
  return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


@dataclasses.dataclass(frozen=True)
class Curve:
  """A line of a plot: values `y` at places `x`, in a run's colour, or `front`.

  `low` and `high` are the ends of intervals, NaN where there is none.
  """

  name: str
  colour: int | str
  x: np.ndarray
  y: np.ndarray
  low: np.ndarray | None = None
  high: np.ndarray | None = None

  @classmethod
  def of(cls, name: str, colour: int, points: Sequence[tuple[float, float]]):
    """Averages groups of points where there are too many to be seen."""
    x, y = np.array(sorted(points), float).T
    groups = np.array_split(np.arange(len(x)), min(len(x), _POINTS))
    return cls(
      name,
      colour,
      np.array([x[g].mean() for g in groups]),
      np.array([y[g].mean() for g in groups]),
    )


def curves_svg(title: str, curves: Sequence[Curve]) -> str:
  """Draws lines, on a logarithmic axis if values span decades."""
  width, height = 420, 220
  left, right, top, bottom = 46, 10, 10, 30
  values = np.concatenate([_all_values(curve) for curve in curves])
  steps = np.concatenate([curve.x for curve in curves])
  log = values.min() > 0 and values.max() / values.min() > 50
  scale = np.log10 if log else np.asarray
  low, high = _padded(scale(values))
  first, last = float(steps.min()), float(steps.max())
  if first == last:
    first, last = _padded(steps)  # One place is drawn in the middle.

  def place(x, y):
    across = left + (x - first) / (last - first) * (width - left - right)
    down = height - bottom - (y - low) / (high - low) * (height - top - bottom)
    return across, down

  out = []
  for value in ticks(low, high):
    _, y = place(first, value)
    label = short(10**value if log else value)
    out.append(_line(left, y, width - right, y, "grid"))
    out.append(_text(left - 6, y + 3.5, label, "end"))
  for value in ticks(first, last, 5):
    x, _ = place(value, low)
    out.append(_text(x, height - bottom + 16, short(value), "middle"))
  for curve in curves:
    out += [
      _line(*place(x, low), *place(x, high), f"whisker run-{curve.colour}")
      for x, low, high in _intervals(curve, scale)
    ]
    places = [place(x, y) for x, y in zip(curve.x, scale(curve.y))]
    name = f"<title>{html.escape(curve.name)}</title>"
    if len(places) == 1:  # A line of one point is not drawn.
      ((x, y),) = places
      dot = f'<circle class="dot run-{curve.colour}" cx="{x:.1f}" cy="{y:.1f}"'
      out.append(f'{dot} r="4">{name}</circle>')
      continue
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    out.append(
      f'<polyline class="curve run-{curve.colour}" points="{points}">'
      f"{name}</polyline>"
    )
  return _svg(width, height, title, out)


def _all_values(curve: Curve) -> np.ndarray:
  values = [of for of in (curve.y, curve.low, curve.high) if of is not None]
  values = np.concatenate(values)
  return values[np.isfinite(values)]


def _intervals(curve: Curve, scale) -> list[tuple[float, float, float]]:
  """Returns (place, low, high) of the intervals that are there."""
  if curve.low is None:
    return []
  known = np.isfinite(curve.low) & np.isfinite(curve.high)
  ends = scale(curve.low[known]), scale(curve.high[known])
  return list(zip(curve.x[known], *ends))


def _padded(values: np.ndarray) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
  return low - margin, high + margin


@dataclasses.dataclass(frozen=True)
class Mark:
  """A row of an interval plot; an anchor has no colour."""

  label: str
  colour: int | None
  value: float
  low: float | None
  high: float | None


def intervals_svg(column: Column, marks: Sequence[Mark]) -> str:
  """Draws values and intervals of all rows on one axis."""
  line, right, top = 20, 16, 4
  width, height = 420, top + line * len(marks) + 26
  labels = [_cut(mark.label) for mark in marks]
  left = 16 + _LETTER * max(map(len, labels))
  ends = [x for m in marks for x in (m.value, m.low, m.high) if x is not None]
  low, high = _padded(np.array(ends))

  def place(value):
    return left + (value - low) / (high - low) * (width - left - right)

  out = []
  for value in ticks(low, high):
    x = place(value)
    out.append(_line(x, top, x, height - 22, "grid"))
    out.append(_text(x, height - 6, short(value), "middle"))
  for i, (mark, label) in enumerate(zip(marks, labels)):
    y = top + line * (i + 0.5)
    style = "anchor" if mark.colour is None else f"run-{mark.colour}"
    out.append(_text(left - 10, y + 4, label, "end", "label"))
    if mark.low is not None and mark.high is not None:
      out.append(
        _line(place(mark.low), y, place(mark.high), y, f"whisker {style}")
      )
    out.append(
      f'<circle class="dot {style}" cx="{place(mark.value):.1f}" '
      f'cy="{y:.1f}" r="4"/>'
    )
  return _svg(width, height, f"{column.label}: values and intervals", out)


def _cut(label: str) -> str:
  """Shortens a label in the middle, as runs often differ in the end."""
  if len(label) <= _LABEL:
    return label
  half = (_LABEL - 1) // 2
  return f"{label[:half]}\N{HORIZONTAL ELLIPSIS}{label[-half:]}"


def _line(x1, y1, x2, y2, style) -> str:
  return (
    f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" '
    f'x2="{x2:.1f}" y2="{y2:.1f}"/>'
  )


def _text(x, y, text, anchor, style="") -> str:
  return (
    f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    f"{html.escape(str(text))}</text>"
  )


def _svg(width, height, title, parts) -> str:
  return (
    f'<svg viewBox="0 0 {width} {height}" role="img" '
    f'aria-label="{html.escape(title, quote=True)}">'
    + "".join(parts)
    + "</svg>"
  )


def spectrogram(samples: np.ndarray, sample_rate: int) -> bytes:
  """Draws power of samples [t], t >= 64, over time and logarithmic frequency.

  Returns:
    A WebP image of 480 x 72 pixels from 50 Hz to half the rate. The lightest
    colour is the loudest cell, but never under -60 dBFS, so silence is dark.
  """
  rows, columns = _SPECTROGRAM
  window = min(1024, 1 << int(math.log2(len(samples))))
  hop = max(1, len(samples) // columns)
  transform = signal.ShortTimeFFT(
    signal.windows.hann(window, sym=False),
    hop,
    sample_rate,
    scale_to="magnitude",
  )
  times = transform.t(len(samples))
  inside = (times >= 0) & (times < len(samples) / sample_rate)
  power = transform.spectrogram(samples)[:, inside]
  frames = np.linspace(0, power.shape[1] - 1, columns).round().astype(int)
  bands = _log_bands(power[:, frames], sample_rate, rows)
  level = 10 * np.log10(bands + 1e-12)
  top = max(level.max(), -60.0)
  shade = np.clip((level - top) / _RANGE + 1, 0, 1)
  image = cv2.applyColorMap(
    np.flipud((shade * 255).astype(np.uint8)), cv2.COLORMAP_MAGMA
  )
  return webp(image)


def webp(image: np.ndarray) -> bytes:
  """Encodes an image, uint8 [h w 3] in the order blue, green, red."""
  quality = [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY]
  return cv2.imencode(".webp", image, quality)[1].tobytes()


def _log_bands(power: np.ndarray, sample_rate: int, rows: int) -> np.ndarray:
  """Returns the largest power in each of `rows` logarithmic bands."""
  edges = np.geomspace(_LOWEST, sample_rate / 2, rows + 1)
  bins = edges / (sample_rate / 2) * (len(power) - 1)
  out = np.empty((rows, power.shape[1]))
  for i, (low, high) in enumerate(zip(bins[:-1], bins[1:])):
    first, last = int(math.ceil(low)), int(math.floor(high))
    if first <= last:
      out[i] = power[first : last + 1].max(0)
    else:  # A band narrower than a bin is interpolated between two.
      at = (low + high) / 2
      whole = min(int(at), len(power) - 2)
      part = at - whole
      out[i] = (1 - part) * power[whole] + part * power[whole + 1]
  return out
