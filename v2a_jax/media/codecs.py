"""Codecs that the installed PyAV provides, for `v2a doctor`."""

import av

READ = (
  *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "prores"),
  *("aac", "opus", "flac", "mp3", "vorbis", "pcm_s16le"),
)
WRITE = ("h264", "aac", "libopus", "flac", "alac", "pcm_s24le")


def codecs() -> dict[str, list[str]]:
  """Returns the available ones of READ as `decode`, of WRITE as `encode`."""
  return {
    "decode": [name for name in READ if _has(name, "r")],
    "encode": [name for name in WRITE if _has(name, "w")],
  }


def _has(name: str, mode: str) -> bool:
  try:
    av.codec.Codec(name, mode)
  except av.codec.codec.UnknownCodecError:
    return False
  return True
