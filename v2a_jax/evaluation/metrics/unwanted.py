"""Speech and music that are heard where the true sound has none.

The limits and what they find are those of `hearing/unwanted.py`.
"""

from v2a_jax.evaluation import intervals
from v2a_jax.evaluation.metrics import base
from v2a_jax.hearing import embeddings, unwanted


class _Unwanted(base.ClipMetric):
  """Share of the clips without something in which it is heard."""

  direction = "lower"
  bounds = (0.0, 1.0)
  role = "sanity"

  def heard(self, sample: base.Sample) -> bool:
    """Says whether it is heard in a sound."""
    raise NotImplementedError

  def get_state(self, sample: base.Sample) -> bool | None:
    return None if self.heard(sample.truth) else self.heard(sample)

  def value(self, state: bool | None) -> float:
    return float("nan") if state is None else float(state)

  def compute(self, states, *, seed=0) -> intervals.Estimate:
    return intervals.share([state for state in states if state is not None])


class UnwantedSpeech(_Unwanted):
  """Share of clips with speech that the true sound does not have."""

  id = "unwanted_speech"
  label = "Unwanted speech"
  variant = "silero_0.25s"
  embedding = embeddings.Silero
  about = (
    "Share of the clips without speech in which somebody speaks for 0.25 s or"
    " more, by Silero VAD."
  )

  def heard(self, sample: base.Sample) -> bool:
    features = sample.features[self.embedding.id]
    return unwanted.speech_seconds(features) >= unwanted.SPEECH_SECONDS


class UnwantedMusic(_Unwanted):
  """Share of clips with music that the true sound does not have."""

  id = "unwanted_music"
  label = "Unwanted music"
  variant = "mn04_0.3"
  embedding = embeddings.Mn04
  about = (
    "Share of the clips without music in which mn04 hears some, with a"
    " probability of 0.3 or more."
  )

  def heard(self, sample: base.Sample) -> bool:
    features = sample.features[self.embedding.id]
    return unwanted.music_probability(features) >= unwanted.MUSIC_PROBABILITY
