"""Says whether somebody speaks, by Silero VAD (pretrained/silero.py).

  speech          speech is likelier than not for 0.25 s in all
  speech_seconds  seconds in which it is

hearing/unwanted.py has how often the rule is right.
"""

import jax
import numpy as np

from v2a_jax.labellers import contract, reading
from v2a_jax.pretrained import silero

_LEAST_SECONDS = 0.25


def main() -> None:
  """Serves; see contract.py."""
  params, run = silero.load(), jax.jit(silero.apply)

  def answer(request):
    samples = reading.sound(request, silero.SAMPLE_RATE)
    # Whole seconds, so that few shapes are compiled.
    samples = np.pad(samples, (0, -len(samples) % silero.SAMPLE_RATE))
    seconds = float(run(params, samples[None])[0][0, 0])
    return {"speech": seconds >= _LEAST_SECONDS, "speech_seconds": seconds}

  contract.serve(answer, by="silero@6.2")


if __name__ == "__main__":
  main()
