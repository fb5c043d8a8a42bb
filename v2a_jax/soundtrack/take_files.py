"""The files of one take: its level, watermark and true peak, sound and video.

The order is sample rate, mix, level, watermark, true peak, write; then the video
file is decoded, its level and true peak are measured and the mark is looked for
in it. All files are signed last.

Sound that is kept of a file is read again here, at its own rate and channels, and
takes the place of what the model's codec made of it: it is neither resampled nor
marked, and only turned up or down where a loudness is asked for.
"""

from collections.abc import Sequence
import dataclasses
import datetime
import functools
import hashlib
import math
from typing import Any

import numpy as np
import soxr

import v2a_jax
from v2a_jax import media, watermark
from v2a_jax.basics import scratch
from v2a_jax.media.track import fit_length
from v2a_jax.soundtrack import infill, mixing, provenance, timeline
from v2a_jax.soundtrack import loudness as loud
from v2a_jax.soundtrack.options import DeliveryOptions

RATE = 48_000  # Hz, of what is all new
_BITS = 24
_PIECE = 60.0  # seconds of a file that are read at a time
_RESAMPLED = 1 << 20  # samples that are resampled at a time
_TRIES = 4  # of a lossy codec to keep loudness and true peak
_LOUDNESS_SLACK = 0.2  # LU, of that
_MARGIN = 0.05  # dB under the true peak, for the filters of other meters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """The video that takes are for.

  Attributes:
    takes: all takes.
    info: what the video file says.
    rate: sample rate of what is written in Hz.
    kept: sound that takes keep, float32 [t channels] as long as they are, see
      `infill.continued`; None if all is new.
    new: (begin, end) pairs in samples, where takes are new.
    original: the video's own sound, float32 [t channels]; None if it is dropped.
    created: when the sound was made.
    signer: who signs the files; None if nothing can sign.
  """

  takes: Any
  info: media.MediaInfo
  rate: int
  kept: np.ndarray | None
  new: Sequence[tuple[int, int]]
  original: np.ndarray | None
  created: datetime.datetime
  signer: provenance.Signer | None

  @classmethod
  def read(cls, takes, info, options: DeliveryOptions) -> "Source":
    request, limits = takes.request, takes.limits
    kept = original = None
    rate = options.sample_rate or RATE
    if request.audio:
      track = dict(audio_track=request.audio_track)
      found = media.probe_limited(request.audio, limits=limits, **track)
      rate = options.sample_rate or _own_rate(found, options)
      kept = _heard(request.audio, rate, takes, found.channels, **track)
    total = round(takes.seconds * rate)
    new = [(0, total)]
    if kept is not None:
      given = min(len(kept), total)
      new = infill.new_spans(request.regenerate, rate, given=given, total=total)
      kept = infill.continued(kept, total, rate)
    if options.original:
      original = _heard(takes.video, rate, takes, info.channels)
    return cls(
      takes=takes,
      info=info,
      rate=rate,
      kept=kept,
      new=new,
      original=original,
      created=datetime.datetime.now(),
      signer=provenance.signer() if options.sign else None,
    )

  def complete(self, samples: np.ndarray) -> np.ndarray:
    """Returns samples [t channels] of a take with what is kept in place."""
    if self.kept is None:
      return samples
    if samples.shape[1] > self.kept.shape[1]:
      samples = samples.mean(axis=1, keepdims=True)
    return self.within(self.kept, samples)

  def within(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Returns old sound with new sound where takes are new."""
    return infill.put_back(old, new, self.new, self.rate)


def _own_rate(info: media.MediaInfo, options: DeliveryOptions) -> int:
  """Returns a sound's own rate in Hz, if it can be written so."""
  if options.audio_codec == "aac" and info.sample_rate not in media.AAC_RATES:
    return RATE
  return info.sample_rate


