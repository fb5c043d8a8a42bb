"""The diffusion transformer's optional inputs and outputs."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny
from v2a_jax.models import dit
from v2a_jax.weights import names

T = 8
SIZES = dict(
  width=tiny.WIDTH,
  num_heads=tiny.HEADS,
  joint_depth=1,
  depth=1,
  mlp_dim=8,
  channels=tiny.CHANNELS,
)


def noise(seed):
  return jax.random.normal(jax.random.key(seed), (2, T, tiny.CHANNELS))


NOISY, TIME = noise(0), jnp.asarray([0.3, 0.8])


@functools.cache
def tokens():
  """Encoded conditions, those of every model here."""
  return nnx.jit(lambda encoder, cond: encoder(cond))(
    tiny.diffusion().conditioner, tiny.conditioning()
  )


def make(**changes):
  """A backbone with random weights, none of them zero."""
  config = dit.DiTConfig(**(SIZES | changes))
  return tiny.drawn(lambda: config.make(rngs=nnx.Rngs(0)))


@nnx.jit
def run(backbone, noisy, tokens, inputs):
  return backbone(noisy, TIME, tokens, times=tiny.times(T), **inputs)


def predict(backbone, *, noisy=NOISY, **inputs):
  return run(backbone, noisy, tokens(), inputs)


def test_known_latents_stand_beside_the_noisy_ones():
  known = jnp.arange(T)[None] < jnp.asarray([[3], [0]])
  joined = np.asarray(dit.join_known(NOISY, (noise(1), known)))
  c = tiny.CHANNELS
  assert joined.shape == (2, T, 2 * c + 1)
  np.testing.assert_array_equal(joined[..., :c], NOISY)
  np.testing.assert_array_equal(joined[0, :3, c:-1], noise(1)[0, :3])
  assert not joined[0, 3:, c:].any() and not joined[1, :, c:].any()
  np.testing.assert_array_equal(joined[..., -1], known)
  nothing = (noise(1), jnp.zeros((2, T), bool))
  np.testing.assert_array_equal(
    dit.join_known(NOISY, None), dit.join_known(NOISY, nothing)
  )


def test_an_infilling_model_reads_known_latents_where_they_are():
  infilling = make(infill=True)
  known = jnp.arange(T)[None] < jnp.asarray([[3], [5]])
  latents = noise(1)
  plain = predict(infilling, known=(latents, known))
  hidden = latents.at[:, 6].add(5.0)
  np.testing.assert_array_equal(
    predict(infilling, known=(hidden, known)), plain
  )
  shown = latents.at[:, 1].add(1.0)
  other = predict(infilling, known=(shown, known))
  assert np.abs(other - plain).max() > 1e-3
  assert np.abs(predict(infilling) - plain).max() > 1e-3


def test_other_models_ignore_known_latents():
  model = make()
  known = (noise(1), jnp.ones((2, T), bool))
  np.testing.assert_array_equal(predict(model, known=known), predict(model))


def test_an_average_model_reads_the_end_of_the_interval():
  model = make(average=True)
  plain = predict(model)
  ends = [predict(model, until=jnp.full(2, end)) for end in (0.9, 1.0)]
  assert np.abs(ends[0] - plain).max() > 1e-4
  assert np.abs(ends[0] - ends[1]).max() > 1e-5
  # Fresh, its map is zero: it starts as the model of instantaneous velocities.
  fresh = jax.tree.map(jnp.zeros_like, nnx.state(model.interval))
  nnx.update(model.interval, fresh)
  np.testing.assert_array_equal(
    predict(model, until=jnp.ones(2)), predict(model)
  )


def test_features_of_a_teacher_are_regressed_beside_the_same_prediction():
  model = make(representation=5)
  mask = jnp.arange(T)[None] < jnp.asarray([[T], [5]])
  both = jax.jit(
    lambda noisy: model.represent(
      noisy, TIME, tokens(), times=tiny.times(T), mask=mask
    )
  )
  prediction, features = both(NOISY)
  assert features.shape == (2, T, 5) and features.dtype == jnp.float32
  np.testing.assert_allclose(
    prediction, predict(model, mask=mask), rtol=1e-5, atol=1e-5
  )
  _, other = both(NOISY.at[:, 2].add(1.0))
  assert np.abs(other - features).max() > 1e-3


def test_a_fresh_model_predicts_zero():
  model = dit.DiTConfig(**SIZES).make(rngs=nnx.Rngs(0))
  assert not np.asarray(predict(model)).any()


def test_bfloat16_is_near_float32_and_returns_float32():
  expected, out = predict(make()), predict(make(dtype="bfloat16"))
  assert out.dtype == jnp.float32
  error = np.sqrt(np.mean((out - expected) ** 2) / np.mean(expected**2))
  assert 0 < error < 0.05


def test_a_fresh_block_adds_nothing():
  config = dit.DiTConfig(**SIZES)
  block = dit.AudioBlock(config, rngs=nnx.Rngs(0), dtype=None)
  x = jax.random.normal(jax.random.key(0), (2, T, tiny.WIDTH))
  times = jnp.broadcast_to(jnp.asarray(tiny.times(T)), (2, T))
  out = block(x, times, jnp.ones((2, T), bool), 2 * x)
  np.testing.assert_array_equal(out, x)


def test_masked_latents_are_seen_by_no_other():
  model = make()
  mask = jnp.arange(T)[None] < jnp.asarray([[5], [T]])
  spoiled = jnp.where(mask[..., None], NOISY, 7.0)
  plain = predict(model, mask=mask)
  np.testing.assert_allclose(
    predict(model, noisy=spoiled, mask=mask)[0, :5], plain[0, :5], atol=1e-5
  )
  assert np.abs(predict(model)[0, :5] - plain[0, :5]).max() > 1e-3


def test_no_parameter_is_without_a_gradient():
  graphdef, state = nnx.split(make(joint_depth=2))

  @jax.jit
  @jax.grad
  def gradient(state):
    return jnp.square(predict(nnx.merge(graphdef, state))).sum()

  gradients = names.joined(names.flatten(gradient(state)))
  assert not [name for name, leaf in gradients.items() if not jnp.any(leaf)]
