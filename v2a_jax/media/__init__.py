"""Reading, writing and muxing of video and audio files. Never imports jax.

probe, read_video, read_audio     decode in this process, for trusted files
probe_limited, read_clip, limited decode in a confined child process
sound_refusal                     why a rate and channels cannot be sound's
encode_video, encode_audio, …     encode arrays to files or bytes
mux                               copies video packets beside a new soundtrack, in
                                  a confined child process

No other package imports PyAV.
"""

from v2a_jax.media.base import (
  DEFAULT_LIMITS,
  Audio,
  Clip,
  Limits,
  MediaError,
  MediaInfo,
  Video,
)
from v2a_jax.media.broadcast import Broadcast
from v2a_jax.media.frames import EDGE, read_video, read_videos
from v2a_jax.media.mux import mux, video_packets, video_packets_digest
from v2a_jax.media.reader import probe, read_audio
from v2a_jax.media.sandbox import (
  enforced,
  limited,
  probe_limited,
  read_clip,
  run_limited,
)
from v2a_jax.media.sound import refusal as sound_refusal
from v2a_jax.media.timecode import Timecode, frame_rate
from v2a_jax.media.timing import video_duration
from v2a_jax.media.track import AAC_RATES
from v2a_jax.media.writer import (
  decode_flac,
  encode_audio,
  encode_flac,
  encode_video,
  write_wav,
)

__all__ = [
  "AAC_RATES",
  "DEFAULT_LIMITS",
  "EDGE",
  "Audio",
  "Broadcast",
  "Clip",
  "Limits",
  "MediaError",
  "MediaInfo",
  "Timecode",
  "Video",
  "decode_flac",
  "encode_audio",
  "encode_flac",
  "encode_video",
  "enforced",
  "frame_rate",
  "limited",
  "mux",
  "probe",
  "probe_limited",
  "read_audio",
  "read_clip",
  "read_video",
  "read_videos",
  "run_limited",
  "sound_refusal",
  "video_duration",
  "video_packets",
  "video_packets_digest",
  "write_wav",
]
