"""Times of words: spread evenly at first, then learned from the frames."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import diffusion_tiny
from tests import tiny
from v2a_jax.batch import ABSENT, PRESENT, UNKNOWN
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig
from v2a_jax.experiment.experiment import Experiment
from v2a_jax.experiment.sections import ConfigError
from v2a_jax.objectives import base
from v2a_jax.objectives.diffusion import Diffusion
from v2a_jax.soundtrack.request import Request

SECONDS, FPS, WORDS, STEPS = 1.6, 10.0, 4, 300
FRAMES = int(SECONDS * FPS)
CONFIG = ConditionerConfig(
  width=tiny.WIDTH, num_heads=tiny.HEADS, vocab_size=tiny.VOCAB, patch_size=8,
  spatial_width=8, spatial_heads=2, pool_queries=2, temporal_depth=1,
  aligner_depth=1, seconds=SECONDS,
)  # fmt: skip
KEY = jax.random.key(0)


def flashes(b, seed):
  """Clips whose frames flash as each of 2 to 4 words begins."""
  rng = np.random.default_rng(seed)
  cond = tiny.conditioning(b, n=FRAMES, size=8, words=WORDS, seed=seed)
  count = rng.integers(2, WORDS + 1, b)
  mask = np.arange(WORDS) < count[:, None]
  frames = np.full((b, FRAMES, 8, 8, 3), 30, np.uint8)
  times = np.zeros((b, WORDS), np.float32)
  for i, n in enumerate(count):
    at = np.sort(rng.choice(FRAMES - 2, n, replace=False) + 1)
    frames[i, at] = 220
    times[i, :n] = at / FPS
  return cond.replace(
    frames=frames, transcript_mask=mask, transcript_times=times
  )


FRESH = Conditioner(CONFIG, rngs=nnx.Rngs(0))


@jax.jit
def _encode(params, cond):
  return nnx.merge(nnx.graphdef(FRESH), params)(cond)


def encoded(conditioner, cond):
  return _encode(nnx.state(conditioner), cond)


def predicted(conditioner, cond):
  untimed = cond.replace(transcript_timed=np.zeros(len(cond.presence), bool))
  return encoded(conditioner, untimed)


def error(onsets, cond):
  mask = cond.transcript_mask
  return float(np.abs(np.asarray(onsets) - cond.transcript_times)[mask].mean())


@pytest.fixture(scope="module")
def trained():
  """A conditioner trained with the times of half its clips, and its metric."""
  graphdef, params = nnx.split(FRESH)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))

  def loss(params, cond, key):
    shown = base.drop_conditions(cond, key=key, rate=0.1, untimed_rate=0.1)
    tokens = nnx.merge(graphdef, params)(shown)
    zero = jnp.zeros(len(cond.presence))
    losses, metrics = base.with_alignment(
      zero, {}, tokens, shown=shown, known=cond, weight=1.0
    )
    return losses.mean(), metrics["alignment_error"].mean()

  def step(carry, now):
    params, state = carry
    cond, key = now
    (_, seconds), grads = jax.value_and_grad(loss, has_aux=True)(
      params, cond, key
    )
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), seconds

  cond = flashes(STEPS * 16, seed=0)
  half = np.arange(STEPS * 16) % 2 == 0
  # Unknown times are wrong, so that nothing can be learned from them.
  times = np.where(half[:, None], cond.transcript_times, 9.0)
  cond = cond.replace(transcript_timed=half, transcript_times=times)
  batches = jax.tree.map(lambda x: x.reshape(STEPS, 16, *x.shape[1:]), cond)
  (params, _), seconds = jax.jit(
    lambda params, batches, keys: jax.lax.scan(
      step, (params, optimizer.init(params)), (batches, keys)
    )
  )(params, batches, jax.random.split(KEY, STEPS))
  return nnx.merge(graphdef, params), float(seconds[-20:].mean())


def test_untrained_words_are_spread_evenly():
  cond = flashes(8, seed=1)
  onsets = predicted(FRESH, cond).spans[0]
  for row, mask in zip(np.asarray(onsets), cond.transcript_mask):
    n = mask.sum()
    np.testing.assert_allclose(
      row[:n], (np.arange(n) + 0.5) / n * SECONDS, atol=1e-4
    )


def test_it_learns_onsets_from_the_frames_with_half_of_the_times(trained):
  conditioner, seconds = trained
  cond = flashes(32, seed=10_000)
  even = predicted(FRESH, cond).spans[0]
  learned = predicted(conditioner, cond).spans[0]
  assert error(learned, cond) < 0.6 * error(even, cond)
  assert seconds == pytest.approx(error(learned, cond), rel=0.8)


def test_onsets_increase_inside_the_window_whichever_conditions_are_dropped(
  trained,
):
  conditioner, _ = trained
  cond = flashes(8, seed=3)
  for shown in (cond, cond.without("video"), cond.without("transcript")):
    onsets = np.asarray(predicted(conditioner, shown).spans[0])
    assert np.isfinite(onsets).all()
    rows = zip(onsets, cond.transcript_mask)
    words = [row[mask] for row, mask in rows if shown.transcript_mask.any()]
    assert all((np.diff(row) >= 0).all() for row in words)
    assert onsets.min() >= 0 and onsets.max() <= SECONDS


def test_onsets_do_not_depend_on_masked_frames_and_tokens(trained):
  conditioner, _ = trained
  cond = flashes(8, seed=4)
  length = np.array([FRAMES, 8, 0, FRAMES, 5, 3, 0, FRAMES])
  frame_mask = np.arange(FRAMES) < length[:, None]
  cond = cond.replace(frame_mask=frame_mask)
  other = cond.replace(
    transcript=np.where(cond.transcript_mask, cond.transcript, 7),
    frames=np.where(frame_mask[..., None, None, None], cond.frames, 99),
    frame_times=np.where(frame_mask, cond.frame_times, 1.3).astype(np.float32),
  )
  a, b = (np.asarray(predicted(conditioner, c).spans[0]) for c in (cond, other))
  mask = cond.transcript_mask
  np.testing.assert_allclose(a[mask], b[mask], atol=1e-4)
  # A clip that ends after 8 frames has its words before it ends.
  assert a[1][mask[1]].max() < 8 / FPS + 0.5


def test_known_times_are_used_and_others_are_predicted(trained):
  conditioner, _ = trained
  cond = flashes(8, seed=5)
  cond = cond.replace(transcript_timed=np.arange(8) == 0)
  tokens = encoded(conditioner, cond)
  times = np.asarray(tokens.text_times)[:, -WORDS:]
  np.testing.assert_array_equal(times[0], cond.transcript_times[0])
  np.testing.assert_array_equal(times[1], np.asarray(tokens.spans[0])[1])


def test_gradients_of_the_tokens_reach_the_aligner():
  cond = flashes(2, seed=6)
  params = nnx.state(FRESH)

  def loss(params, timed):
    shown = cond.replace(transcript_timed=jnp.full(2, timed))
    text = nnx.merge(nnx.graphdef(FRESH), params)(shown).text
    return (text * jnp.arange(text.shape[-1])).sum()

  gradient = jax.jit(jax.grad(loss))
  norms = [
    float(optax.global_norm(gradient(params, timed).aligner.rate))
    for timed in (False, True)
  ]
  assert norms[0] > 1e-4 and norms[1] == 0


def test_only_examples_with_known_times_have_an_alignment_loss():
  model = tiny.diffusion()
  model.conditioner = FRESH
  cond = flashes(4, seed=7)
  cond = cond.without("transcript", where=np.arange(4) == 1)
  cond = cond.replace(transcript_timed=np.array([True, True, False, True]))
  latents = np.random.default_rng(0).normal(size=(4, 5, tiny.CHANNELS))
  batch = tiny.batch(latents.astype(np.float32), b=4, cond=cond)
  loss, metrics = tiny.loss(
    Diffusion(alignment_weight=2.0), model, batch, key=KEY, train=False
  )
  paid = np.asarray(loss - metrics["error"])
  known = (cond.transcript_times, cond.transcript_durations)
  far, wrong = (
    [
      np.abs(row - true)[mask].mean() if mask.any() and timed else 0.0
      for row, true, mask, timed in zip(
        np.asarray(predicted),
        right,
        cond.transcript_mask,
        cond.transcript_timed,
      )
    ]
    for predicted, right in zip(encoded(FRESH, cond).spans, known)
  )
  np.testing.assert_allclose(paid, 2.0 * np.add(far, wrong), atol=1e-3)
  metric = metrics["alignment_error"]
  assert float(metric.mean()) == pytest.approx(sum(far) / 2, rel=1e-3)


def test_known_times_are_hidden_now_and_then():
  cond = tiny.conditioning(4000, n=1, size=8, words=1)
  kept = base.drop_conditions(cond, key=KEY, rate=0.2, untimed_rate=0.4)
  timed = np.asarray(kept.transcript_timed).astype(float)
  assert timed.mean() == pytest.approx(0.6, abs=0.03)
  there = np.asarray(kept.transcript_mask[:, 0]).astype(float)
  assert abs(np.corrcoef(timed, there)[0, 1]) < 0.06


def test_no_transcript_asks_for_no_speech_as_the_data_does():
  from data_pipelines import schema

  record = dict(tags=["effects"], transcript="")
  presence = schema.presence(record)
  assert presence[0] == ABSENT
  for words in ("", "  "):
    assert Request(transcript=words).presence[0] == ABSENT
  assert Request(transcript="hello").presence[0] == PRESENT
  # Without tags speech is unknown, as after dropping the condition.
  assert schema.presence(dict(tags=[], transcript=""))[0] == UNKNOWN
  cond = flashes(8, seed=8)
  cond = cond.replace(presence=np.tile(presence, (8, 1))).without("transcript")
  asked, dropped = cond, cond.without("presence")
  shown = [np.asarray(encoded(FRESH, c).summary) for c in (asked, dropped)]
  assert np.abs(shown[0] - shown[1]).max() > 1e-3


def test_a_weight_without_an_aligner_is_refused():
  config = diffusion_tiny.get_config()
  config.objective.alignment_weight = 1.0
  config.model.conditioner.aligner_depth = 0
  with pytest.raises(ConfigError, match="alignment_weight=1.0.*aligner_depth"):
    Experiment.from_config(config)
  config.model.conditioner.aligner_depth = 1
  experiment = Experiment.from_config(config)
  assert experiment.objective.alignment_weight == 1.0
  assert experiment.abstract_conditioner.aligner.seconds == config.data.seconds
