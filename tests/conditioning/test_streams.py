"""One or two streams of frames: any rate, padding and missing frames."""

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny

T = 9
STREAMS = {"single": None, "pixels": tiny.PIXELS, "vit": tiny.TOWER}
TWO = ("pixels", "vit")


@functools.cache
def model_of(streams):
  return nnx.split(tiny.diffusion(semantic=STREAMS[streams]))


def predict(cond, *, streams, shift=0.0):
  """[b t c], for fixed noise; every clock `shift` seconds late."""
  graphdef, state = model_of(streams)
  return run(graphdef, state, cond, shift)


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, state, cond, shift):
  model = nnx.merge(graphdef, state)
  b = cond.presence.shape[0]
  noisy = jax.random.normal(jax.random.key(3), (1, T, tiny.CHANNELS))
  later = cond.replace(
    frame_times=cond.frame_times + shift,
    transcript_times=cond.transcript_times + shift,
  )
  tokens = model.encode(later)
  # Prompts have no time: they stay at the window's start.
  early = jnp.arange(tokens.text_times.shape[1]) < cond.prompt.shape[1]
  tokens = dataclasses.replace(
    tokens, text_times=tokens.text_times + shift * early
  )
  return model(
    jnp.tile(noisy, (b, 1, 1)),
    jnp.full(b, 0.4),
    tokens,
    times=tiny.times(T) + shift,
  )


# Of one shape throughout, so that little is compiled.
COND = tiny.conditioning(4, n=8)


@pytest.mark.parametrize("streams", STREAMS)
def test_any_rate_and_any_duration(streams):
  cond, rng = COND, np.random.default_rng(0)
  times = [np.arange(8) / fps for fps in (12, 25, 29.97)]
  times.append(np.sort(rng.uniform(0, 2, 8)))
  cond = cond.replace(
    frame_times=np.stack(times).astype(np.float32),
    # All of the clip, or as little as one frame of it.
    frame_mask=np.arange(8) < np.array([[8], [5], [1], [8]]),
  )
  out = predict(cond, streams=streams)
  assert np.isfinite(out).all()
  faster = cond.replace(frame_times=cond.frame_times * np.float32(0.7))
  moved = np.abs(out - predict(faster, streams=streams)).max(axis=(1, 2))
  assert (moved[[0, 1, 3]] > 1e-4).all()  # one frame, at 0, stays where it is


@pytest.mark.parametrize("streams", STREAMS)
def test_missing_frames_do_not_matter_wherever_they_are(streams):
  mask = np.ones((4, 8), bool)
  mask[0, [2, 3, 6]] = mask[1, [0, 7]] = mask[2, 1:] = False
  cond = COND.replace(frame_mask=mask)
  there = mask[..., None, None, None]
  other = np.where(there, cond.frames, 255 - cond.frames).astype(np.uint8)
  spoiled = cond.replace(
    frames=other, frame_times=np.where(mask, cond.frame_times, 9.0)
  )
  out = predict(cond, streams=streams)
  np.testing.assert_allclose(predict(spoiled, streams=streams), out, atol=1e-5)
  full = cond.replace(frame_mask=np.ones_like(mask))
  assert np.abs(predict(full, streams=streams) - out).max() > 1e-3


@pytest.mark.parametrize("streams", STREAMS)
def test_padding_changes_nothing(streams):
  cond = COND
  more = lambda x: np.pad(x, ((0, 0), (0, 3)) + ((0, 0),) * (x.ndim - 2))
  padded = cond.replace(
    frames=more(cond.frames),
    frame_times=more(cond.frame_times),
    frame_mask=more(cond.frame_mask),
  )
  np.testing.assert_allclose(
    predict(padded, streams=streams), predict(cond, streams=streams), atol=1e-5
  )


@pytest.mark.parametrize("streams", TWO)
def test_an_example_does_not_depend_on_its_batch(streams):
  cond = COND.without("video", where=np.arange(4) == 0)
  both = predict(cond, streams=streams)
  for i in range(2):
    row = jax.tree.map(lambda x, i=i: x[i : i + 1], cond)
    alone = predict(row, streams=streams)
    np.testing.assert_allclose(alone, both[i : i + 1], atol=1e-5)


@pytest.mark.parametrize("streams", TWO)
def test_shifting_every_clock_changes_nothing(streams):
  """As exactly as rotary angles in float32 after three seconds."""
  cond = COND
  plain = predict(cond, streams=streams)
  shifted = predict(cond, streams=streams, shift=3.0)
  np.testing.assert_allclose(shifted, plain, atol=2e-3)
  late = cond.replace(frame_times=cond.frame_times + np.float32(0.1))
  assert np.abs(predict(late, streams=streams) - plain).max() > 5e-3


@pytest.mark.parametrize("streams", TWO)
def test_a_dropped_video_is_dropped_from_both_streams(streams):
  graphdef, state = model_of(streams)
  encoder = nnx.merge(graphdef, state).conditioner
  cond = COND.without("video", where=np.arange(4) == 0)
  tokens = nnx.jit(lambda encoder, cond: encoder(cond))(encoder, cond)
  for name, mask, null in (
    ("sync", tokens.sync_mask, encoder.null_video),
    ("video", tokens.video_mask, encoder.null_semantic),
  ):
    out = getattr(tokens, name)
    np.testing.assert_array_equal(mask[0], np.arange(mask.shape[1]) == 0)
    assert mask[1].all()
    np.testing.assert_allclose(out[0, 0], null[...], atol=1e-6)
    assert np.abs(out[1, 0] - null[...]).max() > 1e-2
  assert tokens.video.shape[1] == 4 and tokens.sync.shape[1] == 8
  np.testing.assert_allclose(tokens.video_times, cond.frame_times[:, ::2])


@pytest.mark.parametrize("streams", STREAMS)
def test_frames_need_not_be_square(streams):
  graphdef, state = model_of(streams)
  encoder = nnx.merge(graphdef, state).conditioner.tuned_encoder
  rng = np.random.default_rng(0)
  wide = rng.integers(0, 255, (1, 4, 16, 40, 3), dtype=np.uint8)
  embed = nnx.jit(
    lambda encoder, x: encoder.embed_frames(x, np.ones((1, 4), bool))
  )
  out = embed(encoder, wide)
  assert np.isfinite(out).all()
  # The far right of the frames matters, too.
  other = wide.copy()
  other[:, :, :, 32:] = 255 - other[:, :, :, 32:]
  assert np.abs(out - embed(encoder, other)).max() > 1e-4


def test_a_slow_stream_depends_on_changes_between_its_frames():
  graphdef, state = model_of("pixels")
  encoder = nnx.merge(graphdef, state).conditioner.semantic
  cond = tiny.conditioning(1, n=6)
  embed = nnx.jit(
    lambda encoder, frames, stride: encoder.embed_frames(
      frames, cond.frame_mask, stride=stride
    ),
    static_argnums=2,
  )
  slow = embed(encoder, cond.frames, 2)
  every = embed(encoder, cond.frames, 1)
  np.testing.assert_allclose(slow, every[:, ::2], atol=1e-5)
  frames = cond.frames.copy()
  frames[:, 3] = 255 - frames[:, 3]  # which is not of the slow stream
  other = embed(encoder, frames, 2)
  moved = np.abs(other - slow).max(axis=(0, 2)) > 1e-4
  assert moved.tolist() == [False, True, True]
