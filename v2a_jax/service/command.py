"""The command that does what a job does."""

from collections.abc import Mapping
import dataclasses
import shlex
from typing import Any

from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request

# Fields whose flags have another name or form.
_OWN = ("sampler", "regenerate", "words", "prompts", "layers")
_SHORT = {"prompt": "-p", "negative_prompt": "-n"}


def command(
  video: str,
  request: Request,
  delivery: DeliveryOptions,
  *,
  checkpoint: str = "",
) -> str:
  """Returns the command line that makes the same soundtracks.

  Words with times are in a file of their own there, words.json; the sound to
  keep is the file that `request.audio` names.

  Args:
    video: name of the video.
    request: what is asked for.
    delivery: how it is written.
    checkpoint: name of the model; "" for the default.
  """
  parts = ["v2a", "generate", video, "-o", "out"]
  if checkpoint:
    parts += ["--checkpoint", checkpoint]
  parts += _flags(request, skip=_OWN)
  if request.words:
    parts += ["--transcript_file", "words.json"]
  for start, end, text in request.prompts:
    parts += ["--prompt_at", f"{start:.12g}-{end:.12g}:{text}"]
  for kind, text in request.layers:
    parts += ["--layer", f"{kind}:{text}"]
  if request.regenerate:
    parts.append("--regenerate")
    parts += [f"{start:.12g}-{end:.12g}" for start, end in request.regenerate]
  parts += _sampler(request.sampler)
  parts += _flags(delivery, skip=("mark",))
  if not delivery.mark:
    parts.append("--no-watermark")
  return shlex.join(parts)


def _flags(settings: Any, skip) -> list[str]:
  """Returns flags for the fields that differ from their defaults."""
  parts = []
  for field in dataclasses.fields(settings):
    value = getattr(settings, field.name)
    if field.name in skip or value == _default(field):
      continue
    flag = _SHORT.get(field.name, f"--{field.name}")
    if value is True:
      parts.append(flag)
    elif value is False:
      parts.append(flag.replace("--", "--no-", 1))
    elif isinstance(value, tuple):
      parts += [part for item in value for part in (flag, str(item))]
    elif isinstance(value, float) or str(value).startswith("-"):
      parts.append(
        f"--{field.name}={value:.12g}"
        if isinstance(value, float)
        else f"--{field.name}={value}"
      )
    else:
      parts += [flag, str(value)]
  return parts


def _default(field: dataclasses.Field) -> Any:
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return field.default


def _sampler(changes: Mapping[str, Any]) -> list[str]:
  parts = []
  for name, value in changes.items():
    if name == "guidance":
      parts += [f"--guidance_{k}={v:.12g}" for k, v in value.items()]
    else:
      parts.append(f"--{name}={value}")
  return parts
