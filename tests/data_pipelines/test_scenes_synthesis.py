"""Sounds against closed forms, SciPy's filters and tabulated modes."""

import numpy as np
import pytest
from scipy import optimize, signal, special

from data_pipelines.scenes import synthesis

RATE = 16000
RINGING = ("wood", "metal", "glass", "plastic", "ceramic")


def _rng(seed=0):
  return np.random.default_rng(seed)


def _strike(name, size=0.5, *, strength=1.0, rate=RATE, damping=1.0, seed=1):
  return synthesis.strike(
    _rng(seed),
    synthesis.MATERIALS[name],
    size,
    strength=strength,
    rate=rate,
    damping=damping,
  )


def _spectrum(sound, rate=RATE, bins=1 << 16):
  """Returns frequencies in Hz and magnitudes of a Hann-windowed sound."""
  window = np.hanning(2 * len(sound))[len(sound) :]
  level = np.abs(np.fft.rfft(sound * window, bins))
  return np.fft.rfftfreq(bins, 1 / rate), level


def _centroid(sound):
  """Returns the mean frequency of a sound's magnitude spectrum, Hz."""
  frequencies, level = _spectrum(sound)
  return frequencies @ level / level.sum()


def _peak(sound, low, high, rate=RATE):
  """Returns the frequency of the highest spectral peak in a band, Hz."""
  frequencies, level = _spectrum(sound, rate)
  band = (frequencies > low) & (frequencies < high)
  return frequencies[band][np.argmax(level[band])]


