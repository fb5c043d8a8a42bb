"""What is measured, and how results.json introduces it to a reader.

One module a family; each opens with its formula and source:

frechet    distance of two sets of sounds in an embedding (FAD, KAD)
onsets     whether sounds start when things happen (F1 at 50 and 100 ms)
av_align   whether sound and picture peak together
semantic   whether the right thing is heard (KL, IS)
sanity     silence, clipping, level, length
"""

import dataclasses

TOLERANCES = {"onset_f1_50ms": 0.05, "onset_f1_100ms": 0.1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
  """How a report shows a metric.

  Attributes:
    label: a table's heading.
    unit: "" for a bare number.
    higher_is_better: the direction.
    about: what it is and how to read it, in plain words.
  """

  label: str
  unit: str = ""
  higher_is_better: bool
  about: str


_ONSET = (
  "Share of sound onsets that match the clip's true event times within {} ms,"
  " as the harmonic mean of precision and recall, summed over clips. Events off"
  " screen neither help nor hurt. The ground truth row is what the detector"
  " itself reaches."
)

METRICS = {
  "fad_mn04": Metric(
    label="FAD (mn04)",
    higher_is_better=False,
    about=(
      "Fréchet distance between the row's sounds and true sounds of other clips,"
      " on EfficientAT mn04 embeddings of 1 s windows. Corrected for the bias of"
      " small sets by the bootstrap, which can leave part of it: read it against"
      " the ground truth row. `plug_in` is the uncorrected value that papers"
      " print; not comparable with VGGish FAD."
    ),
  ),
  "onset_f1_50ms": Metric(
    label="Onset F1 at 50 ms", higher_is_better=True, about=_ONSET.format(50)
  ),
  "onset_f1_100ms": Metric(
    label="Onset F1 at 100 ms", higher_is_better=True, about=_ONSET.format(100)
  ),
  "av_align": Metric(
    label="AV-Align",
    higher_is_better=True,
    about=(
      "Overlap of the peaks of motion (optical flow at 25 frames a second) and"
      " the onsets of sound, within one frame: intersection over union. Needs no"
      " reference sound; chance is not zero, see the shuffled row."
    ),
  ),
  "kl_mn04": Metric(
    label="KL (mn04)",
    unit="nats",
    higher_is_better=False,
    about=(
      "Divergence of the row's class posterior from that of the same clip's true"
      " sound, KL(true || row), softmax over AudioSet's 527 classes by"
      " EfficientAT mn04."
    ),
  ),
  "is_mn04": Metric(
    label="Inception score (mn04)",
    higher_is_better=True,
    about=(
      "How sure the tagger is of each clip and how varied the clips are; it says"
      " nothing about fitting the video. Corrected for small sets."
    ),
  ),
  "kad_mn04": Metric(
    label="KAD (mn04)",
    higher_is_better=False,
    about=(
      "100 x squared kernel distance between the same sets as FAD, bandwidth from"
      " the reference's median distance, pairs within a clip left out. Unbiased,"
      " so it can be slightly negative."
    ),
  ),
  "silent": Metric(
    label="Silent clips",
    higher_is_better=False,
    about="Share of clips quieter than -60 dBFS (RMS).",
  ),
  "clipped": Metric(
    label="Clipped clips",
    higher_is_better=False,
    about="Share of clips with more than one sample in a thousand at full scale.",
  ),
  "level_error": Metric(
    label="Level error",
    unit="dB",
    higher_is_better=False,
    about="Mean distance of the RMS level from that of the true sound.",
  ),
  "duration_error": Metric(
    label="Duration error",
    unit="s",
    higher_is_better=False,
    about="Mean distance of the sound's length from the length asked for.",
  ),
}
