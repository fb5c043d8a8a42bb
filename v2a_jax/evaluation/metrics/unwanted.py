"""Speech and music that are heard where the true sound has none.

The limits and what they find are those of `hearing/unwanted.py`.
"""

from v2a_jax.evaluation.metrics import base
from v2a_jax.evaluation.metrics.fault import Fault
from v2a_jax.hearing import embeddings, unwanted


class UnwantedSpeech(Fault):
  """Share of clips with speech that the true sound does not have."""

  id = "unwanted_speech"
  label = "Unwanted speech"
  variant = "silero_0.25s"
  embedding = embeddings.Silero
  chosen_by = ("no_speech",)
  about = (
    "Share of the clips without speech in which somebody speaks for 0.25 s or"
    " more, by Silero VAD."
  )

  def has_fault(self, sample: base.Sample) -> bool:
    features = sample.features[self.embedding.id]
    return unwanted.speech_seconds(features) >= unwanted.SPEECH_SECONDS


class UnwantedMusic(Fault):
  """Share of clips with music that the true sound does not have."""

  id = "unwanted_music"
  label = "Unwanted music"
  variant = "mn04_0.3"
  embedding = embeddings.Mn04
  chosen_by = ("no_music",)
  about = (
    "Share of the clips without music in which mn04 hears some, with a"
    " probability of 0.3 or more."
  )

  def has_fault(self, sample: base.Sample) -> bool:
    features = sample.features[self.embedding.id]
    return unwanted.music_probability(features) >= unwanted.MUSIC_PROBABILITY
