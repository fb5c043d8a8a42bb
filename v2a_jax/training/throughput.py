"""How fast training goes.

Model FLOPs utilisation counts the FLOPs that the model needs, from a formula,
not those that the compiler emits (arXiv:2204.02311, appendix B; XLA's own cost
analysis counts the body of a scan once):

  MFU = F b / (t P D)

for F FLOPs of one example's forward and backward pass, b examples a step of t
seconds, and D devices of P FLOP/s each. Recomputation is not counted.
"""

import collections
from collections.abc import Mapping
import contextlib
import re
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of one jax device, from the vendors' data sheets
# (float16 where there is no bfloat16). The first name that stands in the device
# kind as words of its own counts, so longer names stand first.
PEAK_FLOPS: Mapping[str, float] = {
  "TPU v2": 22.5e12,
  "TPU v3": 61.5e12,
  "TPU v4 lite": 138e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "TPU7x": 1153.5e12,
  "GB300": 2.5e15,
  "GB200": 2.5e15,
  "GH200": 989.5e12,
  "B300": 2.25e15,
  "B200": 2.25e15,
  "H200 NVL": 835.5e12,
  "H200": 989.5e12,
  "H100 PCIe": 756e12,
  "H100 NVL": 835.5e12,
  "H100": 989.5e12,
  "A100": 312e12,
  "L40S": 362e12,
  "L40": 181e12,
  "L4": 121e12,
  "A10G": 70e12,
  "A10": 125e12,
  "V100-PCIE": 112e12,
  "V100": 125e12,
  "T4": 65e12,
  "RTX 4090": 165e12,
}
# A part of a device, or a slower one of the same name.
_OTHERS = re.compile(r"\b(MIG|Laptop)\b")


def peak_flops(device: jax.Device) -> tuple[float, str]:
  """Returns (peak FLOP/s of one device, source of the number).

  For a CPU or an unknown device a float32 matrix product is measured; virtual
  devices share their host's rate.
  """
  if device.platform != "cpu" and (name := find_peak(device.device_kind)):
    return PEAK_FLOPS[name], f"data sheet of {name}"
  share = jax.local_device_count() if device.platform == "cpu" else 1
  return _measure_matmul() / share, "measured matrix product"


def find_peak(kind: str) -> str | None:
  """Returns the entry of `PEAK_FLOPS` for a device kind, or None."""
  if _OTHERS.search(kind):
    return None
  for name in PEAK_FLOPS:
    if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", kind, re.IGNORECASE):
      return name
  return None


def _measure_matmul(size: int = 1024, repeats: int = 5) -> float:
  """Measures FLOP/s of a [size, size] float32 product, best of `repeats`."""
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


class Throughput:
  """Speed between two logged steps, and the time that remains.

  Steps are noticed when the host gets to them, sometimes two at once, so a speed
  is always taken over several steps; evaluation and checkpoints are left out.

  Attributes:
    flops_per_step: FLOPs of a step on a global batch; 0 if unknown.
  """

  _FEWEST = 4  # steps in an interval, more than are ever in flight

  def __init__(
    self,
    *,
    batch_size: int,
    num_devices: int,
    peak: float,
  ):
    """Makes a meter.

    Args:
      batch_size: global batch size.
      num_devices: number of devices of the mesh.
      peak: FLOP/s of one device.
    """
    self._batch_size = batch_size
    self.flops_per_step = 0.0
    self._capacity = num_devices * peak
    self._paused = 0.0
    self._first = (0, 0.0)  # (step, seconds)
    self._row = self._first  # of the last row
    self._recent = collections.deque(maxlen=self._FEWEST + 1)

  @contextlib.contextmanager
  def paused(self):
    """Leaves the time inside the `with` block out of the speed."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._paused += time.perf_counter() - start

  def start(self, step: int) -> None:
    """Starts the clock, when `step` is done and the compiler with it."""
    self.tick(step)
    self._first = self._row = self._recent[-1]

  def tick(self, step: int) -> None:
    """Notes that `step` is done."""
    self._recent.append((step, time.perf_counter() - self._paused))

  def metrics(self) -> dict[str, float]:
    """Returns the speed since the last row, or over the last few steps."""
    now = self._recent[-1]
    since = min(self._row, self._recent[0])
    self._row = now
    steps, spent = (b - a for a, b in zip(since, now))
    if steps <= 0 or spent <= 0:
      return {}
    row = {
      "perf/step_time": spent / steps,
      "perf/examples_per_sec": self._batch_size * steps / spent,
    }
    if self.flops_per_step:
      row["perf/mfu"] = self.flops_per_step * steps / spent / self._capacity
    return row

  def eta(self, num_train_steps: int) -> float | None:
    """Returns the seconds that the rest takes at the mean speed, or None."""
    now = self._recent[-1]
    steps, spent = (b - a for a, b in zip(self._first, now))
    if steps <= 0:
      return None
    return (num_train_steps - now[0]) * spent / steps
