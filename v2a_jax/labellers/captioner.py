"""Describes the picture or the sound, by a captioner of Hugging Face's hub.

  pip install 'v2a_jax[labellers]' torch
  v2a data annotate DATASET --name blip \\
    --command "python -m v2a_jax.labellers.captioner --model Salesforce/blip-image-captioning-base"

caption        of the frame in the middle (--of picture, the default): any model
               of the pipeline image-text-to-text, chat models get --prompt
audio_caption  of the sound (--of sound): any model of the pipeline
               automatic-speech-recognition, such as
               MU-NLPC/whisper-small-audio-captioning

For other models, and for services, write your own program to the same contract
(contract.py): it takes a few lines.
"""

import argparse

import numpy as np

from v2a_jax.labellers import contract, reading

_RATE, _SIDE = 16_000, 384


def main() -> None:
  """Serves; see contract.py."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--model", required=True, help="name on the hub, or folder"
  )
  parser.add_argument("--of", choices=("picture", "sound"), default="picture")
  parser.add_argument(
    "--prompt", default="Describe what is seen in a sentence."
  )
  parser.add_argument("--device", default=None, help="such as cpu, cuda:0")
  args = parser.parse_args()
  # Here: only this labeller needs it.
  import transformers

  task = {
    "picture": "image-text-to-text",
    "sound": "automatic-speech-recognition",
  }
  model = transformers.pipeline(
    task[args.of], model=args.model, device=args.device
  )

  def of_picture(request):
    from PIL import Image

    video = reading.picture(request, fps=2.0, size=(_SIDE, _SIDE))
    frame = np.ascontiguousarray(video.frames[len(video.frames) // 2])
    image = Image.fromarray(frame)
    if getattr(model.processor, "chat_template", None):
      content = [
        {"type": "image", "image": image},
        {"type": "text", "text": args.prompt},
      ]
      chat = [{"role": "user", "content": content}]
      said = model(text=chat, return_full_text=False)
    else:
      said = model(images=image, text="")
    return {"caption": said[0]["generated_text"].strip()}

  def of_sound(request):
    samples = reading.sound(request, _RATE)
    said = model({"raw": samples, "sampling_rate": _RATE})
    return {"audio_caption": said["text"].strip()}

  answer = of_picture if args.of == "picture" else of_sound
  contract.serve(
    answer, by=f"{args.model}@transformers-{transformers.__version__}"
  )


if __name__ == "__main__":
  main()
