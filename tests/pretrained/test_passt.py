"""PaSST against the same network in PyTorch, with fewer features and layers."""

import jax
import numpy as np
import pytest

from tests.pretrained import reference
from v2a_jax.pretrained import passt

_SOUNDS = reference.sounds(passt.SAMPLE_RATE, 0.8)[:2]


def _network(width=128, depth=2):
  """The published layers, for at most 0.6 s."""
  torch = pytest.importorskip("torch")
  nn = torch.nn
  network = nn.Module()
  network.patch_embed = nn.Module()
  network.patch_embed.proj = nn.Conv2d(1, width, 16, 10)
  shapes = {
    "cls_token": (1, 1, width),
    "dist_token": (1, 1, width),
    "new_pos_embed": (1, 2, width),
    "freq_new_pos_embed": (1, width, 12, 1),
    "time_new_pos_embed": (1, width, 1, 5),
  }
  for name, shape in shapes.items():
    setattr(network, name, nn.Parameter(torch.zeros(shape)))
  network.blocks = nn.ModuleList()
  for _ in range(depth):
    block = nn.Module()
    block.norm1 = nn.LayerNorm(width, eps=1e-6)
    block.norm2 = nn.LayerNorm(width, eps=1e-6)
    block.attn, block.mlp = nn.Module(), nn.Module()
    block.attn.qkv = nn.Linear(width, 3 * width)
    block.attn.proj = nn.Linear(width, width)
    block.mlp.fc1 = nn.Linear(width, 4 * width)
    block.mlp.fc2 = nn.Linear(4 * width, width)
    network.blocks.append(block)
  network.norm = nn.LayerNorm(width, eps=1e-6)
  network.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 527))
  network.head_dist = nn.Linear(width, 527)
  return network


def _run(network, mel):
  """Returns patches, features and logits."""
  import torch

  x = network.patch_embed.proj(mel[:, None])
  x = x[..., :5] + network.time_new_pos_embed + network.freq_new_pos_embed
  patches = x.permute(0, 2, 3, 1)
  first = torch.cat([network.cls_token, network.dist_token], 1)
  first = (first + network.new_pos_embed).expand(len(x), -1, -1)
  x = torch.cat([first, x.flatten(2).transpose(1, 2)], 1)
  for block in network.blocks:
    b, t, width = x.shape
    qkv = block.attn.qkv(block.norm1(x)).reshape(b, t, 3, width // 64, 64)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / 8).softmax(-1)
    x = x + block.attn.proj((weights @ v).transpose(1, 2).reshape(b, t, width))
    hidden = torch.nn.functional.gelu(block.mlp.fc1(block.norm2(x)))
    x = x + block.mlp.fc2(hidden)
  x = network.norm(x)
  feature = (x[:, 0] + x[:, 1]) / 2
  return patches, feature, network.head(feature)


def test_every_stage_agrees_with_torch():
  network = _network()
  import torch

  params = passt.convert(reference.random_state(network))
  mel = passt.log_mel(_SOUNDS)
  with torch.no_grad():
    wanted = _run(network, torch.tensor(np.array(mel)))
  got = (passt.patches(params, mel), *jax.jit(passt.apply)(params, _SOUNDS))
  for name, one, other in zip(("patches", "feature", "logits"), got, wanted):
    assert one.shape == other.shape
    reference.assert_close(one, other, name=name)
