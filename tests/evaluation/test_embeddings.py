"""Windows, their clips, and the real network where its weights are."""

import pathlib

import numpy as np
import pytest

from v2a_jax.evaluation import metrics
from v2a_jax.evaluation.metrics import frechet
from v2a_jax.hearing import embeddings
from v2a_jax.pretrained import mn04
from v2a_jax.weights import registry as weights

WEIGHTS = pathlib.Path(__file__).parents[2].parent / "shared" / "weights"


class Levels:
  """Two numbers a window: its mean and its largest sample."""

  id, sha256, dim = "levels", "none", 2
  sample_rate, window, hop = 8000, 1.0, 0.5
  repeats = False

  def apply(self, windows):
    both = np.stack([windows.mean(axis=1), windows.max(axis=1)], axis=1)
    return both, both


def test_windows_overlap_and_the_rest_is_left_out():
  ramp = np.arange(21000, dtype=np.float32)[:, None] / 21000
  windows = embeddings.cut(ramp, 8000, embedding=Levels())
  assert windows.shape == (4, 8000)
  np.testing.assert_array_equal(windows[3], ramp[12000:20000, 0])


def test_short_clips_are_padded_and_channels_averaged():
  stereo = np.tile(np.array([[1.0, 0.0]], np.float32), (3000, 1))
  (window,) = embeddings.cut(stereo, 8000, embedding=Levels())
  np.testing.assert_array_equal(window[:3000], 0.5)
  np.testing.assert_array_equal(window[3000:], 0.0)


def test_resampled_to_the_networks_rate():
  time = np.arange(16000) / 16000
  tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)[:, None]
  (window,) = embeddings.cut(tone, 16000, embedding=Levels())
  expected = np.sin(2 * np.pi * 500 * np.arange(8000) / 8000)
  np.testing.assert_allclose(window[200:-200], expected[200:-200], atol=1e-3)


def test_windows_know_their_clip():
  clips = [
    np.full((n, 1), level, np.float32)
    for n, level in [(8000, 0.1), (19000, 0.3), (400, 0.0)]
  ]
  features = embeddings.embed(Levels(), clips, sample_rate=8000)
  np.testing.assert_array_equal(features.clips, [0, 1, 1, 1, 2])
  np.testing.assert_allclose(
    features.vectors[:, 0], [0.1, 0.3, 0.3, 0.3, 0], rtol=1e-5
  )
  np.testing.assert_allclose(features.logits[:, 0], [0.1, 0.3, 0.0], rtol=1e-5)
  parts = features.split()
  assert [len(part.vectors) for part in parts] == [1, 3, 1]
  for i, part in enumerate(parts):
    np.testing.assert_array_equal(
      part.vectors, features.vectors[features.clips == i]
    )
    np.testing.assert_array_equal(part.logits, features.logits[i : i + 1])


def test_whole_clips_of_any_length_keep_their_order():
  class Clips(Levels):
    window = hop = 0.0

  lengths = (8000, 3000, 8000, 12000, 10)
  clips = [np.full((n, 1), i / 8, np.float32) for i, n in enumerate(lengths)]
  features = embeddings.embed(Clips(), clips, sample_rate=8000)
  np.testing.assert_array_equal(features.clips, range(5))
  np.testing.assert_allclose(features.vectors[:, 1], np.arange(5) / 8)
  # Ten samples are padded to a tenth of a second.
  np.testing.assert_allclose(features.vectors[4, 0], 0.5 * 10 / 800, rtol=1e-5)


def test_metrics_choose_embeddings_by_id():
  chosen = {metric.id: metric for metric in metrics.choose(["vggish", "cnn14"])}
  assert {"fad_vggish", "kad_vggish", "fad_cnn14", "kl_cnn14"} <= chosen.keys()
  assert "kl_vggish" not in chosen  # It does not tag.
  assert chosen["fad_cnn14"].embedding.sha256.startswith("e2ee543a")
  assert {"fad_mn04", "fad_aisfx"} <= {metric.id for metric in metrics.METRICS}
  with pytest.raises(ValueError, match="'vgg' is not one of mn04, "):
    metrics.choose(["vgg"])


@pytest.mark.parametrize("id_", embeddings.EMBEDDINGS)
def test_an_embedding_says_what_it_is(id_):
  embedding = embeddings.get(id_)
  assert embedding.dim > 0 and embedding.classes >= 0
  assert str(embedding.sample_rate) in embeddings.span(embedding)
  assert len(embedding.label) > 3 and embedding.about[-1] != "."


def test_mn04_distances_grow_with_noise(monkeypatch, tmp_path):
  """Also, no window depends on the rest of its batch."""
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  if not (WEIGHTS / "mn04_as_mAP_432.pt").is_file():
    pytest.skip("../shared/weights is not here")
  network = embeddings.Mn04(WEIGHTS)
  rng = np.random.default_rng(0)
  time = np.arange(32000) / 16000
  clean = [
    sum(
      np.sin(2 * np.pi * pitch * k * time) * np.exp(-4 * time) / k
      for k in range(1, 6)
    )[:, None].astype(np.float32)
    * 0.2
    for pitch in rng.uniform(120, 800, 12)
  ]
  noise = rng.standard_normal((32000, 1)).astype(np.float32)
  embed = lambda clips: embeddings.embed(network, clips, sample_rate=16000)
  features = embed(clean)
  assert features.vectors.shape == (36, mn04.EMBEDDING_DIM)
  assert features.logits.shape == (12, 527)
  np.testing.assert_allclose(
    embed(clean[11:]).vectors, features.vectors[33:], atol=1e-4
  )
  distances = [
    frechet.frechet_distance(
      embed([c + level * noise for c in clean]).vectors, features.vectors
    )
    for level in (0.001, 0.01, 0.1)
  ]
  assert 0 < distances[0] < distances[1] < distances[2]


def test_missing_weights_are_named(monkeypatch, tmp_path):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  with pytest.raises(weights.MissingWeightsError, match="v2a weights fetch"):
    embeddings.Mn04()