def _decay_time(sound, frequency, rate=RATE):
  """Returns the 60 dB decay time of one partial, by regression in dB."""
  low, high = frequency / 1.12, frequency * 1.12
  band = signal.butter(2, (low, high), "bandpass", fs=rate, output="sos")
  padded = np.concatenate([sound, np.zeros(len(sound))])
  level = np.abs(signal.hilbert(signal.sosfiltfilt(band, padded)))
  level = 20 * np.log10(level[: len(sound)])
  first = int(np.argmax(level))
  last = first + int(np.argmax(level[first:] < level[first] - 35))
  span = np.arange(first, last)
  span = span[len(span) // 4 :]
  slope = np.polyfit(span / rate, level[span], 1)[0]
  return -60 / slope


def test_modes_equal_the_sum_of_damped_sines():
  frequencies, decays = [440.0, 910.0, 9000.0], [0.2, 0.1, 0.1]
  gains = [1.0, 0.5, 1.0]
  sound = synthesis.ring(frequencies, decays, gains, samples=3000, rate=RATE)
  n = np.arange(3000) / RATE
  # The third mode is above half the sample rate and left out.
  expected = sum(
    g * np.exp(-np.log(1000) * n / d) * np.sin(2 * np.pi * f * n)
    for f, d, g in list(zip(frequencies, decays, gains))[:2]
  )
  np.testing.assert_allclose(sound, expected, atol=2e-5)


@pytest.mark.parametrize("samples", [1, 2, 17, 1000])
def test_a_mode_is_the_impulse_response_of_a_two_pole_filter(samples):
  frequency, decay, rate = 700.0, 0.05, 22050
  pole = np.exp((-np.log(1000) / decay + 2j * np.pi * frequency) / rate)
  impulse = np.zeros(samples)
  impulse[0] = 1.0
  expected = signal.lfilter(
    [0.0, pole.imag], [1.0, -2 * pole.real, abs(pole) ** 2], impulse
  )
  sound = synthesis.ring(
    [frequency], [decay], [1.0], samples=samples, rate=rate
  )
  assert len(sound) == samples
  np.testing.assert_allclose(sound, expected, atol=1e-5)


def test_the_ratios_of_a_bar_solve_its_boundary_conditions():
  """Free ends: cos x cosh x = 1, frequency proportional to x squared."""
  roots = [
    optimize.brentq(
      lambda x: np.cos(x) - 1 / np.cosh(x), np.pi * k, np.pi * (k + 1)
    )
    for k in range(1, 6)
  ]
  expected = (np.array(roots) / roots[0]) ** 2
  np.testing.assert_allclose(synthesis.BAR, expected, rtol=5e-4)


def test_the_ratios_of_a_membrane_are_zeros_of_bessel_functions():
  zeros = np.concatenate([special.jn_zeros(m, 3) for m in range(4)])
  ratios = np.sort(zeros) / special.jn_zeros(0, 1)
  for ratio in synthesis.MEMBRANE:
    assert np.abs(ratios - ratio).min() < 2e-3


@pytest.mark.parametrize("material", RINGING)
@pytest.mark.parametrize("size", [0.1, 0.9])
def test_a_struck_object_has_the_modes_of_its_material(material, size):
  rate = 48000
  properties = synthesis.MATERIALS[material]
  low, high = properties.pitch
  sound = _strike(material, size, rate=rate)
  # Sizes are even steps in the logarithm of the pitch.
  first = np.exp((1 - size) * np.log(high) + size * np.log(low))
  for ratio in properties.ratios[:3]:
    peak = _peak(sound, 0.9 * ratio * first, 1.1 * ratio * first, rate)
    assert abs(peak / (ratio * first) - 1) < 0.02


@pytest.mark.parametrize(
  "material, damping", [("metal", 1), ("metal", 3), ("glass", 1), ("wood", 1)]
)
def test_modes_fall_by_60_db_in_the_decay_time_of_the_material(
  material, damping
):
  properties = synthesis.MATERIALS[material]
  sound = _strike(material, 0.5, rate=48000, damping=damping)
  first = np.sqrt(np.prod(properties.pitch))
  for ratio in properties.ratios[:2]:
    expected = properties.ring / (1 + properties.slope * (ratio - 1)) / damping
    measured = _decay_time(sound, ratio * first, 48000)
    assert abs(measured / expected - 1) < 0.12


def test_a_hit_has_the_peak_of_its_strength_at_its_start():
  for material in synthesis.MATERIALS:
    for strength in (0.2, 1.0):
      sound = np.abs(_strike(material, strength=strength))
      np.testing.assert_allclose(sound.max(), strength)
      assert np.argmax(sound) < 0.01 * RATE


def test_a_hit_dies_away():
  for material in synthesis.MATERIALS:
    sound = np.abs(_strike(material))
    assert sound[-len(sound) // 20 :].max() < 10 ** (-50 / 20)


def test_a_harder_hit_is_brighter():
  for material in ("wood", "metal", "plastic"):
    soft, hard = (
      _centroid(_strike(material, strength=strength)) for strength in (0.3, 1.0)
    )
    assert hard > 1.05 * soft


def test_hits_on_one_object_differ_but_share_its_modes():
  one, two = _strike("metal", seed=1), _strike("metal", seed=2)
  assert np.abs(one - two).max() > 0.05
  first = np.sqrt(np.prod(synthesis.MATERIALS["metal"].pitch))
  band = 0.9 * first, 1.1 * first
  assert abs(_peak(one, *band) - _peak(two, *band)) < 2


def test_materials_ring_and_sound_like_their_names():
  length = {
    name: np.flatnonzero(np.abs(_strike(name)) > 0.05)[-1]
    for name in synthesis.MATERIALS
  }
  assert length["metal"] > 3 * length["stone"]
  assert max(length, key=length.get) == "metal"
  names = ("rubber", "wood", "glass")
  first = {name: _peak(_strike(name), 50, 8000) for name in names}
  assert first["rubber"] < 250 < first["wood"] < first["glass"]


def test_materials_are_physical():
  for name, material in synthesis.MATERIALS.items():
    assert material.name == name
    assert 0 < material.pitch[0] < material.pitch[1] < 0.46 * RATE
    assert material.ratios[0] == 1 and np.all(np.diff(material.ratios) > 0)
    # Even the 5 % that a scene adds to it loses energy.
    assert 0 < material.restitution < 1 / 1.05
    assert all(0 <= value <= 1 for value in material.colour)
  restitution = {m.name: m.restitution for m in synthesis.MATERIALS.values()}
  assert max(restitution, key=restitution.get) == "rubber"


def _mean_power(make, number=200, bins=2048):
  spectra = [
    np.abs(np.fft.rfft(make(_rng(k)), bins)) ** 2 for k in range(number)
  ]
  return np.mean(spectra, axis=0)


def test_contact_noise_falls_by_60_db_in_its_decay_time():
  decay = 0.05
  power = np.mean(
    [
      synthesis.burst(_rng(k), corner=4000, decay=decay, rate=RATE) ** 2
      for k in range(400)
    ],
    axis=0,
  )
  assert len(power) == int(1.2 * decay * RATE)
  span = np.arange(20, 600)
  slope = np.polyfit(span / RATE, 10 * np.log10(power[span]), 1)[0]
  assert abs(-60 / slope / decay - 1) < 0.05
  # The level at the start, extrapolated: RMS 0.35.
  start = np.mean(power[20:100] * 10 ** (6 * np.arange(20, 100) / RATE / decay))
  assert abs(np.sqrt(start) / 0.35 - 1) < 0.05


def test_rumble_is_noise_through_a_one_pole_low_pass():
  corner, bins = 400, 2048
  power = _mean_power(
    lambda rng: synthesis.rumble(rng, bins, corner=corner, rate=RATE)
  )
  frequencies = np.fft.rfftfreq(bins, 1 / RATE)
  # An analogue one-pole filter; sampling adds little well below Nyquist.
  expected = 1 / (1 + (frequencies / corner) ** 2)
  band = (frequencies > 50) & (frequencies < 2000)
  error = 10 * np.log10(power / expected)[band]
  assert np.std(error) < 0.6


def test_noises_have_unit_rms():
  for sound in (
    synthesis.rumble(_rng(), 8000, corner=150, rate=RATE),
    synthesis.band_noise(
      _rng(), 8000, frequency=2500, bandwidth=900, rate=RATE
    ),
  ):
    assert len(sound) == 8000
    np.testing.assert_allclose(np.sqrt(np.mean(sound**2)), 1, rtol=1e-6)


@pytest.mark.parametrize("frequency, bandwidth", [(500, 50), (2000, 300)])
def test_a_resonator_has_its_centre_gain_and_bandwidth(frequency, bandwidth):
  impulse = np.zeros(RATE)
  impulse[0] = 1.0
  response = np.abs(
    np.fft.rfft(synthesis.resonator(impulse, frequency, bandwidth, rate=RATE))
  )
  # One bin per Hz.
  np.testing.assert_allclose(response.max(), 1, atol=0.01)
  assert abs(np.argmax(response) - frequency) <= 0.02 * frequency
  above = np.flatnonzero(response > np.sqrt(0.5))
  assert abs(above[-1] - above[0] - bandwidth) <= 0.05 * bandwidth + 2
  assert response[0] < 1e-6 and response[-1] < 1e-6


def test_a_resonator_above_half_the_sample_rate_is_brought_below():
  noise = _rng().standard_normal(4096)
  np.testing.assert_allclose(
    synthesis.resonator(noise, 9000, 500, rate=RATE),
    synthesis.resonator(noise, 0.46 * RATE, 500, rate=RATE),
  )


def test_a_bubble_is_a_decaying_linear_chirp():
  frequency, decay, rise = 600.0, 0.2, 0.35
  sound = synthesis.bubble(frequency, decay=decay, rise=rise, rate=RATE)
  n = np.arange(int(1.1 * decay * RATE)) / RATE
  chirp = signal.chirp(n, frequency, decay, frequency * (1 + rise), phi=-90)
  expected = chirp * 10 ** (-3 * n / decay)
  np.testing.assert_allclose(sound, expected, atol=1e-9)


def test_a_plucked_string_has_the_partials_of_a_stiff_string():
  frequency, rate = 165.0, 48000
  sound = synthesis.pluck(_rng(3), frequency, strength=1.0, rate=rate)
  assert len(sound) == int(1.1 * rate)
  np.testing.assert_allclose(np.abs(sound).max(), 1.0)
  for k in (1, 2, 3, 12):
    expected = k * frequency * np.sqrt(1 + 2e-4 * k * k)
    peak = _peak(sound, expected - 60, expected + 60, rate)
    assert abs(peak - expected) < 3
  # Partial 12 is far enough from the harmonic for that to tell them apart.
  assert 12 * frequency * (np.sqrt(1 + 2e-4 * 144) - 1) > 20
  measured = _decay_time(sound, frequency, rate)
  assert abs(measured / 1.1 - 1) < 0.1


def test_a_pluck_excites_partials_as_a_triangle_does():
  """Fourier series of a string pulled at a point p: gains over sin(pi k p).

  The gains of the partials, freed of the power of k, are those of one p.
  """
  frequency, rate = 200.0, 48000
  sound = synthesis.pluck(_rng(5), frequency, strength=1.0, rate=rate)
  k = np.arange(1, 9)
  partials = k * frequency * np.sqrt(1 + 2e-4 * k * k)
  # Least squares on damped sines and cosines.
  n = np.arange(int(0.5 * rate)) / rate
  damping = np.log(1000) / (1.1 / (1 + 0.12 * (k - 1)))
  waves = np.exp(n[:, None] * (-damping + 2j * np.pi * partials))
  start = int(0.02 * rate)  # after the click
  basis = np.concatenate([waves.real, waves.imag], axis=1)[start:]
  gains = np.linalg.lstsq(basis, sound[start : len(n)], rcond=None)[0]
  gains = np.abs(gains[:8] - 1j * gains[8:]) * k**1.3
  points = np.linspace(0.1, 0.32, 400)
  shapes = np.abs(np.sin(np.pi * k[:, None] * points))
  fits = (gains @ shapes) / (
    np.linalg.norm(gains) * np.linalg.norm(shapes, axis=0)
  )
  assert fits.max() > 0.995
  assert 0.12 <= points[np.argmax(fits)] <= 0.3


def test_a_drum_has_the_modes_of_a_membrane():
  frequency, rate = 150.0, 48000
  sound = np.mean(
    [
      synthesis.drum(_rng(k), frequency, strength=1.0, rate=rate)
      for k in range(30)
    ],
    axis=0,
  )
  for m in range(2):
    expected = frequency * special.jn_zeros(m, 1)[0] / special.jn_zeros(0, 1)[0]
    peak = _peak(sound, 0.85 * expected, 1.15 * expected, rate)
    assert abs(peak / expected - 1) < 0.03


def test_the_modes_of_a_drum_fall_by_60_db_in_a_third_of_a_second():
  sound = np.mean(
    [
      synthesis.drum(_rng(k), 150.0, strength=1.0, rate=48000) for k in range(9)
    ],
    axis=0,
  )
  for ratio in synthesis.MEMBRANE[:2]:
    expected = 0.32 / (1 + 0.5 * (ratio - 1))
    assert abs(_decay_time(sound, 150.0 * ratio, 48000) / expected - 1) < 0.15


def test_a_drum_has_the_peak_of_its_strength():
  for strength in (0.4, 1.0):
    sound = synthesis.drum(_rng(), 120.0, strength=strength, rate=RATE)
    np.testing.assert_allclose(np.abs(sound).max(), strength)
    assert np.abs(sound[-160:]).max() < 0.01


def test_a_sound_is_placed_at_its_time_and_cut_at_the_end():
  track = np.zeros(100)
  sound = np.arange(1.0, 11.0)
  synthesis.place(track, sound, 0.02, rate=1000, gain=2.0)
  np.testing.assert_array_equal(track[20:30], 2 * sound)
  assert not track[:20].any() and not track[30:].any()
  synthesis.place(track, sound, 0.0204, rate=1000)  # the nearest sample is 20
  np.testing.assert_array_equal(track[20:30], 3 * sound)
  synthesis.place(track, sound, 0.095, rate=1000)
  np.testing.assert_array_equal(track[95:], sound[:5])
  before = track.copy()
  for outside in (-0.01, 0.1, 5.0):
    synthesis.place(track, sound, outside, rate=1000)
  np.testing.assert_array_equal(track, before)


def test_a_fade_is_a_tukey_window():
  seconds, n = 0.03, 200
  faded = synthesis.fade(np.ones(n), seconds=seconds, rate=1000)
  # 30 of the 199 intervals at each end.
  window = signal.windows.tukey(n, 2 * 30 / (n - 1))
  np.testing.assert_allclose(faded, window, atol=1e-9)
  short = synthesis.fade(np.ones(10), seconds=1.0, rate=1000)
  assert short[0] == short[-1] == 0 and short.max() < 1
