"""Flags that change the sampler of a checkpoint, for `generate` and `eval`."""

import argparse
from typing import Any

ARGUMENTS = """
sampler (default: as in the config of the checkpoint):
--guidance_video X    guidance scale of the video; 1 is no guidance, more
                      follows it more closely
--guidance_prompt X   guidance scale of the prompt
--guidance_transcript X
                      guidance scale of the transcript
--guidance_negative_prompt X
                      guidance scale away from the negative prompt
--guidance_joint X    guidance scale of all conditions together, away from the
                      negative prompt without the video, as in MMAudio
--guide_from X        diffusion time at which guidance begins; 0 is noise, 1 data
--guide_to X          diffusion time at which guidance ends
--rescale_guidance X  share, 0 to 1, by which what guidance makes larger is
                      brought back
--num_steps N         number of solver steps
--shift X             factor by which the steps crowd near noise; 1 leaves them
                      even
--solver NAME         solver of a model of latents: euler, heun, dpmpp_2m or
                      average
--temperature X       temperature of an autoregressive model; less is more
                      predictable
"""


def overrides(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the flags that were typed, as fields of a sampler."""
  typed = {k: value for k, value in vars(args).items() if value is not None}
  names = ("num_steps", "solver", "temperature", "guide_from", "guide_to")
  names += ("rescale_guidance", "shift")
  fields = {name: typed[name] for name in names if name in typed}
  if guidance := {
    name.removeprefix("guidance_"): value
    for name, value in typed.items()
    if name.startswith("guidance_")
  }:
    fields["guidance"] = guidance
  return fields
