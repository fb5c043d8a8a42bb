"""Distances to the judged clips' own true sounds: no system is nearer than truth."""

from flashes import evaluate_quickly, value_of
import numpy as np
import pytest
from scipy import signal
import soundfile

from v2a_jax.evaluation import clips, folders, systems
from v2a_jax.evaluation.metrics import METRICS, base, frechet, kernel, own_truth
from v2a_jax.evaluation.report import compare, loading
from v2a_jax.evaluation.report.columns import columns_of
from v2a_jax.hearing.embeddings import Features, joined

RATE, NUM, SECONDS = 8000, 24, 1.5
DIM = 16
RNG = np.random.default_rng


class Bands:
  """An embedding of the level in eight bands, without weights."""

  id, sha256, dim, classes = "bands", "0", 8, 0
  sample_rate, window, hop, repeats = RATE, 0.5, 0.25, False

  def __init__(self, path=None):
    pass

  def apply(self, windows):
    power = np.abs(np.fft.rfft(windows, axis=1)[:, 1:]) ** 2
    bands = np.array_split(power, self.dim, axis=1)
    level = np.log10(np.stack([b.mean(1) for b in bands], 1) + 1e-6)
    return level, np.zeros((len(windows), 0))


class _OnBands(base.SetMetric):
  direction, about = "lower", "Distance of levels in bands."
  embedding = Bands
  needs_reference = has_own = True

  def compute(self, features, *, reference, seed=0):
    return self.of.compute(features, reference=reference, seed=seed)

  def compute_own(self, features, *, truth, seed=0):
    return self.of.compute_own(features, truth=truth, seed=seed)


class Fad(_OnBands):
  id, label, of = "fad", "FAD", frechet.FrechetDistance()


class Kad(_OnBands):
  id, label, of = "kad", "KAD", kernel.KernelDistance()


SETS = (Fad(), Kad())
SOME = ("level_error", "lost_band", "silent", "clipped", "duration_error")
MEASURED = (*(m for m in METRICS if m.id in SOME), *SETS)


def sound(i: int) -> np.ndarray:
  """Makes hits of noise in a band of the clip's own, some over full scale."""
  rng = RNG(i)
  made = 1e-3 * rng.standard_normal(round(RATE * SECONDS))
  low = 200 + 2000 * rng.random()
  filters = signal.butter(
    2, [low, low + 900], "bandpass", fs=RATE, output="sos"
  )
  for start in rng.choice(np.arange(5, 60, 8), 4, replace=False):
    hit = signal.sosfilt(filters, rng.standard_normal(1200))
    hit *= 0.5 * np.exp(-np.arange(1200) / 250)
    first = round(start / 50 * RATE)
    made[first : first + 1200] += hit[: len(made) - first]
  return np.clip(made * (9 if i % 2 else 1), -1, 1)


def low(x: np.ndarray) -> np.ndarray:
  filters = signal.butter(6, 1500, fs=RATE, output="sos")
  return signal.sosfiltfilt(filters, x)


