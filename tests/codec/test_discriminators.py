"""Critics: shapes, views and independence of examples."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.codec import discriminators, stft

CONFIG = discriminators.DiscriminatorConfig(
  channels=2, periods=(2, 3), fft_sizes=(32,), num_bands=4, widths=(4, 5)
)


def test_every_critic_scores_every_example_by_itself():
  @jax.jit
  def run(waveform):
    critics = discriminators.Discriminator(CONFIG, rngs=nnx.Rngs(0))
    return critics(waveform), critics(waveform[1:2])

  (scores, features), (alone, _) = run(
    jax.random.normal(jax.random.key(0), (3, 200, 2))
  )
  assert len(scores) == 3 and len(features) == 3 * 3
  assert all(x.shape[0] == 3 for x in scores + features)
  for all_scores, score in zip(scores, alone):
    np.testing.assert_allclose(all_scores[1:2], score, atol=1e-4)


def test_a_period_view_holds_every_pth_sample():
  waveform = jnp.arange(10.0).reshape(1, 10, 1)
  view = discriminators._by_period(waveform, 3)
  assert view.shape == (1, 3, 4, 1)
  np.testing.assert_array_equal(view[0, 1, :, 0], [1, 4, 7, 0])


def test_bands_hold_their_own_frequencies():
  time = np.arange(512)
  sine = np.sin(2 * np.pi * time * 11 / 32)[None, :, None]  # bin 11 of 16
  view = discriminators._by_band(jnp.asarray(sine, jnp.float32), 32, 4)
  assert view.shape == (1, 4, 1 + 512 // 8, 8)
  power = np.square(view[0, :, 8:-8]).sum(axis=(1, 2))
  assert power.argmax() == 2 and stft.hann(32).shape == (32,)
