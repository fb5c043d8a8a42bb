"""Chunks of a Broadcast Wave file: who made it, when, and where it belongs.

`bext` is that of EBU Tech 3285, version 2, with loudness. `iXML` is what field
recorders and editors exchange, http://www.gallery.co.uk/ixml/ (version 2.10).
Both have the time of the first sample as a number of samples since midnight,
by which an editing program puts the sound where its picture is.
"""

import dataclasses
import datetime
import pathlib
import shutil
import struct
from xml.etree import ElementTree

from v2a_jax.media.timecode import Timecode

_VERSION = 2
_UNKNOWN = 0x7FFF  # of a loudness that was not measured
_FIXED = "<256s32s32s10s8sQH64s5h180x"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broadcast:
  """What a Broadcast Wave file says about itself.

  Attributes:
    description: title of at most 256 letters of ASCII; others become "?".
    originator: name of the program or person, at most 32 letters.
    reference: name that the originator gives the sound, at most 32 letters.
    created: when it was made.
    start: time code of the first sample; None for midnight.
    project: name of the work, for iXML.
    scene: name of the picture.
    take: number of the take.
    note: remark, any text.
    loudness: integrated loudness in LUFS; None if it has none.
    true_peak: in dBTP.
    history: how the sound was coded, a line each step.
  """

  description: str
  originator: str
  reference: str
  created: datetime.datetime
  start: Timecode | None = None
  project: str = ""
  scene: str = ""
  take: int = 1
  note: str = ""
  loudness: float | None = None
  true_peak: float | None = None
  history: str = ""

  def chunks(self, sample_rate: int, bits: int) -> bytes:
    """Returns both chunks, for a sound of this rate in Hz and depth."""
    since = round((self.start.seconds if self.start else 0) * sample_rate)
    loud = [self.loudness, None, self.true_peak, None, None]
    bext = struct.pack(
      _FIXED,
      _ascii(self.description, 256),
      _ascii(self.originator, 32),
      _ascii(self.reference, 32),
      self.created.strftime("%Y-%m-%d").encode(),
      self.created.strftime("%H:%M:%S").encode(),
      since,
      _VERSION,
      b"",
      *(_UNKNOWN if x is None else round(100 * x) for x in loud),
    )
    bext += _ascii(self.history, 1024)
    xml = self._xml(since, sample_rate, bits)
    return _chunk(b"bext", bext) + _chunk(b"iXML", xml)

  def _xml(self, since: int, sample_rate: int, bits: int) -> bytes:
    root = ElementTree.Element("BWFXML")
    put = _adder(root)
    put(IXML_VERSION="2.10", PROJECT=self.project, SCENE=self.scene)
    put(TAKE=self.take, NOTE=self.note)
    speed = _adder(ElementTree.SubElement(root, "SPEED"))
    if self.start:
      rate = self.start.rate
      speed(
        MASTER_SPEED=f"{rate.numerator}/{rate.denominator}",
        TIMECODE_RATE=f"{rate.numerator}/{rate.denominator}",
        TIMECODE_FLAG="DF" if self.start.drop else "NDF",
      )
    speed(
      FILE_SAMPLE_RATE=sample_rate,
      AUDIO_BIT_DEPTH=bits,
      DIGITIZER_SAMPLE_RATE=sample_rate,
      TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI=since >> 32,
      TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO=since & 0xFFFFFFFF,
      TIMESTAMP_SAMPLE_RATE=sample_rate,
    )
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)


def insert(path: pathlib.Path, chunks: bytes) -> None:
  """Puts chunks before all others of a WAV file.

  Raises:
    ValueError: the file would be longer than WAV can say, 4 GiB.
  """
  with path.open("rb") as old:
    header = old.read(12)
    size = path.stat().st_size - 8 + len(chunks)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE" or size >= 2**32:
      raise ValueError(f"{path} has no room for {len(chunks)} bytes in a WAV")
    path.unlink()  # What is open can still be read.
    with path.open("wb") as new:
      new.write(b"RIFF" + struct.pack("<I", size) + b"WAVE" + chunks)
      shutil.copyfileobj(old, new, 1 << 20)


def _chunk(name: bytes, data: bytes) -> bytes:
  return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _ascii(text: str, size: int) -> bytes:
  return text.encode("ascii", "replace")[:size]


def _adder(parent: ElementTree.Element):
  def put(**values) -> None:
    for name, value in values.items():
      ElementTree.SubElement(parent, name).text = _legal(str(value))

  return put


def _legal(text: str) -> str:
  """Replaces what XML 1.0 cannot hold."""
  return "".join(c if c in "\t\n\r" or c >= " " else "?" for c in text)