def _heard(
  path, sample_rate: int, takes, channels: int, audio_track: int | None = None
) -> np.ndarray:
  """Reads the sound of a file as long as the takes, in pieces.

  Of more than two channels, the stereo mix.
  """
  read = media.limited(media.read_audio)
  end, heard, count = float(takes.seconds), None, 0
  for start in np.arange(0, end, _PIECE):
    found = read(
      path,
      sample_rate=sample_rate,
      channels=min(channels, 2),
      start=float(start),
      duration=min(float(end - start), _PIECE),
      audio_track=audio_track,
      limits=takes.limits,
    ).samples
    if end <= _PIECE:
      return found
    if heard is None:
      most = math.ceil(end * sample_rate) + sample_rate
      heard = scratch.empty((most, found.shape[1]))
    found = found[: len(heard) - count]
    heard[count : count + len(found)] = found
    count += len(found)
    if not len(found):
      break
  return heard[:count]


def write(take, rank: int, base, source: Source, options, *, key) -> dict:
  """Writes one candidate; returns its row of the sidecar."""
  rate, takes = source.rate, source.takes
  new = _at_rate(take.samples, take.sample_rate, rate, takes.seconds)
  new = source.complete(new)
  finish = functools.partial(
    _finish, source=source, options=options, key=key, loudness=options.loudness
  )
  row = {"rank": rank, "seed": take.seed, "score": take.score}
  row |= {"scores": dict(take.scores), "rejected": take.rejected}
  row |= {"heard": dict(take.heard)}
  samples, sounds = new, {}
  for kind, part in take.layers.items():
    part = _at_rate(part, take.sample_rate, rate, takes.seconds)
    gain = loud.gain(new, rate, options.loudness)
    part = np.multiply(part, gain, out=scratch.empty(part.shape))
    sounds[kind] = finish(part, loudness=None)
  if source.original is not None:
    sounds["new"] = finish(new)
    samples = mixing.mix(
      new,
      source.original,
      rate,
      mode=options.original,
      original_level=options.original_level,
      duck=options.duck,
    )
    # Of a mix no part is as it was.
    finish = functools.partial(
      finish, source=dataclasses.replace(source, kept=None)
    )
  row["stems"] = {}
  for kind, sound in sounds.items():
    stem = base.with_name(f"{base.name}__{kind}.{options.sound_file}")
    _write_sound(stem, sound, rank, source, options)
    row["stems"][kind] = stem.name
  samples = finish(samples)
  wave = base.with_name(f"{base.name}.{options.sound_file}")
  _write_sound(wave, samples, rank, source, options)
  muxed, heard = _mux(samples, base, source, options)
  row |= {
    "video": muxed.name,
    "wave": wave.name,
    "channels": samples.shape[1],
    "sample_rate": rate,
    "new": [[begin / rate, end / rate] for begin, end in source.new],
    **_measured(samples, rate),
    **{f"video_{k}": v for k, v in _measured(heard, rate).items()},
    "sha256_samples": hashlib.sha256(np.ascontiguousarray(samples)).hexdigest(),
    "watermark": None,
  }
  if options.mark:
    found = watermark.detect(heard, rate, key=key)
    row["watermark"] = dataclasses.asdict(found)
  names = [muxed.name, wave.name, *row["stems"].values()]
  row["provenance"] = {
    name: _sign(base.with_name(name), row, source, options) for name in names
  }
  return row


def _sign(path, row, source: Source, options: DeliveryOptions) -> dict:
  """Signs a file, if it can be; returns by whom, or why not."""
  if not options.sign:
    return {"unsigned": "by choice"}
  if source.signer is None:
    return {"unsigned": "c2pa-python is not installed"}
  if reason := provenance.refusal(path):
    return {"unsigned": reason}
  facts = {name: row[name] for name in ("seed", "sha256_samples")}
  facts["watermark"] = {"payload": options.payload} if options.mark else None
  # The container may be another than was asked for.
  is_sound = path.suffix == f".{options.sound_file}"
  footage = None if is_sound else source.takes.video
  name = source.signer.sign(path, facts, footage)
  return {"manifest": name, "signed_by": source.signer.name}


