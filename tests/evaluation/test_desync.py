"""DeSync: clips that it judges, both ends, and what is said without weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pretrained import test_synchformer_offset
from tests.pretrained.test_synchformer_offset import network, state  # noqa: F401
from v2a_jax import media
from v2a_jax.evaluation import metrics
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import base, desync
from v2a_jax.hearing import embeddings, synchformer
from v2a_jax.pretrained import offset
from v2a_jax.weights import registry

RATE = offset.SAMPLE_RATE


@pytest.fixture
def judge(network, monkeypatch):  # noqa: F811
  """The judge with drawn weights of a small network, 3 segments."""
  small = synchformer.Judge(network)
  monkeypatch.setattr(synchformer, "_load", lambda: (small, "drawn"))
  monkeypatch.setattr(synchformer, "SEGMENTS", 3)
  monkeypatch.setattr(synchformer, "PIXELS", 32)
  return small


def clip(path, seconds):
  """A clip of noise, as evaluation gives it."""
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 255, (round(25 * seconds), 48, 64, 3), np.uint8)
  media.encode_video(frames, fps=25.0, path=path)
  audio = 0.1 * rng.standard_normal((round(RATE * seconds), 1))
  return Clip(
    id="noise",
    video=path.read_bytes(),
    audio=audio.astype(np.float32),
    seconds=seconds,
  )


def test_both_ends_of_a_clip_are_judged(judge, network, tmp_path):  # noqa: F811
  made = clip(tmp_path / "noise.mp4", 2.6)
  features = embeddings.embed(
    synchformer.Synchformer(), [made.audio], sample_rate=RATE
  )
  sample = base.Sample(
    clip=made,
    waveform=made.audio,
    sample_rate=RATE,
    features={"synchformer": features},
  )
  found = desync.DeSync().get_state(sample)
  # By the network itself: 7 segments of sound and picture, the first and last 3.
  starts = 5120 * np.arange(7)
  sounds = np.stack([made.audio[i : i + 10240, 0] for i in starts])
  sound = jax.jit(network.hear)(sounds)
  frames = media.read_video(made.video).frames
  pixels = network.visual.preprocess(jnp.asarray(frames)[None])[0]
  picture = network.visual.encode_clip(pixels).reshape(7, 8, -1)
  logits = [
    network.compare(picture[None, end], sound[None, end])[0]
    for end in (slice(3), slice(4, 7))
  ]
  late = offset.OFFSETS[np.argmax(logits, axis=-1)]
  assert found == pytest.approx(np.abs(late).mean())


def test_clips_that_are_too_short_are_left_out(tmp_path):
  metric = desync.DeSync()
  make = lambda seconds: clip(tmp_path / "short.mp4", seconds)
  assert not metric.judges(make(4.0))
  assert metric.judges(make(4.8))
  assert (
    test_synchformer_offset.SMALL.segments
    < offset.OffsetConfig().segments
    == 14
  )


def test_it_is_computed_when_asked_for_and_says_what_it_lacks(
  tmp_path, monkeypatch
):
  ids = lambda **options: [m.id for m in metrics.choose(**options)]
  assert "desync" not in ids() and "desync" in ids(toolkits=True)
  synchformer._load.cache_clear()
  monkeypatch.setenv("V2A_CACHE", str(tmp_path))
  monkeypatch.delenv("V2A_WEIGHTS", raising=False)
  with pytest.raises(
    registry.MissingWeightsError, match="v2a weights fetch synchformer"
  ):
    synchformer.Synchformer()
