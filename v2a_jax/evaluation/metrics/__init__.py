"""The metrics of an evaluation, in the order of the report's columns.

To add one, write its class in a file of its own (see base.py) and add a line
to `choose`. Each file opens with the metric's formula and source.
"""

from collections.abc import Sequence

from v2a_jax.evaluation.metrics.av_align import AVAlign
from v2a_jax.evaluation.metrics.bandwidth import Bandwidth, LostBand
from v2a_jax.evaluation.metrics.base import Metric
from v2a_jax.evaluation.metrics.clap_score import ClapScore
from v2a_jax.evaluation.metrics.clipped import ClippedClips
from v2a_jax.evaluation.metrics.desync import DeSync
from v2a_jax.evaluation.metrics.duration_error import DurationError
from v2a_jax.evaluation.metrics.frechet import FrechetDistance
from v2a_jax.evaluation.metrics.inception import (
  InceptionScore,
  SplitInceptionScore,
)
from v2a_jax.evaluation.metrics.kernel import KadtkDistance, KernelDistance
from v2a_jax.evaluation.metrics.kl_divergence import (
  KLDivergence,
  ReverseKLDivergence,
)
from v2a_jax.evaluation.metrics.level_error import LevelError
from v2a_jax.evaluation.metrics.lips import LipError, LipsInTime
from v2a_jax.evaluation.metrics.loudness_error import LoudnessError
from v2a_jax.evaluation.metrics.offset import (
  EnvelopeOffset,
  OnsetCorrelation,
  OnsetOffset,
  SyncError,
)
from v2a_jax.evaluation.metrics.onsets import (
  OnsetF1,
  OnsetPrecision,
  OnsetRecall,
)
from v2a_jax.evaluation.metrics.order import SceneOrder
from v2a_jax.evaluation.metrics.silent import SilentClips
from v2a_jax.evaluation.metrics.spectral import (
  LogSpectralDistance,
  MultiResolutionSTFT,
)
from v2a_jax.evaluation.metrics.sync_judge import JudgedOffset, JudgedSync
from v2a_jax.evaluation.metrics.unwanted import UnwantedMusic, UnwantedSpeech
from v2a_jax.evaluation.metrics.words import (
  SceneDigits,
  SceneWords,
  WordErrorRate,
  WordsHeard,
)
from v2a_jax.hearing import embeddings as embeddings_lib

EMBEDDINGS = ("mn04", "aisfx")


def choose(
  embeddings: Sequence[str] = EMBEDDINGS,
  *,
  toolkits: bool = False,
  clap: str = "",
) -> tuple[Metric, ...]:
  """Returns the metrics that are computed, on some embeddings.

  Args:
    embeddings: ids in `embeddings.EMBEDDINGS`; sets of sounds are compared on
      each, and classes by those that tag.
    toolkits: add what kadtk and av-benchmark compute in another way.
    clap: folder of a CLAP with which to add the CLAP score; "" for none.

  Raises:
    ValueError: there is no embedding of that id.
  """
  taggers = [id_ for id_ in embeddings if embeddings_lib.get(id_).classes]
  published = ()
  if toolkits:
    published = (
      *map(KadtkDistance, embeddings),
      *map(SplitInceptionScore, taggers),
      DeSync(),
    )
  return (
    *map(FrechetDistance, embeddings),
    OnsetF1(milliseconds=50),
    OnsetF1(milliseconds=100),
    OnsetCorrelation(),
    SyncError(),
    JudgedSync(),
    OnsetOffset(),
    EnvelopeOffset(),
    JudgedOffset(),
    *map(KLDivergence, taggers),
    *map(InceptionScore, taggers),
    *map(KernelDistance, embeddings),
    *([ClapScore(clap)] if clap else ()),
    WordsHeard(),
    WordErrorRate(),
    SceneWords(),
    SceneDigits(),
    LipError(),
    LipsInTime(),
    SceneOrder(),
    UnwantedSpeech(),
    UnwantedMusic(),
    SilentClips(),
    ClippedClips(),
    LevelError(),
    LoudnessError(),
    LostBand(),
    DurationError(),
    OnsetPrecision(milliseconds=100),
    OnsetRecall(milliseconds=100),
    Bandwidth(),
    MultiResolutionSTFT(),
    LogSpectralDistance(),
    *map(ReverseKLDivergence, taggers),
    AVAlign(),
    *published,
  )


METRICS = choose()
