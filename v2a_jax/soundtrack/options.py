"""How soundtracks are written: the options of a delivery."""

import dataclasses

from v2a_jax.basics.settings import SettingError, check, choose
from v2a_jax.soundtrack import loudness as loud
from v2a_jax.soundtrack import mixing, timeline

CONTAINERS = ("mp4", "mov", "mkv")
CODECS = ("aac", "pcm", "flac")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
  """How soundtracks are written.

  Attributes:
    keep: number of candidates to write, the best ones; None for all.
    sample_rate: sample rate of what is written in Hz; None for that of the sound
      that is kept, if AAC has it, or 48,000.
    loudness: integrated loudness in LUFS, such as -23; None as generated.
    true_peak: highest true peak in dBTP, of what is new where sound is kept and
      no loudness is asked for.
    container: mp4, mov or mkv; another one where it cannot hold the picture.
    audio_codec: sound of video files: aac, or lossless pcm or flac.
    sound_file: file of the sound alone: wav (Broadcast Wave) or flac.
    original: what becomes of the video's own sound: "" drops it, mix adds the
      new sound to it, duck also turns the new sound down while it is heard.
    original_level: change of the original's level in dB.
    duck: how far the new sound is turned down in dB.
    timeline: timelines to write: edl (CMX 3600), otio (OpenTimelineIO).
    zip: whether everything is put into one zip file as well.
    payload: 16 bits that the watermark carries.
    mark: whether there is a watermark.
    sign: whether files are signed (`provenance`).
  """

  keep: int | None = None
  sample_rate: int | None = None
  loudness: float | None = None
  true_peak: float = loud.PEAK
  container: str = "mp4"
  audio_codec: str = "aac"
  sound_file: str = "wav"
  original: str = ""
  original_level: float = 0.0
  duck: float = 12.0
  timeline: tuple[str, ...] = ()
  zip: bool = False
  payload: int = 0
  mark: bool = True
  sign: bool = True

  def __post_init__(self):
    check(
      self,
      keep="[1, inf)",
      sample_rate="[8000, 192000]",
      loudness="[-70, 0]",
      true_peak="[-40, 0]",
      original_level="[-60, 20]",
      duck="[0, 60]",
      payload="[0, 65535]",
    )
    choose(
      self,
      container=CONTAINERS,
      audio_codec=CODECS,
      sound_file=("wav", "flac"),
      original=mixing.MODES,
      zip=(False, True),
      mark=(False, True),
      sign=(False, True),
    )
    for name in self.timeline:
      if name not in timeline.FORMATS:
        raise SettingError(
          f"timeline={name!r} is not one of {', '.join(timeline.FORMATS)}"
        )