def _at_rate(samples, rate: int, wanted: int, seconds) -> np.ndarray:
  """Returns samples at another rate, as long as the picture to the sample."""
  length = round(seconds * wanted)
  if rate == wanted:
    return fit_length(np.asarray(samples, np.float32), length)
  channels = samples.shape[1]
  stream = soxr.ResampleStream(rate, wanted, channels, quality="VHQ")
  out, begin = scratch.empty((length, channels)), 0
  for first in range(0, len(samples), _RESAMPLED):
    piece = np.asarray(samples[first : first + _RESAMPLED], np.float32)
    last = first + _RESAMPLED >= len(samples)
    new = stream.resample_chunk(piece, last=last)[: length - begin]
    out[begin : begin + len(new)] = new
    begin += len(new)
  out[begin:] = 0.0
  return out


def _finish(
  samples, *, source: Source, options: DeliveryOptions, key, loudness
) -> np.ndarray:
  """Brings samples to their level and marks what is new of them."""
  rate, as_it_was = source.rate, source.kept is not None and loudness is None
  peak = options.true_peak - _MARGIN
  within = source.within if source.kept is not None else lambda old, new: new
  if as_it_was:
    level = lambda x: within(x, loud.limit(x, rate, peak=peak))
  else:
    level = functools.partial(
      loud.level, sample_rate=rate, loudness=loudness, peak=peak
    )
  samples = level(samples)
  if options.mark:
    # After the level, because it fills silence up to a level of its own.
    marked = watermark.embed(samples, rate, key=key, payload=options.payload)
    samples = within(samples, level(marked))
  if samples.size and max(samples.max(), -samples.min()) > 1.0:
    np.clip(samples, -1.0, 1.0, out=samples)
  return samples


def _measured(samples: np.ndarray, rate: int) -> dict[str, float | None]:
  """Returns loudness and true peak; the loudness of short sound is None."""
  found = loud.integrated(samples, rate)
  return {
    "loudness_lufs": None if found is None else round(found, 2),
    "true_peak_dbtp": round(loud.true_peak(samples, rate), 2),
  }


def _write_sound(path, samples, rank: int, source: Source, options) -> None:
  """Writes a sound as Broadcast Wave, or FLAC, of 24 bits."""
  rate, takes = source.rate, source.takes
  if options.sound_file == "flac":
    media.encode_audio(path, samples, rate, bits=_BITS)
    return
  measured, info = _measured(samples, rate), source.info
  layout = "mono" if samples.shape[1] == 1 else "stereo"
  prompt = takes.request.prompt
  broadcast = media.Broadcast(
    description=f"{takes.video.name} {prompt}".strip(),
    originator=f"v2a_jax {v2a_jax.__version__}",
    reference=path.stem,
    created=source.created,
    start=timeline.start_of(info.timecode, info.fps),
    project=takes.video.stem,
    scene=takes.video.stem,
    take=rank,
    note=f"generated from the picture. {prompt}".strip(),
    loudness=measured["loudness_lufs"],
    true_peak=measured["true_peak_dbtp"],
    history=f"A=PCM,F={rate},W={_BITS},M={layout},T=v2a_jax generated\r\n",
  )
  media.write_wav(path, samples, rate, bits=_BITS, broadcast=broadcast)


def _mux(samples, base, source: Source, options: DeliveryOptions):
  """Writes the video; returns its path, and its sound as it is heard.

  A lossy codec moves peaks, and may take away treble. Where it leaves the
  loudness or the true peak that are asked for, it is given as much more or less.
  """
  takes, rate = source.takes, source.rate
  target = options.loudness and loud.integrated(samples, rate)
  # Sound that is kept may have higher peaks.
  highest = max(options.true_peak, loud.true_peak(samples, rate))
  given, trim, peak = samples, 0.0, highest - _MARGIN
  for _ in range(_TRIES):
    muxed = media.mux(
      takes.video,
      given,
      sample_rate=rate,
      out=base.with_name(f"{base.name}.{options.container}"),
      audio_codec=options.audio_codec,
      limits=takes.limits,
    )
    heard = _heard(muxed, rate, takes, samples.shape[1])
    over = loud.true_peak(heard, rate) - highest
    found = target and loud.integrated(heard, rate)
    less = target - found if found else 0.0
    if over <= 0 and abs(less) <= _LOUDNESS_SLACK:
      break
    if over > 0:
      peak -= over + _MARGIN
    trim += less
    given = loud.limit(loud.scaled(samples, trim), rate, peak=peak)
  return muxed, heard
