"""The judge's objective: training moves it, and nothing but time gives d away."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from v2a_jax.basics.settings import SettingError
from v2a_jax.batch import Batch, Conditioning
from v2a_jax.objectives.sync import SyncObjective
from v2a_jax.sync.network import RATE, SyncConfig

SIZES = SyncConfig(
  pixels=16,
  pixel_widths=(8, 8, 8),
  band_widths=(8, 8, 8),
  width=24,
  dilations=(1, 2),
  features=8,
  lags=8,
  reach=10,
)
SECONDS, B = 2.4, 4
OBJECTIVE = SyncObjective(seconds=2.0)


def flashes(seed: int) -> Batch:
  """Clips whose frames flash where the sound clicks."""
  rng = np.random.default_rng(seed)
  frames = np.full((B, 60, 16, 16, 3), 40, np.uint8)
  audio = 1e-3 * rng.normal(size=(B, round(SECONDS * RATE), 1)).astype("f4")
  tail = np.exp(-np.arange(1600) / 200) * np.sin(np.arange(1600))
  for i in range(B):
    for frame in rng.choice(np.arange(2, 54, 4), 6, replace=False):
      frames[i, frame : frame + 2, 4:12, 4:12] = 220
      audio[i, frame * 640 : frame * 640 + 1600, 0] += 0.5 * tail
  times = np.tile(np.arange(60, dtype=np.float32) / 25, (B, 1))
  nothing = np.zeros((B, 1), bool)
  cond = Conditioning(
    frames=jnp.asarray(frames),
    frame_times=jnp.asarray(times),
    frame_mask=jnp.ones((B, 60), bool),
    prompt=jnp.zeros((B, 1), int),
    prompt_mask=nothing,
    transcript=jnp.zeros((B, 1), int),
    transcript_times=jnp.zeros((B, 1)),
    transcript_durations=jnp.zeros((B, 1)),
    transcript_mask=nothing,
    transcript_timed=jnp.zeros(B, bool),
    presence=jnp.full((B, 3), 2),
  )
  return Batch(
    audio=jnp.asarray(audio),
    duration=jnp.full(B, SECONDS),
    cond=cond,
    example=np.arange(B),
  )


def split():
  make = lambda: SIZES.make(rngs=nnx.Rngs(0))
  return nnx.split(make())


def test_training_moves_it():
  """A few steps find by how much sounds were moved."""
  graphdef, params = split()
  optimizer = optax.adam(5e-3)
  plain = dataclasses.replace(OBJECTIVE, augment=False)

  @jax.jit
  def step(params, state, batch, key):
    def mean(params):
      model = nnx.merge(graphdef, params)
      return plain.loss(model, batch, key=key, train=True)[0].mean()

    loss, grads = jax.value_and_grad(mean)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss

  @jax.jit
  def evaluate(params, batch):
    model = nnx.merge(graphdef, params)
    return plain.evaluate(model, batch, key=jax.random.key(0))

  held_out = flashes(100)
  before = evaluate(params, held_out)
  state = optimizer.init(params)
  for i in range(150):
    params, state, loss = step(
      params, state, flashes(i % 20), jax.random.key(i)
    )
  after = evaluate(params, held_out)
  assert after["loss"].mean() < 0.7 * before["loss"].mean()
  assert after["within_40ms"].mean() >= 0.75
  assert after["first"].mean() >= 0.75


def test_losses_are_finite_per_clip_and_none_is_learned_too():
  graphdef, params = split()
  batch = flashes(0)
  rates = dict(other_rate=0.3, silence_rate=0.3, clicks_rate=0.3)
  objective = dataclasses.replace(OBJECTIVE, **rates)

  def mean(params):
    model = nnx.merge(graphdef, params)
    loss, metrics = objective.loss(
      model, batch, key=jax.random.key(3), train=True
    )
    return loss.mean(), (loss, metrics)

  grads, (loss, metrics) = jax.jit(jax.grad(mean, has_aux=True))(params)
  assert loss.shape == (B,) and all(m.shape == (B,) for m in metrics.values())
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(grads))
  assert float(jnp.abs(grads["absent"]["kernel"][...]).max()) > 0


def test_clips_without_picture_or_sound_have_a_finite_loss():
  graphdef, params = split()
  batch = flashes(0)
  blank = batch.replace(
    audio=0 * batch.audio,
    duration=0 * batch.duration,
    cond=batch.cond.replace(frame_mask=jnp.zeros((B, 60), bool)),
  )

  @jax.jit
  def mean(params):
    model = nnx.merge(graphdef, params)
    key = jax.random.key(1)
    return OBJECTIVE.loss(model, blank, key=key, train=True)[0].mean()

  loss, grads = jax.value_and_grad(mean)(params)
  assert np.isfinite(loss)
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(grads))


def test_clips_that_are_too_short_for_the_window_are_refused():
  graphdef, params = split()
  objective = SyncObjective(seconds=2.2)
  with pytest.raises(SettingError, match="seconds=2.2.*2.4 s.*0.2 s"):
    objective.loss(
      nnx.merge(graphdef, params),
      flashes(0),
      key=jax.random.key(0),
      train=True,
    )


def test_shares_of_more_than_all_are_refused():
  with pytest.raises(SettingError, match="is more than 1"):
    SyncObjective(other_rate=0.6, silence_rate=0.6)
