"""How fast training goes, and where its time went.

Model FLOPs utilisation counts the FLOPs that the model needs, from a formula,
not those that the compiler emits (arXiv:2204.02311, appendix B; XLA's own cost
analysis counts the body of a scan once):

  MFU = F b / (t P D)

for F FLOPs of one example's forward and backward pass, b examples a step of t
seconds, and D devices of P FLOP/s each. Recomputation is not counted.
"""

from collections.abc import Mapping
import contextlib
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of one jax device, from the vendors' data sheets
# (float16 where there is no bfloat16). The first key that the device kind
# contains counts, so longer names stand first.
PEAK_FLOPS: Mapping[str, float] = {
  "TPU v2": 22.5e12,
  "TPU v3": 61.5e12,
  "TPU v4 lite": 138e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v6": 918e12,
  "TPU7x": 1153.5e12,
  "GB200": 2.5e15,
  "B200": 2.25e15,
  "H200": 989.5e12,
  "H100 PCIe": 756e12,
  "H100": 989.5e12,
  "A100": 312e12,
  "L40S": 362e12,
  "L4": 121e12,
  "A10G": 70e12,
  "V100": 125e12,
  "T4": 65e12,
  "RTX 4090": 165e12,
}


def peak_flops(device: jax.Device) -> tuple[float, str]:
  """Returns (FLOP/s of one device, where the number is from).

  Of a CPU and of an unknown device it is that of a float32 matrix product,
  measured here; virtual devices share their host's.
  """
  kind = device.device_kind
  for name, flops in PEAK_FLOPS.items():
    if device.platform != "cpu" and name.lower() in kind.lower():
      return flops, f"data sheet of {name}"
  share = jax.local_device_count() if device.platform == "cpu" else 1
  return _measure_matmul() / share, "measured matrix product"


def _measure_matmul(size: int = 1024, repeats: int = 5) -> float:
  """FLOP/s of a [size, size] float32 product; the best of `repeats`."""
  with jax.default_device(jax.local_devices()[0]):
    x = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    times = []
    for _ in range(repeats):
      start = time.perf_counter()
      multiply(x, x).block_until_ready()
      times.append(time.perf_counter() - start)
  return 2 * size**3 / min(times)


class Goodput:
  """Wall-clock seconds by phase, since it was made."""

  def __init__(self):
    self._start = time.perf_counter()
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def phase(self, name: str):
    """Adds the time inside the `with` block to a phase; do not nest."""
    start = time.perf_counter()
    try:
      yield
    finally:
      spent = time.perf_counter() - start
      self.seconds[name] = self.seconds.get(name, 0.0) + spent

  def total(self) -> float:
    return time.perf_counter() - self._start

  def metrics(self) -> dict[str, float]:
    """`goodput/<phase>` in seconds, and the share spent in steps."""
    total = max(self.total(), 1e-9)
    named = {f"goodput/{k}_seconds": v for k, v in self.seconds.items()}
    return {
      **named,
      "goodput/total_seconds": total,
      "goodput/step_fraction": self.seconds.get("step", 0.0) / total,
    }


class Throughput:
  """Speed between two logged steps, and the time that remains."""

  def __init__(
    self,
    *,
    batch_size: int,
    flops_per_example: float | None,
    num_devices: int,
    peak: float,
  ):
    """Makes a meter.

    Args:
      batch_size: global.
      flops_per_example: of a training step; None if unknown.
      num_devices: of the mesh.
      peak: FLOP/s of one device.
    """
    self._batch_size = batch_size
    self._flops = (flops_per_example or 0) * batch_size
    self._capacity = num_devices * peak
    self._first = self._last = None

  def start(self, step: int) -> None:
    """Called when `step` is done and the compiler with it."""
    self._first = self._last = (step, time.perf_counter())

  def metrics(self, step: int) -> dict[str, float]:
    """Speed since the last call, of the steps up to `step`."""
    last_step, last_time = self._last
    if step <= last_step:
      return {}
    now = time.perf_counter()
    step_time = (now - last_time) / (step - last_step)
    self._last = (step, now)
    found = {
      "perf/step_time": step_time,
      "perf/examples_per_sec": self._batch_size / step_time,
    }
    if self._flops:
      found["perf/mfu"] = self._flops / step_time / self._capacity
    return found

  def eta(self, num_train_steps: int) -> float | None:
    """Seconds that the rest of the steps will take at the mean speed."""
    steps, spent = (b - a for a, b in zip(self._first, self._last))
    if steps <= 0:
      return None
    return (num_train_steps - self._last[0]) * spent / steps
