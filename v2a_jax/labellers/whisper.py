"""Writes down what is said, with the time of each word, by faster-whisper.

  pip install faster-whisper
  v2a data annotate DATASET --command "python -m v2a_jax.labellers.whisper --model small"

  transcript, words, language
  speech_probability  1 less the probability that nobody speaks, mean of the
                      segments by their length
  confidence          mean probability of the words

https://github.com/SYSTRAN/faster-whisper (MIT)
"""

import argparse

from v2a_jax.labellers import contract, reading

_RATE = 16_000


def main() -> None:
  """Serves; see contract.py."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--model", default="small", help="name, or folder")
  parser.add_argument("--device", default="auto")
  parser.add_argument("--compute_type", default="default")
  parser.add_argument("--language", help="such as en; found out if not given")
  args = parser.parse_args()
  # Here: only this labeller needs it.
  import faster_whisper

  model = faster_whisper.WhisperModel(
    args.model, device=args.device, compute_type=args.compute_type
  )

  def answer(request):
    segments, info = model.transcribe(
      reading.sound(request, _RATE),
      language=args.language,
      word_timestamps=True,
      vad_filter=True,
    )
    return columns(list(segments), info.language)

  version = getattr(faster_whisper, "__version__", "?")
  contract.serve(answer, by=f"faster-whisper-{args.model}@{version}")


def columns(segments, language: str) -> dict:
  """Returns the columns of faster-whisper's segments, nothing if there is none."""
  words = [word for segment in segments for word in segment.words or ()]
  if not words:
    return {"speech_probability": 0.0}
  length = sum(segment.end - segment.start for segment in segments) or 1.0
  silent = sum((s.end - s.start) * s.no_speech_prob for s in segments) / length
  return {
    "transcript": " ".join(segment.text.strip() for segment in segments),
    "words": [
      {"word": w.word.strip(), "start": w.start, "end": w.end} for w in words
    ],
    "language": language,
    "speech_probability": 1 - silent,
    "confidence": sum(word.probability for word in words) / len(words),
  }


if __name__ == "__main__":
  main()
