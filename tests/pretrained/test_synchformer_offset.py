"""Synchformer's audio half and judge against PyTorch's and librosa's layers.

With fewer features, blocks and segments; at full size they were compared with
av-benchmark's own modules (docs/evaluation.md). The visual half is compared in
test_mmaudio_towers.py.
"""

import jax
import librosa
import numpy as np
import pytest

from tests.pretrained import reference
from v2a_jax.pretrained import offset, synchformer
from v2a_jax.weights import published, tables
from v2a_jax.weights.registry import WrongWeightsError

WIDTH, HEADS = 32, 4
SMALL = offset.OffsetConfig(
  visual=synchformer.SynchformerConfig(
    hidden_size=WIDTH,
    num_hidden_layers=2,
    num_attention_heads=HEADS,
    intermediate_size=48,
    image_size=32,
  ),
  joint_layers=2,
  segments=3,
)


@pytest.fixture(scope="module")
def state():
  """Drawn tensors by their published names."""
  rng = np.random.default_rng(0)
  make = lambda rngs: offset.NETWORK.make(SMALL, rngs=rngs)
  shapes = published.shapes(make, offset.NETWORK.table(SMALL))
  drawn = {}
  for name, shape in shapes.items():
    scale = 1 / np.sqrt(max(np.prod(shape[1:]), 16))
    value = scale * rng.standard_normal(shape)
    if len(shape) == 1 and name.endswith("weight"):
      value += 1
    drawn[name] = value.astype(np.float32)
  return drawn


@pytest.fixture(scope="module")
def network(state):
  return offset.NETWORK.assemble(tables.in_memory(state), SMALL, source="drawn")


def segments(count=2):
  return reference.sounds(offset.SAMPLE_RATE, 0.64)[:count]


def part(state, prefix):
  """The tensors under a prefix, for a module of PyTorch."""
  torch = pytest.importorskip("torch")
  return {
    name.removeprefix(prefix): torch.from_numpy(value)
    for name, value in state.items()
    if name.startswith(prefix)
  }


def layer(hidden, heads, epsilon):
  torch = pytest.importorskip("torch")
  return torch.nn.TransformerEncoderLayer(
    WIDTH,
    heads,
    hidden,
    activation=torch.nn.GELU(),
    batch_first=True,
    layer_norm_eps=epsilon,
    norm_first=True,
  ).eval()


def test_spectrogram_agrees_with_librosa():
  sounds = segments()
  mel = librosa.feature.melspectrogram(
    y=sounds,
    sr=16_000,
    n_fft=1024,
    hop_length=160,
    win_length=400,
    pad_mode="reflect",
    n_mels=128,
    htk=True,
    norm=None,
  )
  mel = np.pad(np.log(mel + 1e-6), ((0, 0), (0, 0), (0, 1)))
  got = jax.jit(lambda x: offset.log_mel(x, SMALL))(sounds)
  assert got.shape == (2, 128, 66)
  want = (mel + 4.2677393) / (2 * 4.5689974)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_audio_half_agrees(state, network):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  ast = transformers.ASTModel(
    transformers.ASTConfig(
      hidden_size=WIDTH,
      num_hidden_layers=2,
      num_attention_heads=HEADS,
      intermediate_size=48,
      max_length=66,
    )
  ).eval()
  ours = part(state, "afeat_extractor.ast.")
  ast.load_state_dict({_as_transformers(k): v for k, v in ours.items()})
  pool = layer(48, HEADS, 1e-6)
  weights = part(state, "afeat_extractor.freq_attn_agg.")
  token = weights.pop("cls_token")
  pool.load_state_dict(weights)
  mel = np.array(offset.log_mel(segments(), SMALL))
  with torch.inference_mode():
    x = ast(torch.from_numpy(mel).transpose(1, 2)).last_hidden_state[:, 2:]
    x = x.reshape(2, 12, 6, WIDTH).transpose(1, 2).reshape(12, 12, WIDTH)
    x = pool(torch.cat([token.expand(12, -1, -1), x], 1))[:, 0]
  want = x.reshape(2, 6, WIDTH).numpy()
  got = np.asarray(jax.jit(network.hear)(segments()))
  np.testing.assert_allclose(got, want, atol=1e-5)


def _as_transformers(name):
  """Names a tensor of the checkpoint as transformers 5 does."""
  for old, new in (
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
  ):
    name = name.replace(old, new)
  return name


def test_comparison_agrees(state, network):
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(1)
  picture, sound = (
    rng.standard_normal((2, 3, n, WIDTH)).astype(np.float32) for n in (8, 6)
  )
  functional = torch.nn.functional
  own = part(state, "transformer.")
  linear = lambda x, name: functional.linear(
    x,
    torch.from_numpy(state[f"{name}.weight"]),
    torch.from_numpy(state[f"{name}.bias"]),
  )
  norm = lambda x, name: functional.layer_norm(
    x, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"]
  )
  with torch.inference_mode():
    v = linear(torch.from_numpy(picture).flatten(1, 2), "vproj")
    a = linear(torch.from_numpy(sound).flatten(1, 2), "aproj")
    off, mod = (own[name].expand(2, -1, -1) for name in ("OFF_tok", "MOD_tok"))
    v, a = norm(v, "vis_in_lnorm"), norm(a, "aud_in_lnorm")
    x = torch.cat([off, v, mod, a], 1) + own["pos_emb_cfg.pos_emb"]
    for index in range(2):
      block = layer(4 * WIDTH, 8, 1e-5)
      block.load_state_dict(_as_pytorch(own, f"blocks.{index}."))
      x = block(x)
    want = linear(norm(x, "ln_f")[:, 0], "transformer.off_head").numpy()
  got = np.asarray(jax.jit(network.compare)(picture, sound))
  assert got.shape == (2, len(offset.OFFSETS))
  np.testing.assert_allclose(got, want, atol=1e-5)


def _as_pytorch(own, prefix):
  """Names and joins a block's tensors as `TransformerEncoderLayer` does."""
  import torch

  get = lambda name: own[prefix + name]
  renamed = {"self_attn.out_proj": "attn.proj", "linear1": "mlp.0"}
  renamed |= {"linear2": "mlp.2", "norm1": "ln1", "norm2": "ln2"}
  found = {
    f"{theirs}.{kind}": get(f"{ours}.{kind}")
    for theirs, ours in renamed.items()
    for kind in ("weight", "bias")
  }
  for kind in ("weight", "bias"):
    parts = [get(f"attn.{name}.{kind}") for name in ("query", "key", "value")]
    found[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
  return found


def test_a_missing_half_is_named(state):
  visual = {k: v for k, v in state.items() if k.startswith("vfeat_extractor")}
  with pytest.raises(WrongWeightsError, match="transformer.off_head"):
    offset.NETWORK.assemble(tables.in_memory(visual), SMALL, source="half")
