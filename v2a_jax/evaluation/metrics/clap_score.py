"""Agreement of a sound with its prompt, by LAION's CLAP.

  score = cosine of the features of sound and prompt

Wu et al., https://arxiv.org/abs/2211.06687. Values of papers are of the
checkpoint that they name and cannot be compared with those of another.
"""

import dataclasses

from v2a_jax.evaluation.metrics import base
from v2a_jax.hearing import clap


@dataclasses.dataclass(frozen=True)
class ClapScore(base.ClipMetric):
  """Mean cosine of sounds and their prompts.

  Attributes:
    folder: folder of the network, as `transformers` publishes it.
  """

  folder: str

  id = "clap_score"
  label = "CLAP score"
  variant = "laion_10s_repeated"
  direction = "higher"
  unmet = "no clip has a prompt"
  bounds = (-1.0, 1.0)
  chosen_by = ("prompt",)
  about = (
    "Mean cosine of the features of a sound and of its prompt, by LAION's CLAP."
    " What it is for sounds that have nothing to do with the prompt show the"
    " rows of noise and silence."
  )

  def __post_init__(self):
    """Reads the network, so that a wrong folder is refused before the work."""
    clap.load(self.folder)

  def judges(self, clip) -> bool:
    return bool(clip.caption)

  def facts(self, clips) -> dict[str, str]:
    return {"CLAP": f"{self._network.name} {self._network.sha256}"}

  def get_state(self, sample: base.Sample) -> float:
    return self._network.agreement(
      sample.clip.caption, sample.waveform, sample.sample_rate
    )

  @property
  def _network(self) -> clap.Clap:
    return clap.load(self.folder)
