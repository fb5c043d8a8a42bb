"""Speech and music that are heard where the true sound has none.

Somebody speaks where Silero VAD (https://github.com/snakers4/silero-vad) finds
a probability of speech over 0.5 for 0.25 s in all: in 48 of 48 recordings of
speech, and in 36 of 1,120 of other sounds, of which 19 are sneezes and 10 dogs.
There is music where mn04 gives the AudioSet class "Music" a probability of 0.3
or more, from logits averaged over windows of 1 s: in 9 of 13 recordings of
music, and in 21 of those 1,120.
"""

from scipy import special

from v2a_jax.evaluation import embeddings, intervals
from v2a_jax.evaluation.metrics import base
from v2a_jax.pretrained import mn04

_SPEECH_SECONDS = 0.25
_MUSIC_PROBABILITY = 0.3


class _Unwanted(base.ClipMetric):
  """Share of the clips without something in which it is heard."""

  direction = "lower"
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
    vectors = sample.features[self.embedding.id].vectors
    return float(vectors.sum()) >= _SPEECH_SECONDS


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
    logits = sample.features[self.embedding.id].logits
    return float(special.expit(logits[0, mn04.MUSIC])) >= _MUSIC_PROBABILITY
