"""True sounds made worse on purpose, to see what each metric answers.

A metric that is worth something gets worse as the sound does: the more noise,
the lower the treble ends, the later it comes, the more clips have the sound of
another. One that stays is blind to it, as distances of sets are to time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any, ClassVar

import numpy as np
from scipy import signal

from v2a_jax.basics import files
from v2a_jax.basics.paths import as_path
from v2a_jax.basics.text import one_of
from v2a_jax.evaluation import runner
from v2a_jax.evaluation.clips import Clip, Truth
from v2a_jax.evaluation.metrics.base import Metric
from v2a_jax.evaluation.options import Options
from v2a_jax.evaluation.rows import delayed
from v2a_jax.evaluation.schema import GENERATED

CURVES = "curves.json"
# Amounts of each distortion, from none to most, and what they are.
AMOUNTS: dict[str, tuple[float, ...]] = {
  "noise": (40, 30, 20, 10, 0),
  "lowpass": (8000, 4000, 2000, 1000),
  "late": (20, 40, 80, 160, 320),
  "early": (20, 40, 80, 160, 320),
  "shuffled": (0.25, 0.5, 1),
}
UNITS = {
  "noise": "dB of signal over white noise",
  "lowpass": "Hz, above which nothing is left",
  "late": "ms",
  "early": "ms",
  "shuffled": "share of the clips that have another clip's sound",
}
NONE = "none"
_ORDER = 8  # of the low-pass


def distorted(
  clip: Clip, donor: Clip, kind: str, amount: float, *, rate: int, seed: int
) -> np.ndarray:
  """Returns the true sound of a clip, distorted.

  Args:
    clip: the clip.
    donor: another clip, whose sound `shuffled` takes.
    kind: one of `AMOUNTS`, or "none".
    amount: how much, in the kind's unit.
    rate: sample rate of the clips' sounds in Hz.
    seed: random seed; each clip has its own noise.
  """
  sound = clip.audio
  rng = np.random.default_rng((seed, clip.position))
  if kind == "noise":
    power = np.mean(np.square(sound, dtype=np.float64)) * 10 ** (-amount / 10)
    sound = sound + np.sqrt(power) * rng.standard_normal(sound.shape)
  elif kind == "lowpass" and amount < rate / 2:
    filters = signal.butter(_ORDER, amount, fs=rate, output="sos")
    sound = signal.sosfiltfilt(filters, sound, axis=0)
  elif kind in ("late", "early"):
    samples = round(amount / 1000 * rate)
    sound = delayed(sound, samples if kind == "late" else -samples)
  elif kind == "shuffled" and rng.random() < amount:
    other = donor.audio[: len(sound)]
    missing = len(sound) - len(other)
    sound = np.pad(other, ((0, missing), (0, 0)))
  return np.clip(sound, -1, 1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Distorted:
  """The true sounds with a distortion, as a system under evaluation."""

  kind: str
  amount: float

  rows = (GENERATED,)
  loader_config = None
  seconds = see = None
  chosen_by = ()
  shuffles_sounds = False
  size: ClassVar[Mapping[str, Any]] = {}

  @property
  def name(self) -> str:
    return self.kind if self.kind == NONE else f"{self.kind}_{self.amount:g}"

  def describe(self) -> dict[str, Any]:
    digest = hashlib.sha256(self.name.encode()).hexdigest()
    checkpoint = {"path": f"true sounds, {self.name}", "sha256": digest}
    checkpoint |= dict.fromkeys(("step", "train_seconds", "clips_seen"))
    about = {"kind": "distortion", "name": self.name, "config": {}}
    return about | {"checkpoint": checkpoint, "sampler": {}}

  def check(self, clip: Clip, format) -> None:
    """Accepts every clip."""

  def make(self, row, clips, *, donors, settings, format):
    rate = format.sample_rate
    options = dict(rate=rate, seed=settings.seed)
    pairs = zip(clips, donors)
    sounds = [
      distorted(clip, donor, self.kind, self.amount, **options)
      for clip, donor in pairs
    ]
    return sounds, rate


def write_curves(
  truth: Truth,
  out,
  *,
  kinds: Sequence[str],
  metrics: Sequence[Metric],
  options: Options,
  weights_path=None,
  log: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Scores every amount of every distortion; writes curves.json.

  Each is an evaluation of its own in a folder of `out`, so it can be killed and
  goes on.

  Args:
    truth: the true sounds.
    out: folder to write to.
    kinds: distortions, of `AMOUNTS`.
    metrics: metrics to compute.
    options: how they are evaluated; only the distorted sounds are scored.
    weights_path: see `runner.evaluate`.
    log: called with lines of progress.

  Returns:
    The content of curves.json: `metrics` with label and direction, and `points`,
    each with kind, amount, and `scores` with value, low and high by metric. The
    first point of all is that of the true sounds.

  Raises:
    ValueError: a kind is unknown, and what `runner.evaluate` raises.
  """
  for kind in kinds:
    if kind not in AMOUNTS:
      raise ValueError(f"distortion {kind!r} {one_of(AMOUNTS)}")
  options = dataclasses.replace(options, rows=(GENERATED,), gallery_clips=0)
  points, described = [], {}
  for system in _systems(kinds):
    log(system.name)
    found = runner.evaluate(
      system,
      data=truth,
      out=as_path(out) / system.name,
      options=options,
      metrics=metrics,
      weights_path=weights_path,
      log=log,
    )
    described |= found["metrics"]
    (row,) = found["rows"]
    amount = None if system.kind == NONE else system.amount
    point = {"kind": system.kind, "amount": amount, "n": found["set"]["n"]}
    points.append(point | {"scores": row["metrics"]})
  keep = ("label", "unit", "higher_is_better", "role")
  curves = {
    "metrics": {
      id_: {k: entry.get(k) for k in keep} for id_, entry in described.items()
    },
    "units": {kind: UNITS[kind] for kind in kinds},
    "points": points,
  }
  files.write_json(as_path(out) / CURVES, curves)
  return curves


def _systems(kinds: Sequence[str]) -> Iterator[Distorted]:
  yield Distorted(NONE, 0.0)
  for kind in kinds:
    for amount in AMOUNTS[kind]:
      yield Distorted(kind, amount)


def as_markdown(curves: Mapping[str, Any]) -> str:
  """Returns a table for each distortion, a line for each amount."""
  shown = {
    id_: entry
    for id_, entry in curves["metrics"].items()
    if entry["higher_is_better"] is not None and entry["role"] != "sanity"
  }
  arrow = lambda entry: "\N{UPWARDS ARROW}" if entry else "\N{DOWNWARDS ARROW}"
  head = [
    f"{entry['label']} {arrow(entry['higher_is_better'])}"
    for entry in shown.values()
  ]
  whole, *points = curves["points"]
  lines = []
  for kind, unit in curves["units"].items():
    lines += [f"{kind}, {unit}", ""]
    lines.append(f"| | {' | '.join(head)} |")
    lines.append("|---|" + "---:|" * len(head))
    for point in [whole, *(p for p in points if p["kind"] == kind)]:
      amount = NONE if point["amount"] is None else f"{point['amount']:g}"
      cells = [_cell(point["scores"].get(id_)) for id_ in shown]
      lines.append(f"| {amount} | {' | '.join(cells)} |")
    lines.append("")
  return "\n".join(lines)


def _cell(score: Mapping[str, Any] | None) -> str:
  value = (score or {}).get("value")
  if value is None:
    return "n/a"
  text = f"{value:.3g}"
  if score.get("low") is not None and score.get("high") is not None:
    text += f" [{score['low']:.3g}, {score['high']:.3g}]"
  return text
