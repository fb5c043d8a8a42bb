"""The judge's network: what a lag is, and what must not matter to it."""

from flax import nnx
import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from v2a_jax.basics.settings import SettingError
from v2a_jax.sync import inputs
from v2a_jax.sync.network import SyncConfig, correlate, loudness
from v2a_jax.sync.verdict import Verdict

TINY = SyncConfig(
  pixels=16,
  pixel_widths=(4, 4, 4),
  band_widths=(4, 4, 4),
  width=8,
  dilations=(1,),
  features=4,
  lags=4,
  reach=4,
)


@pytest.fixture(scope="module")
def run():
  model = TINY.make(rngs=nnx.Rngs(0))
  graphdef, state = nnx.split(model)
  call = jax.jit(lambda *args: nnx.merge(graphdef, state)(*args))
  return lambda *args: np.asarray(call(*args))


def test_correlation_is_that_of_numpy_at_each_lag():
  rng = np.random.default_rng(0)
  a, v = rng.normal(size=(2, 40, 3)), rng.normal(size=(2, 40, 3))
  mask = np.arange(40) < 33
  masks = np.broadcast_to(mask, (2, 40))
  found = np.asarray(correlate(a, v, masks, masks, 6))
  a, v = (
    (x - x[:, mask].mean(1, keepdims=True)) * mask[:, None] for x in (a, v)
  )
  for b in range(2):
    for k in range(3):
      scale = np.linalg.norm(a[b, :, k]) * np.linalg.norm(v[b, :, k])
      whole = np.correlate(a[b, :, k], v[b, :, k], mode="full") / scale
      np.testing.assert_allclose(found[b, :, k], whole[33:46], atol=2e-3)


def test_a_later_sound_has_a_positive_lag():
  times = np.arange(60)
  hit = lambda at: np.exp(-0.5 * (times - at) ** 2)[None, :, None]
  mask = np.ones((1, 60), bool)
  curve = correlate(hit(34.0), hit(30.0), mask, mask, 6)[0, :, 0]
  logits = jnp.concatenate([30 * curve, jnp.zeros(1)])
  verdict = Verdict(logits, SyncConfig(reach=6).offsets)
  assert float(verdict.offset) == pytest.approx(80, abs=1)
  assert float(verdict.in_time) < 0.3


def test_what_is_outside_the_clip_does_not_matter(run):
  rng = np.random.default_rng(1)
  grey = rng.uniform(size=(1, 20, 16, 16)).astype("f4")
  sound = rng.normal(size=(1, 20 * 640)).astype("f4")
  frame_mask = np.arange(20)[None] < 13
  sound_mask = np.arange(40)[None] < 26
  other = grey.copy()
  other[:, 13:] = rng.uniform(size=(1, 7, 16, 16))
  sound = sound * np.repeat(sound_mask, 320, axis=1)
  one = run(grey, frame_mask, sound, sound_mask)
  np.testing.assert_allclose(
    run(other, frame_mask, sound, sound_mask), one, atol=1e-5
  )
  longer = lambda x, n: np.concatenate([x, np.zeros_like(x[:, :n])], axis=1)
  padded = run(
    longer(grey, 10),
    longer(frame_mask, 10),
    longer(sound, 6400),
    longer(sound_mask, 20),
  )
  np.testing.assert_allclose(padded, one, atol=1e-4)


def test_gain_of_sound_and_contrast_of_picture_do_not_matter(run):
  rng = np.random.default_rng(2)
  grey = rng.uniform(size=(1, 20, 16, 16)).astype("f4")
  sound = 0.1 * rng.normal(size=(1, 20 * 640)).astype("f4")
  masks = np.ones((1, 20), bool), np.ones((1, 40), bool)
  one = run(grey, masks[0], sound, masks[1])
  np.testing.assert_allclose(
    run(grey, masks[0], 0.1 * sound, masks[1]), one, atol=1e-3
  )


def test_loudness_is_librosas_mel_spectrum():
  sound = np.random.default_rng(3).normal(size=16000).astype("f4")
  mask = np.ones((1, 50), bool)
  found = np.asarray(loudness(sound[None], mask))[0]
  mel = librosa.feature.melspectrogram(
    y=sound, sr=16000, n_fft=512, hop_length=160, n_mels=64, fmin=60, fmax=7600,
    pad_mode="reflect",
  )[:, :100].T  # fmt: skip
  decibels = 10 * np.log10(mel)
  wanted = np.maximum(decibels - decibels.max() + 70, 0) / 70 * 1.5
  np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_the_frame_that_is_shown_is_the_nearest():
  times = jnp.array([0.0, 0.1, 0.2, 9.0])
  mask = jnp.array([True, True, True, False])
  at = jnp.array([0.0, 0.04, 0.1, 0.19, 0.24, 0.3])
  index, there = inputs.shown(times, mask, at)
  np.testing.assert_array_equal(index, [0, 0, 1, 2, 2, 2])
  np.testing.assert_array_equal(there, [1, 1, 1, 1, 1, 0])


def test_a_picture_is_seen_as_opencv_shrinks_it():
  cv2 = pytest.importorskip("cv2")
  frames = np.random.default_rng(4).integers(0, 255, (2, 32, 48, 3), np.uint8)
  framing = inputs.whole(2)
  same = inputs.look(frames[:, :, :32], framing, 32)
  wanted = [cv2.cvtColor(f[:, :32], cv2.COLOR_RGB2GRAY) / 255 for f in frames]
  np.testing.assert_allclose(same, wanted, atol=5e-3)
  flipped = framing.replace(scale=jnp.array([1.0, -1.0]))
  np.testing.assert_allclose(
    inputs.look(frames[:, :, :32], flipped, 32),
    np.stack(wanted)[:, :, ::-1],
    atol=5e-3,
  )
  small = np.asarray(inputs.look(frames, framing, 16))
  assert small.shape == (2, 16, 16)
  np.testing.assert_allclose(
    small.mean(), np.mean(frames @ [0.299, 0.587, 0.114]) / 255, atol=0.01
  )


@pytest.mark.parametrize(
  "changes, said",
  [
    (dict(pixels=20), "pixels=20"),
    (dict(reach=5), "reach=5"),
    (dict(pixel_widths=(4, 4)), "pixel_widths"),
    (dict(sample_rate=8000), "sample_rate=8000"),
  ],
)
def test_sizes_that_do_not_go_are_refused(changes, said):
  with pytest.raises(SettingError, match=said):
    SyncConfig(**changes)
