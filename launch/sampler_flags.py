"""Flags that change a model's sampler, the same wherever there are any."""

import argparse
from typing import Any

GUIDED = ("video", "prompt", "transcript", "negative_prompt")
_PLAIN = {
  "num_steps": (int, "of the diffusion sampler"),
  "solver": (str, "of the diffusion sampler"),
  "temperature": (float, "of the token sampler"),
}


def add_to(parser: argparse.ArgumentParser) -> None:
  """Adds them; what is not typed stays as the model has it."""
  for name in GUIDED:
    text = f"how closely to follow {name}"
    parser.add_argument(f"--guidance_{name}", type=float, help=text)
  for name, (kind, text) in _PLAIN.items():
    parser.add_argument(f"--{name}", type=kind, help=text)


def overrides(args: argparse.Namespace) -> dict[str, Any]:
  """What was typed of the sampler, for `Soundtracker.sample`."""
  typed = lambda names: {
    name: value
    for name, key in names.items()
    if (value := getattr(args, key)) is not None
  }
  guidance = typed({name: f"guidance_{name}" for name in GUIDED})
  found = typed({name: name for name in _PLAIN})
  return found | ({"guidance": guidance} if guidance else {})
