"""From a row's sounds to its figures: all metrics of `metrics`, in one place.

A `Judge` knows the clips and their truth; every row is put before the same one.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from v2a_jax.evaluation import embeddings, intervals
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.intervals import Estimate
from v2a_jax.evaluation.metrics import (
  TOLERANCES,
  av_align,
  frechet,
  onsets,
  sanity,
  semantic,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
  """A row's figures.

  Attributes:
    estimates: by metric.
    by_clip: by metric, float [clips]; NaN where a clip has no value.
    onsets: by metric, the counts that its F1 is made of.
  """

  estimates: dict[str, Estimate]
  by_clip: dict[str, np.ndarray]
  onsets: dict[str, list[onsets.Counts]]


class Judge:
  """Scores rows of sounds for the same clips.

  Attributes:
    true_onsets: seconds, a clip: its known events on screen, or where none are
      known the onsets found in its true sound.
    num_detected: clips of the latter kind.
  """

  def __init__(
    self,
    clips: Sequence[Clip],
    *,
    sample_rate: int,
    seed: int = 0,
    ear: embeddings.Embedding | None = None,
    reference: embeddings.Features | None = None,
  ):
    """Args:
    clips: two or more.
    sample_rate: Hz of all sounds.
    seed: of the intervals.
    ear: for FAD, KAD, KL and IS; None leaves them out.
    reference: true sounds of other clips, heard by `ear`; None leaves FAD and
      KAD out.
    """
    if len(clips) < 2:
      raise ValueError(f"{len(clips)} clips to judge; two or more are needed")
    self._clips, self._sample_rate, self._seed = clips, sample_rate, seed
    self._ear, self._reference = ear, reference
    self._true = self._hear([clip.audio for clip in clips]) if ear else None
    self.true_onsets = [
      onsets.detect(clip.audio, sample_rate)
      if clip.events is None
      else clip.events
      for clip in clips
    ]
    self.num_detected = sum(clip.events is None for clip in clips)

  def score(self, sounds: Sequence[np.ndarray]) -> Scores:
    """Scores one row.

    Args:
      sounds: float32 [samples, channels] a clip; what is longer than the clip
        is cut off.
    """
    sounds = [s[: len(c.audio)] for s, c in zip(sounds, self._clips)]
    counts = self._count_onsets(sounds)
    by_clip = {
      name: np.array([count.f1 for count in of]) for name, of in counts.items()
    }
    means = self._align(sounds) | self._sanity(sounds)
    estimates = {
      name: onsets.f1(of, seed=self._seed) for name, of in counts.items()
    }
    if self._ear:
      heard = self._hear(sounds)
      means["kl_mn04"] = semantic.kl_divergence(self._true.logits, heard.logits)
      estimates |= self._of_sets(heard)
    for name, values in means.items():
      estimates[name] = intervals.mean(values, seed=self._seed)
    return Scores(estimates=estimates, by_clip=by_clip | means, onsets=counts)

  def _hear(self, sounds) -> embeddings.Features:
    return embeddings.embed(self._ear, sounds, sample_rate=self._sample_rate)

  def _count_onsets(self, sounds) -> dict[str, list[onsets.Counts]]:
    found = [onsets.detect(sound, self._sample_rate) for sound in sounds]
    return {
      name: [
        onsets.match(true, own, tolerance=tolerance, ignored=clip.off_screen)
        for true, own, clip in zip(self.true_onsets, found, self._clips)
      ]
      for name, tolerance in TOLERANCES.items()
    }

  def _align(self, sounds) -> dict[str, np.ndarray]:
    peaks = [av_align.audio_peaks(s, self._sample_rate) for s in sounds]
    values = [av_align.score(p, c.motion) for p, c in zip(peaks, self._clips)]
    return {"av_align": np.array(values)}

  def _sanity(self, sounds) -> dict[str, np.ndarray]:
    pairs = list(zip(sounds, self._clips))
    rate = self._sample_rate
    values = {
      "silent": [sanity.is_silent(s) for s in sounds],
      "clipped": [sanity.is_clipped(s) for s in sounds],
      "level_error": [sanity.level_error(s, c.audio) for s, c in pairs],
      "duration_error": [
        sanity.duration_error(s, rate, len(c.audio) / rate) for s, c in pairs
      ],
    }
    return {name: np.array(v, np.float64) for name, v in values.items()}

  def _of_sets(self, heard: embeddings.Features) -> dict[str, Estimate]:
    score = semantic.inception_score(heard.logits, seed=self._seed)
    estimates = {"is_mn04": score}
    if self._reference:
      sets = dict(
        x=heard.vectors,
        y=self._reference.vectors,
        x_clips=heard.clips,
        y_clips=self._reference.clips,
        seed=self._seed,
      )
      estimates["fad_mn04"] = frechet.frechet(**sets)
      estimates["kad_mn04"] = frechet.kernel_distance(**sets)
    return estimates

  def over(self, scores: Scores, other: Scores) -> dict[str, Estimate]:
    """Paired differences, `scores` less `other`, of what measures timing."""
    differences = {
      name: onsets.f1_difference(counts, other.onsets[name], seed=self._seed)
      for name, counts in scores.onsets.items()
    }
    apart = scores.by_clip["av_align"] - other.by_clip["av_align"]
    return differences | {"av_align": intervals.mean(apart, seed=self._seed)}
