"""Says how far sound and picture are apart, by the judge of synchronisation.

  offset     seconds by which the sound is late, at the lag that fits best
  in_time    probability that it is at most 80 ms early or late
  agreement  probability that the sound is of this picture, at any lag that the
             judge knows

The judge sees lags within 0.48 s. So it is asked three times, with the sound as
it is and moved by 0.48 s either way, and believed where it is surest that the
sound belongs there; lags within 0.96 s are found.

Clips that are chosen by these columns please this judge; results of models
that are trained on them should rest on other metrics of synchronisation.
"""

import numpy as np

from v2a_jax.labellers import contract, reading
from v2a_jax.sync import bundled
from v2a_jax.sync.network import RATE

_MOVES = (0.0, -0.48, 0.48)  # seconds


def main() -> None:
  """Serves; see contract.py."""
  judge = bundled.load()

  def answer(request):
    samples = reading.sound(request, RATE)[:, None]
    video = reading.picture(
      request, fps=judge.frame_rate, size=judge.frame_size
    )
    seen = judge.look(video.frames, video.times, request["seconds"])
    verdicts = [judge.listen(seen, moved(samples, by), RATE) for by in _MOVES]
    agreement = [1 - float(verdict.none) for verdict in verdicts]
    best = int(np.argmax(agreement))
    return {
      "offset": float(verdicts[best].offset) / 1000 - _MOVES[best],
      "in_time": float(verdicts[0].in_time),
      "agreement": agreement[best],
    }

  contract.serve(answer, by=f"{judge.name}@{judge.sha256[:8]}")


def moved(samples: np.ndarray, by: float) -> np.ndarray:
  """Returns a sound [t 1] that is `by` seconds later, of the same length."""
  count = round(abs(by) * RATE)
  if by > 0:
    return np.pad(samples, ((count, 0), (0, 0)))[: len(samples)]
  return np.pad(samples[count:], ((0, min(count, len(samples))), (0, 0)))


if __name__ == "__main__":
  main()
