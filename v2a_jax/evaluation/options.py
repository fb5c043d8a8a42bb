"""How a system is evaluated."""

from collections.abc import Sequence
import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How a system is evaluated.

  Attributes:
    split: split of a data set.
    num_clips: number of clips, drawn from `seed`; None for all of the split.
    seed: random seed of the choice of clips, and of which other clip a clip's
      shuffled row is from.
    noise_seed: random seed of the model's noise and of the noise row.
    interval_seed: random seed of the intervals.
    reference_seed: random seed of the choice of reference clips.
    rows: rows to make and score; None for all that the system can have.
    word_times: add a row of the model that is given the times of the words.
    degraded: add rows of the model that is given a worse picture.
    batch_size: clips per call of the model.
    seconds: length of what is judged of a clip; None for the model's window,
      and for all of a clip where no model is.
    rate: sample rate in Hz that all sounds are judged at; None for the highest
      of the true sounds, up to 48,000.
    gallery_clips: number of clips whose media are written; see selection.py.
    keep_sounds: keep the system's sounds as FLAC in `sounds`.
    distance_to: `others`, `own` or "" to choose; see reference.py.
    reference_clips: least number of other clips that set distances are measured
      to; at least the number of evaluated clips.
    reuse: folders of earlier results; what they have embedded is not embedded
      again; see embedded.py.
    shard: (i, n): do the i-th of n shares of the work, from 1 on.
  """

  split: str = "test"
  num_clips: int | None = 64
  seed: int = 0
  noise_seed: int = 0
  interval_seed: int = 0
  reference_seed: int = 0
  rows: Sequence[str] | None = None
  word_times: bool = False
  degraded: bool = False
  batch_size: int = 8
  seconds: float | None = None
  rate: int | None = None
  gallery_clips: int = 24
  keep_sounds: bool = False
  distance_to: str = ""
  reference_clips: int = 128
  reuse: Sequence[str] = ()
  shard: tuple[int, int] = (1, 1)
