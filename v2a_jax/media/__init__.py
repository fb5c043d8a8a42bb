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
from v2a_jax.media.reader import probe, read_audio, read_video
from v2a_jax.media.timing import video_duration