RIVALS = {
  "truth": sound,
  "quieter": lambda i: 0.9 * sound(i),
  "rotated": lambda i: sound((i + 1) % NUM),
  "reversed": lambda i: sound(NUM - 1 - i),
  "repeated": lambda i: sound(RNG(100 + i).integers(NUM)),
  "codec": sound,
  "noise": lambda i: 0.1 * RNG(i).standard_normal(round(RATE * SECONDS)),
  "lowpassed": lambda i: low(sound(i)),
  "rotated_lowpassed": lambda i: low(sound((i + 1) % NUM)),
  "mixed": lambda i: sound(i if i % 2 else 1000 + i),
  "others": lambda i: sound(1000 + i),
  "silence": lambda i: np.zeros(round(RATE * SECONDS)),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  """Results of all rivals, by name."""
  root = tmp_path_factory.mktemp("rivals")
  for name, make in RIVALS.items():
    (root / name).mkdir()
    for i in range(NUM):
      file = f"c{i:02}.ogg" if name == "codec" else f"c{i:02}.wav"
      soundfile.write(root / name / file, make(i), RATE)
  truth = clips.open_truth(root / "truth")
  for name in RIVALS:
    folder = folders.read_folder(root / name, "the outputs")
    pairs = folders.match(truth.ids(), folder.names).pairs
    evaluate_quickly(
      truth,
      root / "results" / name,
      tracker=systems.Outputs(name, folder, pairs),
      metrics=MEASURED,
      num_clips=None,
      rows=("generated", "ground_truth", "shuffled_video"),
    )
  paths = [root / "results" / name for name in RIVALS]
  return dict(zip(RIVALS, loading.load_runs(paths)))


def verdict(*runs) -> list[str]:
  return [s.text for s in compare.verdict(runs, columns_of(runs))]


@pytest.mark.parametrize("rival", [name for name in RIVALS if name != "truth"])
def test_nothing_beats_truth(rival, results):
  texts = verdict(results["truth"], results[rival])
  assert not [text for text in texts if "beats truth" in text]


@pytest.mark.parametrize("rival", ["noise", "silence"])
def test_what_is_far_is_told_from_truth(rival, results):
  (line,) = [
    text
    for text in verdict(results["truth"], results[rival])
    if text.startswith(f"truth beats {rival} on")
  ]
  assert "FAD by" in line and "KAD by" in line


@pytest.mark.parametrize("rival", ["rotated", "reversed"])
def test_true_sounds_of_other_clips_are_at_zero(rival, results):
  for metric in ("fad", "kad"):
    found = value_of(results[rival], "generated", metric)
    assert found["value"] == pytest.approx(0, abs=1e-5)
    noise = value_of(results["noise"], "generated", metric)
    assert noise["value"] > 1


def test_no_distance_is_below_zero(results):
  for run in results.values():
    for row in run["rows"]:
      for metric in ("fad", "kad"):
        found = row["metrics"].get(metric, {})
        assert found.get("value", 0) >= 0 and (found.get("low") or 0) >= 0


def test_shuffled_sounds_of_a_folder_are_no_other_set(results):
  """They are the very same sounds, so no distance of sets can tell."""
  for run in results.values():
    (row,) = [r for r in run["rows"] if r["name"] == "shuffled_video"]
    assert not {"fad", "kad"} & set(row["metrics"])
    assert row["metrics"]["level_error"]["value"] is not None
  texts = verdict(results["quieter"])
  assert not [text for text in texts if "is worse than itself" in text]


def _clips(rng, count: int) -> Features:
  windows = rng.normal(size=(count, 1, DIM))
  windows = windows + 0.5 * rng.normal(size=(count, 4, DIM))
  where = np.repeat(np.arange(count), 4)
  return Features(windows.reshape(-1, DIM), where, np.zeros((count, 0)))


def test_sounds_are_paired_with_what_they_are_copies_of():
  rng = RNG(0)
  truth = _clips(rng, 20)
  parts, order = truth.split(), rng.permutation(20)
  made = joined([parts[i] for i in order])
  made.vectors[:] += 0.01 * rng.normal(size=made.vectors.shape)
  np.testing.assert_array_equal(own_truth.pairs(made, truth), order)
  # What is a copy of none stays with the clip that it was made for.
  own = np.arange(20)
  np.testing.assert_array_equal(own_truth.pairs(_clips(rng, 20), truth), own)
  # Two copies of one: the other has what is left.
  made.vectors[made.clips == 3] = made.vectors[made.clips == 4]
  found = own_truth.pairs(made, truth)
  assert sorted(found) == list(range(20)) and (found != order).sum() == 2


def test_the_kernel_distance_is_that_of_pairs_of_clips():
  """Against the definition, with sounds of different lengths."""
  rng = RNG(1)
  x, y = _clips(rng, 7), _clips(rng, 7)
  keep = RNG(2).random(len(x.vectors)) < 0.7
  keep[::4] = True
  x = Features(x.vectors[keep] + 0.5, x.clips[keep], x.logits)
  gamma = 1 / (2 * kernel.median_distance(y.vectors) ** 2 + 1e-8)

  def mean(a, i, b, j):
    one, two = a.vectors[a.clips == i], b.vectors[b.clips == j]
    apart = np.square(one[:, None] - two).sum(-1)
    return np.exp(-gamma * apart).mean()

  h = [
    mean(x, i, x, j) + mean(y, i, y, j) - mean(x, i, y, j) - mean(x, j, y, i)
    for i in range(7)
    for j in range(7)
    if i != j
  ]
  found = kernel.kernel_distance(x, y, own=True)
  assert found.value == pytest.approx(100 * np.mean(h))
  assert found.parts.mean() == pytest.approx(found.value)
  same = kernel.kernel_distance(y, y, own=True)
  assert same.value == same.low == same.high == 0


def test_the_interval_of_the_kernel_distance_holds_it():
  """Sounds that depend on the true ones, of the same distribution: 0 in truth."""
  inside, widths = 0, []
  for trial in range(60):
    rng = RNG(trial)
    truth = _clips(rng, 24)
    rest = _clips(rng, 24).vectors
    made = np.sqrt(0.7) * truth.vectors + np.sqrt(0.3) * rest
    made = Features(made, truth.clips, truth.logits)
    estimate = kernel.kernel_distance(made, truth, own=True)
    inside += estimate.low <= 0 <= estimate.high
    widths.append(estimate.high - estimate.low)
  assert 54 <= inside
  apart = kernel.kernel_distance(made, truth)
  assert np.mean(widths) < 0.7 * (apart.high - apart.low)
