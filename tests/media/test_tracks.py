"""Files with several sound tracks, and of formats that cameras and discs have."""

import numpy as np
import pytest

from tests.media.media_synthetic import write_tracks
from v2a_jax import media

RATE = 48_000


def pitch(audio: media.Audio) -> float:
  """The loudest frequency in Hz; 0 for silence."""
  power = np.abs(np.fft.rfft(audio.samples[:, 0]))
  return np.argmax(power) * audio.sample_rate / len(audio.samples)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
  """Three sound tracks: 400 Hz, silence, 900 Hz."""
  path = tmp_path_factory.mktemp("film") / "film.mkv"
  return write_tracks(path, tones=(400, 0, 900), languages=("eng", "", "deu"))


def test_a_track_is_chosen_by_its_number(film):
  heard = []
  for number in range(3):
    clip = media.read_clip(film, sample_rate=RATE, audio_track=number)
    assert clip.info.audio_track == number and clip.info.audio_tracks == 3
    heard.append(round(pitch(clip.audio), -2))
  assert heard == [400, 0, 900]
  same = media.read_audio(film, sample_rate=RATE, audio_track=2)
  assert round(pitch(same), -2) == 900


def test_which_track_is_read_is_said(film):
  main = media.probe_limited(film)
  assert main.several_tracks() == "sound track 0 of 3 (eng)"
  other = media.probe_limited(film, audio_track=1)
  assert other.several_tracks() == "sound track 1 of 3"


def test_a_track_that_is_not_there_is_one_line_with_how_many_there_are(film):
  for read in (
    lambda: media.probe_limited(film, audio_track=3),
    lambda: media.read_clip(film, sample_rate=RATE, audio_track=3),
  ):
    with pytest.raises(media.MediaError) as error:
      read()
    assert "has 3 sound tracks, so there is no number 3" in str(error.value)
    assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="audio_track=-1"):
    media.read_clip(film, sample_rate=RATE, audio_track=-1)


@pytest.mark.parametrize(
  ("name", "video", "audio", "size", "suffix"),
  [
    ("tape.dv", "dvvideo", "pcm_s16le", (576, 720), ".mov"),
    ("card.mxf", "mpeg2video", "pcm_s16le", (64, 96), ".mp4"),
    ("disc.vob", "mpeg2video", "mp2", (64, 96), ".mp4"),
  ],
)
def test_tapes_cards_and_discs_are_read_and_given_sound(
  tmp_path, name, video, audio, size, suffix
):
  path = write_tracks(
    tmp_path / name, tones=(400,), codec=video, audio_codec=audio, size=size
  )
  clip = media.read_clip(path, sample_rate=RATE)
  assert len(clip.video.times) == 13 and round(pitch(clip.audio), -2) == 400
  sound = np.zeros((round(0.52 * RATE), 1), np.float32)
  out = media.mux(path, sound, sample_rate=RATE, out=tmp_path / "out.mp4")
  assert out.suffix == suffix
  assert media.video_packets_digest(out) == media.video_packets_digest(path)


def test_a_format_that_is_not_read_is_named(tmp_path):
  path = tmp_path / "clip.y4m"
  frame = b"FRAME\n" + bytes(16 * 16 * 3 // 2)
  path.write_bytes(b"YUV4MPEG2 W16 H16 F25:1 C420\n" + 3 * frame)
  with pytest.raises(media.MediaError) as error:
    media.probe_limited(path)
  assert "its format, yuv4mpegpipe, is not read here" in str(error.value)
  assert "convert it" in str(error.value)
