"""Says what kinds of sound there are, by an AudioSet tagger.

  python -m v2a_jax.labellers.sounds --network yamnet --labels class_labels.csv

  music, music_probability      music, with a probability of 0.3 or more
  effects, effects_probability  another sound than speech, singing and music, with
                                a probability of 0.2 or more in one of the
                                windows; nothing is said where none is so likely
  heard                         with --labels: names of all classes of 0.3 or
                                more, the likeliest first

Windows last 1 s (mn04) or 0.975 s (YAMNet); logits of music and of the names are
averaged over them. Speech is left to `voice`, which is surer.
hearing/unwanted.py has how often mn04 is right about music.
"""

import argparse
from collections.abc import Sequence
import csv
import pathlib

import jax
import numpy as np
from scipy import special

from v2a_jax.basics import audioset, files
from v2a_jax.labellers import contract, reading
from v2a_jax.pretrained import mn04, yamnet

_MUSIC_PROBABILITY, _EFFECTS_PROBABILITY, _HEARD = 0.3, 0.2, 0.3
_WINDOWS = 16  # that are computed at a time
_CLASSES = 527  # of AudioSet


def main() -> None:
  """Serves; see contract.py."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--network", choices=("mn04", "yamnet"), default="mn04")
  parser.add_argument(
    "--labels",
    type=pathlib.Path,
    help="names of the classes: AudioSet's class_labels_indices.csv, or one a line",
  )
  args = parser.parse_args()
  network = {"mn04": mn04, "yamnet": yamnet}[args.network]
  names = read_names(args.labels) if args.labels else []
  if names and len(names) != network.NUM_CLASSES:
    parser.error(
      f"{args.labels} names {len(names)} classes, {args.network} has"
      f" {network.NUM_CLASSES}"
    )
  (music,) = outputs(network, [audioset.MUSIC])
  effects = outputs(network, audioset.numbers("effects"))
  params, run = network.load(), jax.jit(network.apply)

  def answer(request):
    samples = reading.sound(request, network.SAMPLE_RATE)
    logits = _logits(lambda batch: run(params, batch)[1], samples, network)
    probability = special.expit(logits.mean(axis=0))
    likeliest = float(special.expit(logits[:, effects].max()))
    heard = np.argsort(-probability)
    return {
      "music": bool(probability[music] >= _MUSIC_PROBABILITY),
      "music_probability": float(probability[music]),
      "effects": True if likeliest >= _EFFECTS_PROBABILITY else None,
      "effects_probability": likeliest,
      "heard": [names[i] for i in heard if names and probability[i] >= _HEARD],
    }

  contract.serve(answer, by=args.network)


def read_names(path: pathlib.Path) -> list[str]:
  """Reads names of classes, a name a line or AudioSet's table."""
  lines = files.read_bytes(path).decode().splitlines()
  if lines[:1] == ["index,mid,display_name"]:
    return [row["display_name"] for row in csv.DictReader(lines)]
  return [line for line in lines if line]


def outputs(network, classes: Sequence[int]) -> list[int]:
  """Returns which outputs of a network are of AudioSet's classes, if it has any.

  Args:
    network: `mn04` or `yamnet`.
    classes: numbers of classes, as in `basics/audioset.py`.
  """
  lacks = getattr(network, "LACKS", ())
  has = [number for number in range(_CLASSES) if number not in lacks]
  return [has.index(number) for number in classes if number in has]


def _logits(run, samples: np.ndarray, network) -> np.ndarray:
  """Returns logits [windows, classes]."""
  length = getattr(network, "WINDOW", network.SAMPLE_RATE)
  hop = getattr(network, "HOP", network.SAMPLE_RATE // 2)
  samples = np.pad(samples, (0, max(0, length - len(samples))))
  windows = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]
  total = []
  for first in range(0, len(windows), _WINDOWS):
    part = windows[first : first + _WINDOWS]
    # One shape is compiled.
    batch = np.pad(part, ((0, _WINDOWS - len(part)), (0, 0)))
    total.append(np.asarray(run(batch))[: len(part)])
  return np.concatenate(total)


if __name__ == "__main__":
  main()
