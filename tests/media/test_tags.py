"""A new soundtrack keeps what the file says about itself."""

from fractions import Fraction

import av
from media_synthetic import numbered
import numpy as np
import pytest

from v2a_jax import media

BT709 = 1


@pytest.fixture(scope="module")
def reel(tmp_path_factory):
  """A QuickTime file with all that a camera and an editor write."""
  path = tmp_path_factory.mktemp("reels") / "reel.mov"
  with av.open(str(path), "w") as container:
    container.metadata.update(
      title="reel 7",
      comment="second unit",
      creation_time="2001-02-03T04:05:06.000000Z",
    )
    video = container.add_stream("libx264", rate=25)
    video.height, video.width, video.pix_fmt = 32, 64, "yuv420p"
    context = video.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = 2  # full
    video.set_display_rotation(90)
    video.metadata.update(timecode="01:02:03:04", language="fra")
    audio = container.add_stream("aac", rate=16_000, layout="mono")
    audio.metadata["language"] = "ita"
    chapter = {"id": 1, "time_base": Fraction(1, 1000)}
    container.set_chapters(
      [
        chapter | {"start": 0, "end": 400, "metadata": {"title": "one"}},
        chapter
        | {"id": 2, "start": 400, "end": 9000, "metadata": {"title": "two"}},
      ]
    )
    for pixels in numbered(25):
      container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
    container.mux(video.encode(None))
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 16_000), np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 16_000
    container.mux(audio.encode(frame))
    container.mux(audio.encode(None))
  return path


def _lower(part) -> dict[str, str]:
  return {key.lower(): value for key, value in part.metadata.items()}


def _read(path) -> dict:
  with av.open(str(path)) as container:
    video, audio = container.streams.video[0], container.streams.audio[0]
    context = video.codec_context
    return {
      **{k: _lower(container).get(k) for k in ("title", "comment")},
      "made": _lower(container).get("creation_time"),
      "timecode": next(
        filter(None, (_lower(s).get("timecode") for s in container.streams))
      ),
      "languages": [s.metadata.get("language") for s in (video, audio)],
      "color": (context.colorspace, context.color_trc, context.color_range),
      "rotation": media.probe(path).rotation,
      "chapters": [
        (
          float(c["start"] * c["time_base"]),
          float(c["end"] * c["time_base"]),
          c["metadata"].get("title"),
        )
        for c in container.chapters()
      ],
    }


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_tags_time_code_and_chapters_are_kept(reel, tmp_path, suffix):
  out = media.mux(
    reel, np.zeros(9), sample_rate=16_000, out=tmp_path / f"out{suffix}"
  )
  before, after = _read(reel), _read(out)
  assert before["timecode"] == "01:02:03:04" and before["title"] == "reel 7"
  assert before["languages"] == ["fra", "ita"] and before["rotation"]
  assert len(before.pop("chapters")) == 2
  assert after.pop("chapters") == [(0.0, 0.4, "one"), (0.4, 1.0, "two")]
  assert after == before
  with av.open(str(out)) as container:
    kinds = [s.type for s in container.streams]
  # Matroska has a tag for the time code, QuickTime and MP4 have a track.
  assert kinds.count("data") >= (suffix != ".mkv")
  assert media.video_packets(out) == media.video_packets(reel)
