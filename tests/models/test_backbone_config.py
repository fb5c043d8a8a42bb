"""Settings of the backbones: ranges, choices and what goes together."""

from flax import nnx
import pytest

from v2a_jax.basics.settings import SettingError, build
from v2a_jax.models import BACKBONES
from v2a_jax.models.ar import TokenModelConfig
from v2a_jax.models.config import TransformerConfig
from v2a_jax.models.dit import DiTConfig

SHARED = dict(width=16, num_heads=2, depth=1)
SIZES = SHARED | dict(mlp_dim=8)
OWN = {
  "dit": dict(mlp_dim=8, joint_depth=1, channels=3),
  "ar": dict(mlp_dim=8, num_codebooks=2, codebook_size=7),
  "ar_latents": dict(mlp_dim=8, head_width=8, channels=3),
  "mmaudio": dict(joint_depth=1, channels=3, latent_rate=31.25),
}


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_is_made_by_its_settings(name):
  config = BACKBONES[name](**SHARED, **OWN[name])
  assert config.target == ("codes" if name == "ar" else "latents")
  backbone = nnx.eval_shape(lambda: config.make(rngs=nnx.Rngs(0)))
  assert backbone.config is config


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(num_heads=3), r"num_heads=3 does not divide width=16.*1, 2, 4, 8$"),
    (dict(num_heads=16), "heads of an even size"),
    (dict(width=7), "num_heads=2 does not divide width=7.*change it"),
    (dict(num_heads=0), r"num_heads=0 is not in \[1, inf\)"),
    (dict(depth=-1), "depth=-1"),
    (dict(depth=1.5), "depth=1.5"),
    (dict(mlp_dim=0), "mlp_dim=0"),
    (dict(modulation_rank=-4), "modulation_rank=-4"),
    (dict(unroll=0), "unroll=0"),
    (dict(remat="half"), "remat='half' is not one of none, attention, full"),
    (dict(dtype="float16"), "dtype='float16' is not one of float32, bfloat16"),
  ],
)
def test_sizes_that_cannot_be_built_are_refused(change, words):
  with pytest.raises(SettingError, match=words):
    build(TransformerConfig, SIZES | change)


@pytest.mark.parametrize(
  "name, change",
  [
    ("dit", dict(joint_depth=-1)),
    ("dit", dict(channels=0)),
    ("ar", dict(depth=0)),
    ("ar", dict(num_codebooks=0)),
    ("ar", dict(pattern="flat")),
    ("ar_latents", dict(depth=0)),
    ("ar_latents", dict(head_depth=0)),
    ("ar_latents", dict(num_draws=0)),
  ],
)
def test_each_backbone_checks_its_own_sizes(name, change):
  ((field, _),) = change.items()
  with pytest.raises(SettingError, match=f"^{field}="):
    BACKBONES[name](**(SHARED | OWN[name] | change))


def test_a_diffusion_transformer_needs_no_audio_only_blocks():
  assert DiTConfig(**(SHARED | OWN["dit"] | dict(depth=0))).depth == 0


def test_codebooks_default_to_all_of_the_codec_and_are_at_most_those():
  sizes = SIZES | dict(codebook_size=7, available=4)
  assert TokenModelConfig(**sizes).num_codebooks == 4
  assert TokenModelConfig(**sizes, num_codebooks=3).num_codebooks == 3
  with pytest.raises(SettingError, match=r"num_codebooks=5 is not in \[0, 4\]"):
    TokenModelConfig(**sizes, num_codebooks=5)


def test_sizes_of_the_codec_are_derived_and_cannot_be_set():
  values = SIZES | dict(joint_depth=1)
  sources = {"codec": {"latent_dim": 5}}
  assert build(DiTConfig, values, sources=sources).channels == 5
  with pytest.raises(SettingError, match="channels.*taken from codec.latent"):
    build(DiTConfig, values | dict(channels=5), sources=sources)
