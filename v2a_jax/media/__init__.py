"""Frames and sound in, soundtracks out; the only door to PyAV. No jax here.

probe, read_video, read_audio     in this process, for files of our own
probe_limited, read_clip          in a child that may be killed, for others'
encode_video, encode_audio, …     files from arrays
mux                               a new soundtrack beside untouched pictures
"""

from v2a_jax.media.base import (
  Audio,
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  Video,
)
from v2a_jax.media.mux import mux, video_packets, video_packets_digest
from v2a_jax.media.reader import probe, read_audio, read_video
from v2a_jax.media.sandbox import probe_limited, read_clip, run_limited
from v2a_jax.media.timing import video_duration
from v2a_jax.media.writer import (
  decode_flac,
  encode_audio,
  encode_flac,
  encode_video,
  write_wav,
)

__all__ = [
  "Audio",
  "Clip",
  "Limits",
  "MediaError",
  "MediaInfo",
  "Video",
  "decode_flac",
  "encode_audio",
  "encode_flac",
  "encode_video",
  "mux",
  "probe",
  "probe_limited",
  "read_audio",
  "read_clip",
  "read_video",
  "run_limited",
  "video_duration",
  "video_packets",
  "video_packets_digest",
  "write_wav",
]
