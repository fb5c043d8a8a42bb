"""Broadcast Wave files, time codes, and lossless tracks in a container."""

import datetime
from fractions import Fraction
import struct
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import soundfile

from tests.media.media_synthetic import numbered
from v2a_jax import media

RATE = 48_000


def chunks(path) -> dict[str, bytes]:
  """Returns the chunks of a RIFF file by name, in their order."""
  data = path.read_bytes()
  assert data[:4] == b"RIFF" and data[8:12] == b"WAVE"
  assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
  found, place = {}, 12
  while place < len(data):
    size = struct.unpack("<I", data[place + 4 : place + 8])[0]
    name = data[place : place + 4].decode()
    found[name] = data[place + 8 : place + 8 + size]
    place += 8 + size + size % 2
  return found


@pytest.fixture
def sound():
  rng = np.random.default_rng(0)
  return (0.3 * rng.standard_normal((RATE, 2))).clip(-1, 1).astype(np.float32)


def test_a_broadcast_wave_says_where_it_belongs(sound, tmp_path):
  said = media.Broadcast(
    description="Tür, slams",
    originator="v2a_jax",
    reference="clip__c01",
    created=datetime.datetime(2026, 11, 27, 14, 5, 6),
    start=media.Timecode.parse("01:00:00:00", 30000 / 1001),
    scene="clip",
    take=3,
    note="rain <&> \x07 on a tin roof",
    loudness=-23.01,
    true_peak=-1.5,
    history="A=PCM,F=48000,W=24,M=stereo\r\n",
  )
  path = media.write_wav(tmp_path / "a.wav", sound, RATE, broadcast=said)
  found = chunks(path)
  assert list(found)[:2] == ["bext", "iXML"]
  bext = found["bext"]
  assert bext[:256].rstrip(b"\0") == b"T?r, slams"
  assert bext[320:338] == b"2026-11-2714:05:06"
  # An hour of non-drop code at 29.97 is 3603.6 s of real time.
  (since,) = struct.unpack("<Q", bext[338:346])
  assert since == 3603.6 * RATE
  loudness, span, peak = struct.unpack("<3h", bext[412:418])
  assert (loudness, span, peak) == (-2301, 0x7FFF, -150)
  root = ElementTree.fromstring(found["iXML"])
  text = {part.tag: part.text for part in root.iter()}
  assert text["NOTE"] == "rain <&> ? on a tin roof" and text["TAKE"] == "3"
  assert text["TIMECODE_RATE"] == "30000/1001"
  assert text["TIMECODE_FLAG"] == "NDF"
  low = int(text["TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO"])
  assert low == since
  # Others read the sound as before, and FFmpeg the time.
  read, rate = soundfile.read(path, dtype="float32")
  assert rate == RATE and np.abs(read - sound).max() < 2**-22
  with av.open(str(path)) as container:
    assert container.metadata["time_reference"] == str(since)
    assert container.metadata["coding_history"].startswith("A=PCM,F=48000")


@pytest.mark.parametrize(
  "text,fps,seconds",
  [
    ("01:00:00:00", 25, 3600),
    ("10:00:00:12", 24, 36000.5),
    # Published pairs: an hour of drop-frame code is 107,892 frames.
    ("01:00:00;00", 30000 / 1001, Fraction(107892 * 1001, 30000)),
    ("00:01:00;02", 30000 / 1001, Fraction(1800 * 1001, 30000)),
    ("00:10:00;00", 60000 / 1001, Fraction(35964 * 1001, 60000)),
    ("23:59:59:23", 24000 / 1001, Fraction(2073599 * 1001, 24000)),
  ],
)
def test_time_codes_are_read_and_written(text, fps, seconds):
  code = media.Timecode.parse(text, fps)
  assert code.seconds == seconds
  assert str(code) == text


def test_drop_frame_code_counts_every_frame_once():
  code = media.Timecode.parse("00:00:00;00", 30000 / 1001)
  texts = [str(code.plus(i)) for i in range(20 * 1800)]
  assert len(set(texts)) == len(texts)
  assert texts[1799:1801] == ["00:00:59;29", "00:01:00;02"]
  for i in range(0, len(texts), 97):
    assert media.Timecode.parse(texts[i], 30000 / 1001).frames == i


@pytest.mark.parametrize("text", ["", "1:2:3", "01:00:00:25", "01:60:00:00"])
def test_what_is_no_time_code_is_refused(text):
  with pytest.raises(ValueError, match="no time code"):
    media.Timecode.parse(text, 25)


@pytest.mark.parametrize(
  "suffix,wanted,codec",
  [
    (".mov", "pcm", "pcm_s24le"),
    (".mkv", "pcm", "pcm_s24le"),
    (".mp4", "pcm", "flac"),
    (".mp4", "flac", "flac"),
    (".mov", "flac", "alac"),
  ],
)
def test_lossless_tracks_keep_24_bits(sound, tmp_path, suffix, wanted, codec):
  clip = tmp_path / "clip.mp4"
  media.encode_video(numbered(25), fps=25, path=clip)
  out = media.mux(
    clip,
    sound,
    sample_rate=RATE,
    out=tmp_path / f"out{suffix}",
    audio_codec=wanted,
  )
  assert out.suffix == suffix and media.probe(out).audio_codec == codec
  read = media.read_audio(out, sample_rate=RATE).samples
  assert read.shape == sound.shape
  assert np.abs(read - sound).max() <= 2**-22
