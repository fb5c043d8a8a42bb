"""Curves and spectrograms of the report."""

import re

import cv2
import numpy as np
import pytest
from report_results import RATE

from v2a_jax.evaluation.report import figures


def test_spectrogram_shows_a_tone_at_its_height():
  t = np.arange(RATE) / RATE
  tone = np.sin(2 * np.pi * 632.0 * t).astype(np.float32)

  def brightness(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return image.mean(axis=2)

  image = brightness(figures.spectrogram(tone, RATE))
  assert image.shape == (72, 480)
  # 632 Hz is the geometric mean of 50 Hz and 8 kHz.
  assert abs(image.mean(1).argmax() - 36) <= 1
  quiet = figures.spectrogram(np.zeros(RATE, np.float32), RATE)
  assert brightness(quiet).max() < image.max() / 3 and len(quiet) < 2000


def test_curves_keep_extremes_and_average_the_rest():
  points = [(step, float(step % 7)) for step in range(5000)]
  curve = figures.Curve.of("run", 0, points)
  assert len(curve.x) <= 240
  assert curve.y.mean() == pytest.approx(3.0, abs=0.05)
  svg = figures.curves_svg("a & b", [curve])
  assert svg.startswith("<svg") and "a &amp; b" in svg


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("place", [0, 7, 1e17])
def test_a_curve_of_one_point_is_a_dot_in_the_middle(place):
  curve = figures.Curve.of("run", 0, [(place, 0.5)])
  svg = figures.curves_svg("score", [curve])
  left, right = 46, 410  # of the axis
  (across,) = re.findall(r'<circle[^>]* cx="([\d.]+)"', svg)
  assert float(across) == pytest.approx((left + right) / 2, abs=1)
  assert "nan" not in svg


def test_places_less_than_one_apart_fill_the_axis():
  curve = figures.Curve.of("run", 0, [(0.1, 1.0), (0.3, 2.0)])
  svg = figures.curves_svg("score", [curve])
  (points,) = re.findall(r'points="([^"]+)"', svg)
  assert [float(p.partition(",")[0]) for p in points.split()] == [46, 410]
