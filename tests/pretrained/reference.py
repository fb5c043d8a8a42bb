"""Torch networks with random weights, which ports are compared with."""

import numpy as np


def random_state(network, seed=0):
  """Draws every weight and running statistic afresh; returns them as arrays.

  The network is put into evaluation mode.
  """
  import torch

  draw = torch.Generator().manual_seed(seed)
  state = network.state_dict()
  for name, value in state.items():
    if not value.is_floating_point():
      continue
    if value.ndim >= 2:
      fan_in = value[0].numel()
      new = torch.randn(value.shape, generator=draw) * (2 / fan_in) ** 0.5
    elif name.endswith("running_var"):
      new = 0.5 + torch.rand(value.shape, generator=draw)
    elif name.endswith("weight"):  # Of norms.
      new = 0.8 + 0.4 * torch.rand(value.shape, generator=draw)
    else:
      new = 0.1 * torch.randn(value.shape, generator=draw)
    state[name] = new
  network.load_state_dict(state)
  network.eval()
  return {k: v.numpy() for k, v in state.items() if v.is_floating_point()}


def assert_close(got, wanted, *, name=""):
  """Compares to 1e-4 of the largest value, or of 1."""
  wanted = np.asarray(wanted)
  scale = max(1.0, float(np.abs(wanted).max()))
  np.testing.assert_allclose(
    got, wanted, rtol=0, atol=1e-4 * scale, err_msg=name
  )


def sounds(rate, seconds, seed=0):
  """A sweep with noise, noise, a click and silence, float32 [4, samples]."""
  rng, count = np.random.default_rng(seed), int(rate * seconds)
  t = np.arange(count) / rate
  sweep = 0.3 * np.sin(2 * np.pi * (200 + 0.1 * rate * t) * t)
  click = np.zeros(count)
  click[count // 3 : count // 3 + 100] = np.hanning(100)
  noise = 0.01 * rng.standard_normal(count)
  return np.stack([sweep + noise, noise, click, 0 * t]).astype(np.float32)
