"""What the report says of runs besides their scores: training, set, versions."""

from collections.abc import Sequence
import hashlib
import json
from typing import Any

from v2a_jax.basics.text import clock, shares


def lede(arm: dict) -> str:
  """Says how an arm was trained, or what its sounds are."""
  if not arm["config"]:
    return f"sounds of {arm['checkpoint'].get('path', '?')}"
  models = arm.get("models", ())
  text = f"{len(models)} training seeds, the first " if models else ""
  return f"{text}trained {_trained(arm['checkpoint'])}"


def of_run(colour: int, run: dict) -> dict[str, Any]:
  """Returns a run's name, colour and facts, (label, text)."""
  short = lambda digest: (digest or "")[:12]
  listed = lambda values: ", ".join(f"{k} {v}" for k, v in values.items())
  checkpoint, config, clips = run["checkpoint"], run["config"], run["set"]
  canonical = json.dumps(config, sort_keys=True, default=str).encode()
  facts = [
    ("Trained", config and _trained(checkpoint)),
    ("Time", _time(run["curve"])),
    ("Checkpoint" if config else "Sounds", f"{checkpoint.get('path', '?')}"),
    ("Weights" if config else "Digest", short(checkpoint.get("sha256"))),
    ("Config", config and hashlib.sha256(canonical).hexdigest()[:12]),
    ("Sampler", listed(run["sampler"])),
    ("Cost", _cost(run.get("cost"))),
    (
      "Set",
      f"{clips.get('path', '?')}{_split(clips)}: "
      f"{clips.get('n', '?')} clips, together {clips.get('seconds', '?')} s",
    ),
    ("Judged at", run.get("identity", {}).get("judged at")),
    ("Unmatched files", _unmatched(run)),
    ("Set manifest", short(clips.get("manifest_sha256"))),
    ("Code", short(run["code"].get("git"))),
    ("Versions", listed(run["code"].get("versions", {}))),
    ("Evaluated", _evaluated(run)),
  ]
  return {
    "name": run["name"],
    "colour": colour,
    "facts": [(label, text) for label, text in facts if text],
  }


def _cost(cost: dict | None) -> str:
  """Says how long a clip takes, on what, by how large a model."""
  if not cost:
    return ""
  return (
    f"{cost['seconds_per_clip']:.3g} s for a clip of"
    f" {cost['clip_seconds']:.3g} s, on {cost['devices']} {cost['device']};"
    f" {cost['parameters']:,} parameters, {cost['precision']}"
  )


def _split(clips: dict) -> str:
  return f", split {clips['split']}" if clips.get("split") else ""


def _unmatched(run: dict) -> str:
  """Counts files of either side that match nothing, with the first names."""
  words = {
    "without_output": "without a sound",
    "without_truth": "without a clip",
  }
  parts = [
    f"{side['count']} {words.get(name, name)} ({', '.join(side['names'][:3])})"
    for name, side in (run.get("unmatched") or {}).items()
    if side["count"]
  ]
  return "; ".join(parts)


def _trained(checkpoint: dict) -> str:
  parts = []
  if checkpoint.get("train_seconds") is not None:
    parts.append(f"for {clock(checkpoint['train_seconds'])}")
  if checkpoint.get("step") is not None:
    parts.append(f"{checkpoint['step']:,} steps")
  if checkpoint.get("clips_seen") is not None:
    parts.append(f"{checkpoint['clips_seen']:,} clips seen")
  return ", ".join(parts) or "not recorded"


def _time(curve: Sequence[dict]) -> str:
  """Says what the time of training went into, all starts together."""
  total = "goodput/total_seconds"
  row = next((row for row in reversed(curve) if row.get(total)), None)
  if row is None:
    return ""
  suffix = "_seconds"
  seconds = {
    name.removeprefix("goodput/").removesuffix(suffix): value
    for name, value in row.items()
    if name.startswith("goodput/") and name.endswith(suffix) and name != total
  }
  text = shares(seconds, row[total])
  starts, again = row.get("goodput/starts"), row.get("goodput/steps_again")
  if starts:
    text += f"; {starts:.0f} start{'s' * (starts > 1)}"
  return text + (f", {again:.0f} steps done again" if again else "")


def _evaluated(run: dict) -> str:
  text = str(run.get("created", "")).replace("T", " ")[:16]
  if run.get("wall_seconds") is not None:
    text += f", in {clock(run['wall_seconds'])}"
  return text


def config_differences(configs: Sequence[dict]) -> list[tuple[str, list[str]]]:
  """Returns dotted keys whose values differ, with the value in each config."""
  flat = [_flatten(config) for config in configs]
  names = dict.fromkeys(name for config in flat for name in config)
  out = []
  for name in sorted(names):
    texts = [
      json.dumps(c[name], default=str) if name in c else "\N{EN DASH}"
      for c in flat
    ]
    # Sounds of other systems have no config, and so no other value.
    if len({text for text, of in zip(texts, flat) if of}) > 1:
      out.append((name, texts))
  return out


def _flatten(config: dict, prefix: str = "") -> dict[str, Any]:
  out = {}
  for name, value in config.items():
    nested = isinstance(value, dict) and value
    key = f"{prefix}{name}"
    out |= _flatten(value, f"{key}.") if nested else {key: value}
  return out
