"""Synchformer whole: how late a sound is for its picture, within 2 seconds.

Segments of 0.64 s, one every 0.32 s, are encoded alone: 16 frames by the visual
half (`synchformer.py`) to 8 features, a log-mel spectrogram by an audio
spectrogram transformer to 6. With v and a the features of 14 segments, 4.8 s,

  x = [o, norm(W v), m, norm(U a)] + p;  x = joint(x);  logits = head(norm(x_0))

of 21 offsets from -2 to 2 s, 0.2 s apart. A sound is judged at its start and at
its end.

Iashin et al., "Synchformer: Efficient synchronization from sparse cues",
https://arxiv.org/abs/2401.16423; the audio half is that of Gong et al.,
https://arxiv.org/abs/2104.01778. DeSync, the mean size of the likeliest offset,
is that of MMAudio, https://arxiv.org/abs/2412.15322; sizes, front end and names
of tensors as in https://github.com/hkchengrex/av-benchmark.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from v2a_jax.basics import settings
from v2a_jax.models import layers
from v2a_jax.pretrained import spectrum, synchformer, transformer
from v2a_jax.pretrained.synchformer import SynchformerConfig
from v2a_jax.weights import published
from v2a_jax.weights.tables import Row, Table

SAMPLE_RATE = 16_000
SEGMENT, STEP = 10_240, 5_120  # samples: 16 and 8 frames at 25 a second
OFFSETS = np.linspace(-2.0, 2.0, 21)  # seconds

_FFT, _WINDOW, _HOP = 1024, 400, 160
_MEAN, _STD = -4.2677393, 4.5689974
_AUDIO = "afeat_extractor."


@dataclasses.dataclass(frozen=True, kw_only=True)
class OffsetConfig:
  """Sizes; the defaults are the published ones.

  Attributes:
    visual: sizes of the visual half; the audio half has its widths, heads and
      depth.
    bands: number of mel bands.
    frames: number of frames of a segment's spectrogram.
    patch_size: height and width of a patch of the spectrogram.
    patch_stride: bands and frames from one patch to the next.
    joint_layers: number of blocks over both.
    joint_heads: attention heads of these.
    segments: number of segments that are compared.
  """

  visual: SynchformerConfig = SynchformerConfig()
  bands: int = 128
  frames: int = 66
  patch_size: int = 16
  patch_stride: int = 10
  joint_layers: int = 3
  joint_heads: int = 8
  segments: int = 14

  def __post_init__(self):
    names = [field.name for field in dataclasses.fields(self)]
    names.remove("visual")
    settings.check(self, **dict.fromkeys(names, "[1, inf)"))

  @property
  def audio_moments(self) -> int:
    """Number of features of a segment of sound."""
    return (self.frames - self.patch_size) // self.patch_stride + 1

  @property
  def audio_places(self) -> int:
    """Number of patches along frequency."""
    return (self.bands - self.patch_size) // self.patch_stride + 1


def log_mel(segments: jax.Array, config: OffsetConfig) -> jax.Array:
  """Computes standardised spectrograms [s bands frames] of [s samples]."""
  edges = spectrum.mel_edges(spectrum.htk, config.bands, 0.0, SAMPLE_RATE / 2)
  hz = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
  filters = spectrum.triangles(hz, spectrum.inverse(spectrum.htk, edges))
  side = (_FFT - _WINDOW) // 2
  window = np.pad(spectrum.hann(_WINDOW), side)
  power = spectrum.power(spectrum.centred(segments, _FFT, _HOP), window, _FFT)
  mel = jnp.log(spectrum.bands(power, filters) + 1e-6)
  mel = mel[:, : config.frames].swapaxes(1, 2)
  mel = jnp.pad(mel, ((0, 0), (0, 0), (0, config.frames - mel.shape[2])))
  return (mel - _MEAN) / (2 * _STD)


class AudioTower(nnx.Module):
  """Spectrograms → features of sound."""

  def __init__(self, config: OffsetConfig, *, rngs: nnx.Rngs, dtype):
    c, v, common = config, config.visual, dict(rngs=rngs, dtype=dtype)
    size, stride = (c.patch_size,) * 2, (c.patch_stride,) * 2
    self.patches = nnx.Conv(
      1, v.hidden_size, size, strides=stride, padding="VALID", **common
    )
    tokens = lambda count: layers.learned(
      (1, count, v.hidden_size), axes=(None, None, "embed"), rngs=rngs
    )
    self.class_token, self.distil_token = tokens(1), tokens(1)
    self.positions = tokens(2 + c.audio_places * c.audio_moments)
    self.stack = layers.Stack(
      lambda rngs: _block(
        v, v.num_attention_heads, 1e-12, rngs=rngs, dtype=dtype
      ),
      v.num_hidden_layers,
      rngs=rngs,
    )
    self.norm = transformer.layer_norm(v.hidden_size, epsilon=1e-12, **common)
    self.pool_token = tokens(1)
    self.pool = _block(v, v.num_attention_heads, 1e-6, **common)

  def __call__(self, mel):
    """Encodes [s bands frames] to [s moments d]."""
    x = self.patches(mel[..., None])
    s, f, t, d = x.shape
    first = [self.class_token[...], self.distil_token[...]]
    first = jnp.broadcast_to(jnp.concatenate(first, axis=1), (s, 2, d))
    x = jnp.concatenate([first, x.reshape(s, f * t, d)], axis=1)
    x = self.norm(self.stack(x + self.positions[...]))
    x = x[:, 2:].reshape(s, f, t, d).swapaxes(1, 2).reshape(s * t, f, d)
    token = jnp.broadcast_to(self.pool_token[...], (s * t, 1, d))
    return self.pool(jnp.concatenate([token, x], axis=1))[:, 0].reshape(s, t, d)


class OffsetNetwork(nnx.Module):
  """Features of frames and of sound → logits of offsets."""

  def __init__(self, config: OffsetConfig, *, rngs: nnx.Rngs, dtype="float32"):
    c = self.config = config
    common, width = (
      dict(rngs=rngs, dtype=jnp.dtype(dtype)),
      c.visual.hidden_size,
    )
    self.visual = synchformer.Synchformer(c.visual, rngs=rngs, dtype=dtype)
    self.audio = AudioTower(c, **common)
    dense = lambda size, axes: layers.dense(
      width, size, axes=axes, use_bias=True, **common
    )
    self.project_visual = dense(width, ("embed", None))
    self.project_audio = dense(width, ("embed", None))
    norm = lambda: transformer.layer_norm(width, epsilon=1e-5, **common)
    self.norm_visual, self.norm_audio = norm(), norm()
    tokens = lambda count: layers.learned(
      (1, count, width), axes=(None, None, "embed"), rngs=rngs
    )
    self.offset_token, self.audio_token = tokens(1), tokens(1)
    moments = c.segments * (c.visual.moments + c.audio_moments)
    self.positions = tokens(2 + moments)
    joint = dataclasses.replace(c.visual, intermediate_size=4 * width)
    self.joint = layers.Stack(
      lambda rngs: _block(
        joint, c.joint_heads, 1e-5, rngs=rngs, dtype=common["dtype"]
      ),
      c.joint_layers,
      rngs=rngs,
    )
    self.norm = norm()
    self.head = dense(len(OFFSETS), ("embed", None))

  def hear(self, segments):
    """Encodes segments of sound [s samples] to [s moments d]."""
    return self.audio(log_mel(segments, self.config))

  def compare(self, visual, audio):
    """Compares features of the same segments.

    Args:
      visual: [b segments moments d], of `visual.encode`.
      audio: [b segments moments d], of `hear`.

    Returns:
      Logits [b 21] of `OFFSETS`, seconds by which the sound is late.
    """
    b, d = len(visual), visual.shape[-1]
    v = self.norm_visual(self.project_visual(visual).reshape(b, -1, d))
    a = self.norm_audio(self.project_audio(audio).reshape(b, -1, d))
    one = lambda token: jnp.broadcast_to(token[...], (b, 1, d))
    parts = [one(self.offset_token), v, one(self.audio_token), a]
    x = jnp.concatenate(parts, axis=1) + self.positions[...]
    return self.head(self.norm(self.joint(x))[:, 0])


def _block(config, num_heads, epsilon, *, rngs, dtype) -> transformer.Block:
  width, common = config.hidden_size, dict(rngs=rngs, dtype=dtype)
  return transformer.Block(
    attention=transformer.Attention(width, num_heads, **common),
    mlp=synchformer.mlp(config, **common),
    norm=lambda: transformer.layer_norm(width, epsilon=epsilon, **common),
  )


def _table(config: OffsetConfig) -> Table:
  ast, pool = f"{_AUDIO}ast", f"{_AUDIO}freq_attn_agg"
  layer, joint = f"{ast}.encoder.layer.{{}}", "transformer.blocks.{}"
  audio, blocks = "audio/stack/blocks", "joint/blocks"
  visual = synchformer.VISUAL.table(config.visual)
  table = {f"visual/{name}": row for name, row in visual.items()} | {
    "audio/patches": f"{ast}.embeddings.patch_embeddings.projection",
    "audio/class_token": f"{ast}.embeddings.cls_token",
    "audio/distil_token": f"{ast}.embeddings.distillation_token",
    "audio/positions": f"{ast}.embeddings.position_embeddings",
    "audio/norm": f"{ast}.layernorm",
    f"{audio}/norm_attention": f"{layer}.layernorm_before",
    f"{audio}/norm_mlp": f"{layer}.layernorm_after",
    f"{audio}/attention/q": f"{layer}.attention.attention.query",
    f"{audio}/attention/k": f"{layer}.attention.attention.key",
    f"{audio}/attention/v": f"{layer}.attention.attention.value",
    f"{audio}/attention/out": f"{layer}.attention.output.dense",
    f"{audio}/mlp/up": f"{layer}.intermediate.dense",
    f"{audio}/mlp/down": f"{layer}.output.dense",
    "audio/pool_token": f"{pool}.cls_token",
    "audio/pool/norm_attention": f"{pool}.norm1",
    "audio/pool/norm_mlp": f"{pool}.norm2",
    "audio/pool/attention/out": f"{pool}.self_attn.out_proj",
    "audio/pool/mlp/up": f"{pool}.linear1",
    "audio/pool/mlp/down": f"{pool}.linear2",
    "project_visual": "vproj",
    "project_audio": "aproj",
    "norm_visual": "transformer.vis_in_lnorm",
    "norm_audio": "transformer.aud_in_lnorm",
    "offset_token": "transformer.OFF_tok",
    "audio_token": "transformer.MOD_tok",
    "positions": "transformer.pos_emb_cfg.pos_emb",
    "norm": "transformer.ln_f",
    "head": "transformer.off_head",
    f"{blocks}/norm_attention": f"{joint}.ln1",
    f"{blocks}/norm_mlp": f"{joint}.ln2",
    f"{blocks}/attention/q": f"{joint}.attn.query",
    f"{blocks}/attention/k": f"{joint}.attn.key",
    f"{blocks}/attention/v": f"{joint}.attn.value",
    f"{blocks}/attention/out": f"{joint}.attn.proj",
    f"{blocks}/mlp/up": f"{joint}.mlp.0",
    f"{blocks}/mlp/down": f"{joint}.mlp.2",
  }
  return table | {
    f"audio/pool/attention/{part}/{ours}": Row(
      name=f"{pool}.self_attn.in_proj{theirs}", maps=3, part=i
    )
    for i, part in enumerate("qkv")
    for ours, theirs in (("kernel", "_weight"), ("bias", "_bias"))
  }


def _rename(name: str) -> str | None:
  """Leaves out patches of single frames, which are not used."""
  if name.startswith("vfeat_extractor.patch_embed."):
    return None
  return name


NETWORK = published.Network(
  config=OffsetConfig,
  make=OffsetNetwork,
  table=_table,
  model_types={},
  rename=_rename,
)
