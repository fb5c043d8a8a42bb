"""Transforms and mel filters against librosa and numpy."""

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from v2a_jax.codec import stft


def test_stft_is_that_of_librosa():
  signal = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
  ours = stft.stft(jnp.asarray(signal), n_fft=128, hop=32)
  theirs = librosa.stft(signal, n_fft=128, hop_length=32, pad_mode="constant")
  np.testing.assert_allclose(ours, np.swapaxes(theirs, 1, 2), atol=1e-4)


@pytest.mark.parametrize("n_fft, n_mels", [(128, 16), (512, 64), (2048, 256)])
def test_mel_filters_are_those_of_librosa(n_fft, n_mels):
  ours = stft.mel_filters(sample_rate=16000, n_fft=n_fft, n_mels=n_mels)
  theirs = librosa.filters.mel(sr=16000, n_fft=n_fft, n_mels=n_mels)
  np.testing.assert_allclose(ours.T, theirs, atol=1e-6)


def test_istft_returns_what_was_framed_around_half_hops():
  hop, n_fft, count = 16, 64, 20
  signal = np.random.default_rng(0).normal(size=count * hop)
  edge = (n_fft - hop) // 2
  frames = stft.frame(jnp.pad(jnp.asarray(signal), edge), n_fft, hop)
  spectrum = jnp.fft.rfft(frames * stft.hann(n_fft))
  assert spectrum.shape == (count, n_fft // 2 + 1)
  np.testing.assert_allclose(stft.istft(spectrum, hop=hop), signal, atol=1e-4)


def test_overlap_add_is_the_transpose_of_frame():
  rng = np.random.default_rng(0)
  signal, frames = rng.normal(size=40), rng.normal(size=(4, 16))
  left = jnp.sum(stft.frame(jnp.asarray(signal), 16, 8) * frames)
  right = jnp.sum(signal * stft.overlap_add(jnp.asarray(frames), 8))
  np.testing.assert_allclose(left, right, rtol=1e-5)


def test_a_hop_that_does_not_divide_the_window_is_refused():
  with pytest.raises(ValueError, match="hop 30 does not divide"):
    stft.frame(jnp.zeros(100), 64, 30)
