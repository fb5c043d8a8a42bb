"""The reader and the muxer on real and on broken files.

broken/NOTES.csv lists what FFmpeg 5.1 decoded of each broken file; `DIFFERENT`
lists where this reader differs, and why.
"""

import csv
import pathlib
import re

import numpy as np
import pytest
from test_mux import check_mux

from v2a_jax import media

CLIPS = pathlib.Path(__file__).parents[3] / "shared" / "clips"
pytestmark = pytest.mark.skipif(
  not CLIPS.is_dir(), reason="needs the real clips in ../shared/clips"
)
NOTED = re.compile(r"video frames=(\d+) audio=([\d.]+)s")
DIFFERENT = {  # file: (frames, seconds of audio); None as in NOTES.csv
  # Audio is placed by its time stamps, not concatenated.
  "Zulko_moviepy__fire2.mp4": (None, 2.417),
  "androidx_media__sample_2_byte_NAL_length.mp4": (None, 1.089),
  "androidx_media__sample_av1.mp4": (None, 1.088),
  "androidx_media__sample_mdat_too_long.mp4": (None, 1.067),
  "androidx_media__sample_partially_fragmented.mp4": (None, 1.089),
  "androidx_media__sample_rotate_and_reflect.mp4": (None, 1.067),
  "androidx_media__sample_unrecognized_hevc_sei.mp4": (None, 0.438),
  "derived__gh_bag_bitflips200.mp4": (None, 6.0),
  # Audio before the first frame is left out.
  "androidx_media__edit_list_positive_shift.mp4": (None, 9.005),
  "androidx_media__sample_fragmented_seekable.mp4": (None, 1.001),
  # FFmpeg 5.1 had no VVC decoder.
  "androidx_media__sample_vvc.mp4": (120, None),
  # All frames have the same time; one is kept.
  "androidx_media__sample_with_fake_auxiliary_tracks_interleaved_with_"
  "primary_video_tracks.mp4": (1, None),
  # The times of two frames run backwards.
  "mozilla_mp4parse-rust__no_timescale.mp4": (168, None),
  # The larger of two video streams is read.
  "pytorch_torchcodec__nasa_13013.mp4": (390, None),
}
HEAVY = (  # seconds each
  "androidx_media__edit_list_positive_shift.mp4",
  "androidx_media__internal_emulator_transformer_output_270_rotated.mp4",
  "androidx_media__sample_edit_list.mp4",
  "contentauth_c2pa-python__C-recorded-as-mov.mov",
  "DAMO-NLP-SG_Video-LLaMA__birthday.mp4",
)


def _broken():
  path = CLIPS / "broken" / "NOTES.csv"
  rows = csv.DictReader(path.open()) if path.exists() else []
  for row in rows:
    mark = [pytest.mark.slow] if row["file"] in HEAVY else []
    yield pytest.param(
      row["file"], row["what_ffmpeg_5.1_did"], id=row["file"], marks=mark
    )


@pytest.mark.parametrize(("name", "note"), _broken())
def test_broken_files_are_read_properly_or_refused(name, note):
  frames, seconds = NOTED.search(note).groups()
  different = DIFFERENT.get(name, (None, None))
  frames = int(frames) if different[0] is None else different[0]
  seconds = float(seconds) if different[1] is None else different[1]
  path = CLIPS / "broken" / name
  read = {"sample_rate": 16_000, "channels": 1, "size": (32, 32)}
  if not frames and not seconds:
    with pytest.raises(media.MediaError) as e:
      media.read_clip(path, **read)
    message = str(e.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return
  clip = media.read_clip(path, **read)
  assert (len(clip.video.frames) if clip.video else 0) == frames
  duration = len(clip.audio.samples) / 16_000 if clip.audio else 0
  assert duration == pytest.approx(seconds, abs=0.03)
  if clip.video:
    assert (np.diff(clip.video.times) > 0).all()
    assert clip.video.times[0] == 0


@pytest.mark.parametrize(
  ("name", "rotation", "height", "width"),
  [
    ("dmlc_decord__video_90.mov", 90, 568, 320),
    ("dmlc_decord__video_180.mov", 180, 320, 568),
    ("dmlc_decord__video_270.mov", 270, 568, 320),
    ("androidx_media__bear-vp9-odd-dimensions.webm", 0, 121, 161),
  ],
)
def test_pictures_are_upright(name, rotation, height, width):
  info = media.probe(CLIPS / "broken" / name)
  assert (info.rotation, info.height, info.width) == (rotation, height, width)


def test_huge_time_stamps_are_counted_from_the_first_frame():
  name = "derived__gh_bag_huge_timestamps_2pow32_90k.ts"
  huge, plain = CLIPS / "broken" / name, CLIPS / "av" / "gh_bag.mp4"
  assert media.probe(huge).video_start > 47_000
  settings = {"max_fps": 5, "size": (32, 32)}
  a, b = (media.read_video(p, **settings) for p in (huge, plain))
  np.testing.assert_allclose(a.times, b.times, atol=1e-4)
  np.testing.assert_array_equal(a.frames, b.frames)
  x, y = (media.read_audio(p, sample_rate=16_000) for p in (huge, plain))
  length = min(len(x.samples), len(y.samples))
  assert np.corrcoef(x.samples[:length, 0], y.samples[:length, 0])[0, 1] > 0.999


def test_an_edit_list_inside_the_video_is_refused_by_mux(tmp_path):
  source = CLIPS / "broken" / "contentauth_c2pa-python__C-recorded-as-mov.mov"
  with pytest.raises(media.MediaError, match="edit list cuts inside"):
    media.mux(source, np.zeros(9), sample_rate=8000, out=tmp_path / "o.mp4")


def _real():
  for index, path in enumerate(sorted((CLIPS / "av").glob("*.mp4"))):
    mark = [] if index % 14 == 0 else [pytest.mark.slow]
    yield pytest.param(path, id=path.stem, marks=mark)


@pytest.mark.parametrize("path", _real())
def test_real_clips_are_read_and_muxed(tmp_path, path):
  clip = media.read_clip(path, sample_rate=16_000, max_fps=8, size=(64, 64))
  seconds = float(media.video_duration(path))
  assert len(clip.video.frames) == pytest.approx(seconds * 8, abs=1)
  assert len(clip.audio.samples) == pytest.approx(16_000 * seconds, abs=2000)
  assert not clip.video.damaged and not clip.audio.damaged
  for codec in ("aac", "flac"):
    out = media.mux(
      path,
      clip.audio.samples,
      sample_rate=16_000,
      out=tmp_path / "out.mp4",
      audio_codec=codec,
    )
    check_mux(path, out)
