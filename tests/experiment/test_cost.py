"""FLOPs and residuals from a jaxpr; the closed forms of all models agree."""

import functools

from flax import nnx
import jax
from jax.interpreters import partial_eval as pe
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from v2a_jax.codec.autoencoder import Codec, CodecConfig
from v2a_jax.codec.dac import Dac, DacConfig
from v2a_jax.conditioning.encoder import Conditioner, ConditionerConfig
from v2a_jax.conditioning.text import PromptEncoderConfig
from v2a_jax.experiment import cost as jaxprs
from v2a_jax.models import layers
from v2a_jax.models.ar import TokenModel, TokenModelConfig
from v2a_jax.models.ar_latents import LatentModel, LatentModelConfig
from v2a_jax.models.dit import DiT, DiTConfig
from v2a_jax.models.generator import Generator
from v2a_jax.pretrained import clap_text, t5

ONE = 2 * 3 * 4 * 5  # FLOPs of [3 4] @ [4 5]


def array(*shape, dtype=np.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


X, W = array(3, 4), array(4, 5)


def test_a_product_counts_two_for_each_multiply_add():
  assert jaxprs.flops_of(jnp.matmul, X, W) == ONE
  batched = functools.partial(jnp.einsum, "bhqd,bhkd->bhqk")
  shapes = array(2, 3, 7, 4), array(2, 3, 5, 4)
  assert jaxprs.flops_of(batched, *shapes) == 2 * (2 * 3 * 7 * 5) * 4
  assert jaxprs.flops_of(lambda x: jnp.tanh(x) + x, X) == 0


@pytest.mark.parametrize(
  "settings,kernel,multiplied",
  [
    (dict(), (3, 6, 8), 20 * 3 * 6 * 8),
    (dict(window_strides=(2,)), (3, 6, 8), 10 * 3 * 6 * 8),
    (dict(rhs_dilation=(4,)), (3, 6, 8), 20 * 3 * 6 * 8),
    (dict(feature_group_count=2), (3, 3, 8), 20 * 3 * 3 * 8),
    # Between two inputs lies a zero that nobody has to multiply.
    (dict(lhs_dilation=(2,), padding=((1, 2),)), (3, 6, 8), 20 * 3 * 6 * 8),
  ],
)
def test_a_convolution_counts_its_taps(settings, kernel, multiplied):
  settings = dict(window_strides=(1,), padding="SAME") | settings
  conv = functools.partial(
    jax.lax.conv_general_dilated,
    dimension_numbers=("NWC", "WIO", "NWC"),
    **settings,
  )
  found = jaxprs.flops_of(conv, array(1, 20, 6), array(*kernel))
  assert found == 2 * multiplied


def test_the_weight_gradient_of_a_convolution_costs_what_the_forward_does():
  conv = lambda x, w: jax.lax.conv_general_dilated(
    x, w, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
  )
  shapes = array(2, 20, 6), array(3, 6, 8)
  forward = jaxprs.flops_of(conv, *shapes)
  both = jaxprs.flops_of(jax.grad(lambda w, x: conv(x, w).sum()), *shapes[::-1])
  assert both == pytest.approx(2 * forward)


def test_what_is_called_is_followed():
  @jax.custom_vjp
  def custom(x, w):
    return x @ w

  custom.defvjp(lambda x, w: (x @ w, (x, w)), lambda saved, g: saved)
  for called in (jax.jit(jnp.matmul), jax.checkpoint(jnp.matmul), custom):
    assert jaxprs.flops_of(lambda x, w, f=called: f(x, w) + 1, X, W) == ONE


def test_a_scan_counts_once_an_iteration():
  square = array(4, 4)

  def scanned(x, w):
    step = lambda x, _: jax.lax.scan(lambda x, _: (x @ w, None), x, None, 2)
    return jax.lax.scan(step, x, None, 7, unroll=3)[0]

  assert jaxprs.flops_of(scanned, X, square) == 14 * 2 * 3 * 4 * 4


def test_a_branch_counts_the_largest():
  def branched(x, w):
    branches = (lambda: x[:, :1] * w[0], lambda: x @ w, lambda: 2 * (x @ w))
    return jax.lax.switch(x[0, 0].astype(int), branches)

  assert jaxprs.flops_of(branched, X, W) == ONE


def test_a_loop_of_unknown_length_is_refused_where_it_matters():
  def until(x, body):
    return jax.lax.while_loop(lambda x: x[0, 0] < 1, body, x)

  square = array(3, 3)
  assert jaxprs.flops_of(lambda x: until(x, lambda x: x + 1), square) == 0
  with pytest.raises(ValueError, match="use a scan"):
    jaxprs.flops_of(lambda x: until(x, lambda x: x @ x), square)


def test_the_gradient_costs_twice_the_forward_and_remat_once_more():
  def loss(weights, x, wrap):
    hidden = jnp.tanh(wrap(lambda x: jnp.tanh(x @ weights[0]))(x) @ weights[1])
    return (hidden**2).sum()

  weights = (array(4, 4), array(4, 4))
  one = 2 * 3 * 4 * 4
  count = lambda wrap: jaxprs.flops_of(
    jax.value_and_grad(lambda w, x: loss(w, x, wrap)), weights, X
  )
  # Of the first layer the gradient to the input is not needed.
  assert count(lambda f: f) == 2 * one + 3 * one
  assert count(jax.checkpoint) == 2 * one + 3 * one + one


def test_residuals_are_what_the_backward_pass_needs_and_has_not():
  square = array(6, 4, 4)

  def loss(w, x, wrap=lambda f: f):
    step = wrap(lambda x, w: (jnp.sin(x @ w), None))
    return jax.lax.scan(step, x, w)[0].sum()

  # Each layer keeps its input and its product's cosine; weights are there.
  each = 6 * 3 * 4 * 4
  assert jaxprs.residual_bytes(loss, square, X) == 2 * each
  remat = functools.partial(loss, wrap=jax.checkpoint)
  assert jaxprs.residual_bytes(remat, square, X) == each


def test_the_peak_is_what_is_alive_at_once():
  big = array(100, 100)

  def chain(x):
    for _ in range(5):
      x = jnp.sin(x)
    return x.sum()

  def fan(x):
    return sum(jnp.sin(x + i) for i in [jnp.cos(x * i) for i in range(5)]).sum()

  peak = lambda f: jaxprs.peak_bytes(jax.make_jaxpr(f)(big).jaxpr)
  assert peak(chain) == 2 * 40_000  # one being read, one being made
  assert peak(fan) > 5 * 40_000
  assert peak(jax.jit(chain)) == peak(chain)
  kept = peak(jax.grad(lambda x: jax.jit(chain)(x)))
  assert kept >= jaxprs.residual_bytes(chain, big) == 5 * 40_000


def test_constants_and_arguments_are_no_residuals():
  assert jaxprs.residual_bytes(lambda w, x: (x @ w).sum(), W, X) == 0


def generator(make_backbone, *, width, spatial_width, **more):
  config = ConditionerConfig(
    width=width,
    num_heads=width // 16,
    spatial_width=spatial_width,
    spatial_depth=2,
    pool_queries=3,
    text_depth=2,
    **more,
  )
  make = lambda: Generator(
    Conditioner(config, rngs=nnx.Rngs(0)), make_backbone(nnx.Rngs(1))
  )
  return nnx.eval_shape(make)


def traced(model, cond, x, *time, **more):
  """FLOPs of a forward pass, conditions and all, for x [1 t ...]."""
  graphdef, state = nnx.split(model)

  def run(state, cond, x, more, *time):
    model = nnx.merge(graphdef, state)
    times = tiny.times(x.shape[1])
    return model(x, *time, model.encode(cond), times=times, **more)

  return jaxprs.flops_of(run, state, cond, x, more, *time)


COND = tiny.conditioning(1, n=10, size=32, words=7)


@pytest.mark.parametrize(
  "sizes",
  [
    dict(width=32, joint_depth=2, depth=3, mlp_dim=48),
    dict(width=32, joint_depth=1, depth=1, mlp_dim=48, infill=True),
    dict(width=32, joint_depth=0, depth=1, mlp_dim=48, remat="full"),
    dict(width=32, joint_depth=1, depth=0, mlp_dim=48, modulation_rank=4),
    dict(width=512, joint_depth=4, depth=8, mlp_dim=1024, unroll=3),
    dict(width=1536, joint_depth=7, depth=14, mlp_dim=3072, remat="dots"),
  ],
)
def test_diffusion_flops_agree_with_a_count_over_the_jaxpr(sizes):
  width, length, channels = sizes["width"], 41, 20
  config = DiTConfig(**sizes, num_heads=width // 16, channels=channels)
  model = generator(
    lambda rngs: DiT(config, rngs=rngs), width=width, spatial_width=width // 2
  )
  found = traced(model, COND, array(1, length, channels), array(1))
  assert model.flops_per_example(COND, length) == pytest.approx(found, rel=0.01)


T5 = t5.T5Config(vocab_size=50, d_model=24, d_kv=5, d_ff=48, num_layers=3)
CLAP = clap_text.ClapTextConfig(
  hidden_size=32, num_hidden_layers=2, num_attention_heads=2
)


@pytest.mark.parametrize("name,encoder", [("t5", T5), ("clap", CLAP)])
def test_readers_of_words_count_their_flops(name, encoder):
  config = DiTConfig(
    width=32, num_heads=2, joint_depth=0, depth=0, mlp_dim=8, channels=4
  )
  model = generator(
    lambda rngs: DiT(config, rngs=rngs), width=32, spatial_width=16,
    aligner_depth=2, seconds=1.0,
    prompt_encoder=PromptEncoderConfig(name=name, path="", sizes=encoder),
  )  # fmt: skip
  found = traced(model, COND, array(1, 5, 4), array(1))
  assert model.flops_per_example(COND, 5) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(
  "sizes",
  [
    dict(width=32, depth=3, mlp_dim=48, num_codebooks=3),
    dict(width=512, depth=12, mlp_dim=1536, num_codebooks=8),
    dict(width=64, depth=2, mlp_dim=96, num_codebooks=8, pattern="parallel"),
    dict(width=1024, depth=24, mlp_dim=4096, num_codebooks=9, remat="full"),
  ],
)
def test_token_flops_agree_with_a_count_over_the_jaxpr(sizes):
  """All that is computed, less the half of attention that is masked.

  The closed form is what the model needs, so causal attention counts the half
  that may be seen (a kernel that skips the rest does as much). The jaxpr has
  the products in full, whose masked half is thus taken off before comparing.
  """
  width, length, codes = sizes["width"], 41, 64
  config = TokenModelConfig(**sizes, num_heads=width // 16, codebook_size=codes)
  model = generator(
    lambda rngs: TokenModel(config, rngs=rngs),
    width=width,
    spatial_width=width // 2,
  )
  books = sizes["num_codebooks"]
  found = traced(model, COND, array(1, length, books, dtype=np.int32))
  steps = length + (0 if "pattern" in sizes else books - 1)
  masked = config.depth * layers.attention_flops(steps, steps, width) / 2
  expected = found - masked
  assert model.flops_per_example(COND, length) == pytest.approx(
    expected, rel=0.01
  )


@pytest.mark.parametrize(
  "sizes",
  [
    dict(width=32, depth=3, mlp_dim=48, head_width=16, head_depth=1),
    dict(width=512, depth=6, mlp_dim=1536, head_width=1024, num_draws=2),
  ],
)
def test_latent_flops_agree_with_a_count_over_the_jaxpr(sizes):
  """As with tokens; the head is counted for every draw."""
  width, length, channels = sizes["width"], 41, 20
  config = LatentModelConfig(**sizes, num_heads=width // 16, channels=channels)
  model = generator(
    lambda rngs: LatentModel(config, rngs=rngs),
    width=width,
    spatial_width=width // 2,
  )
  draws = (1, length, config.num_draws)
  found = traced(
    model,
    COND,
    array(1, length, channels),
    noisy=array(*draws, channels),
    time=array(*draws),
  )
  masked = config.depth * layers.attention_flops(length, length, width) / 2
  assert model.flops_per_example(COND, length) == pytest.approx(
    found - masked, rel=0.01
  )


@pytest.mark.parametrize(
  "make,config,samples",
  [
    (Codec, CodecConfig(), 20_000),
    (Dac, DacConfig(), 44_100),
    (
      Codec,
      CodecConfig(
        sample_rate=48_000,
        channels=2,
        strides=(40, 4, 8),
        encoder_widths=(64, 512, 1024),
        decoder_widths=(512, 768, 1024),
        latent_dim=64,
        num_codebooks=9,
        codebook_size=2048,
      ),
      100_001,
    ),
  ],
)
def test_codec_flops_agree_with_a_count_over_the_jaxpr(make, config, samples):
  codec = nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0)))
  graphdef, state = nnx.split(codec)
  latents = array(1, -(-samples // config.hop), config.latent_dim)
  inputs = {
    "encode": array(1, samples, config.channels),
    "quantize": latents,
    "decode": latents,
  }
  closed = codec.flops(samples)
  assert closed.keys() == inputs.keys()
  for method, x in inputs.items():
    run = lambda state, x, m=method: getattr(nnx.merge(graphdef, state), m)(x)
    found = jaxprs.flops_of(run, state, x)
    assert closed[method] == pytest.approx(found, rel=0.01), method


@pytest.mark.parametrize("semantic", [None, tiny.PIXELS, tiny.TOWER])
@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_flops_of_each_stream_agree_with_a_count_over_the_jaxpr(semantic, size):
  encoder = nnx.eval_shape(lambda: tiny.conditioner(semantic=semantic))
  cond = tiny.conditioning(1, n=7)
  cond = cond.replace(frames=np.zeros((1, 7, *size, 3), np.uint8))
  graphdef, state = nnx.split(encoder)

  def count(used):
    """Of what is needed for the tokens that `used` picks."""
    run = lambda state, cond: used(nnx.merge(graphdef, state)(cond))
    jaxpr = jax.make_jaxpr(run)(state, cond)
    jaxpr, _ = pe.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals))
    return jaxprs.count_flops(jaxpr)

  closed = encoder.stream_flops(cond)
  fast = "video" if semantic is None else "sync"
  found = {fast: count(lambda tokens: tokens.sync)}
  if semantic is not None:
    found["semantic"] = count(lambda tokens: tokens.video)
  found["text"] = count(lambda tokens: tokens.text)
  assert closed.keys() == found.keys()
  for name, flops in found.items():
    assert closed[name] == pytest.approx(flops, rel=0.01), name
  whole = count(lambda tokens: tokens)
  assert encoder.flops(cond) == pytest.approx(whole, rel=0.01)
