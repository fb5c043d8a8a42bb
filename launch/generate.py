"""Generate soundtracks for silent videos.

Candidates are ranked and muxed with the untouched picture. A JSON file beside
them, the sidecar, records every setting.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
from typing import Any

from launch import parsing, sampler_flags
from v2a_jax.weights.catalog import CLAP

ARGUMENTS = f"""
[VIDEO...]            video file of any format, or folder of such files
-o, --output DIR      folder to write to; each video gets a subfolder (required)
--from SIDECAR        generate the soundtracks of a sidecar again, with the same
                      settings; the exit status is 1 if the sound differs
--checkpoint NAME     workdir of v2a train, bundle, or a published model such as
                      mmaudio:small_16k (default: the bundled diffusion_tiny)
--step STEP           training step of the checkpoint, or best: that of the best
                      validation result (default: the newest)
request:
-p, --prompt TEXT     description of the sound (default: none, the picture
                      decides)
-n, --negative_prompt TEXT
                      description of sound that should be absent
--prompt_at START-END:TEXT
                      description of a span in seconds alone, such as
                      2-4.5:thunder, in place of --prompt (repeatable)
--layer KIND:TEXT     effects, ambience, music or speech, and its prompt: a part
                      that is made apart; parts are added, and kept as stems
                      (repeatable)
--transcript TEXT     words to be spoken
--transcript_file FILE
                      words to be spoken with their times: SubRip (.srt), WebVTT
                      (.vtt), Whisper's JSON, or a list of entries with word
                      and start
--speech, --no-speech
                      ask for speech, or for none (default: only with a
                      --transcript)
--music, --no-music   ask for music, or for none (default: either)
--effects, --no-effects
                      ask for effects, or for none (default: either)
--retries N           how many times candidates in which speech or music is heard
                      that should be absent are made anew, candidate i of n with
                      seed + i + n, then + 2 n, and so on (default 0)
--like FILE           sound that candidates should be like
--like_strength X     how much is made anew of the sound --like, above 0 to 1; a
                      diffusion model begins from it: little keeps its course in
                      time (default: it only serves to rank)
--rank_by NAME        score that ranks candidates: motion_onset, as without it,
                      quality, prompt, no_speech, no_music, like, or sync_judge,
                      which v2a eval then does not measure; of several, the mean
                      of their ranks (repeatable)
--clap DIR            LAION's CLAP for --rank_by prompt: clap:htsat_unfused, as
                      v2a weights fetches it, or a folder with config.json,
                      model.safetensors and tokenizer.json
--num_candidates COUNT
                      number of soundtracks for each video (default 4)
--seed SEED           random seed, 0 to 4294967295; candidate i has seed + i
                      (default 0)
--shots               find the cuts between shots, and begin the sound anew at
                      each
--duration SECONDS    length of the video to use, from its start (default: all)
--audio FILE          existing sound to keep; the rest of the video's length is
                      generated
--regenerate START-END...
                      spans in seconds of --audio, or of the video's own sound,
                      to generate anew
--audio_track N       number of the sound track to keep where a file has several,
                      from 0 (default: the main one)
--read_limits FACTOR  how many times the usual work and memory reading a video
                      may take (default 1)
{sampler_flags.ARGUMENTS}
delivery:
--keep COUNT          number of candidates to write, the best ones (default: all)
--skip_existing       leave videos alone whose soundtracks by the same request
                      are all in --output already
--loudness LUFS       integrated loudness, such as -23 (EBU R 128), -24 (ATSC
                      A/85) or -14 (default: as generated)
--true_peak X         highest true peak in dBTP; where sound is kept and no
                      --loudness is asked for, of what is new (default -1)
--sample_rate RATE    sample rate of what is written in Hz (default: that of the
                      sound that is kept, if AAC has it, or 48000)
--container NAME      mp4, mov or mkv (default mp4); another one where it cannot
                      hold the picture, which is never encoded again
--audio_codec NAME    sound of video files: aac, or lossless pcm or flac of 24
                      bits (default aac)
--sound_file NAME     file of the sound alone: wav, a Broadcast Wave of 24 bits
                      with the picture's time code, or flac (default wav)
--original NAME       what becomes of the video's own sound: mix adds the new
                      sound to it, duck also turns the new sound down while it is
                      heard (default: it is left out)
--original_level X    change of the original's level in dB (default 0)
--duck X              how far the new sound is turned down in dB (default 12)
--timeline NAME       edl (CMX 3600) or otio (OpenTimelineIO): a timeline beside
                      the files, and one of all videos in --output (repeatable)
--zip                 put everything of a video into one zip file as well
--payload N           16 bits that the watermark carries, 0 to 65535 (default 0)
--watermark, --no-watermark
                      mark what is generated of the sound (default yes)
--key TEXT            key of the watermark (default: $V2A_WATERMARK_KEY, or the
                      published key)
--sign, --no-sign     sign files by C2PA, as $V2A_C2PA_CERTIFICATES and
                      $V2A_C2PA_KEY say, a chain and its key in PEM, or as nobody
                      known (default yes)
"""
EXAMPLE = """v2a generate clip.mp4 -p "rain on a tin roof" -n music -o out
  v2a generate --from out/clip/clip.json -o again"""
# Fields of `soundtrack.request.Request` that are flags by the same name.
REQUEST = (
  *("prompt", "negative_prompt", "transcript", "speech", "music", "effects"),
  *("num_candidates", "seed", "duration", "shots", "audio", "regenerate"),
  *("audio_track", "retries", "like", "like_strength", "clap"),
)
# Fields of `soundtrack.options.DeliveryOptions` that are flags by the same
# name.
DELIVERY = (
  *("keep", "loudness", "true_peak", "sample_rate", "container", "zip"),
  *("audio_codec", "sound_file", "original", "original_level", "duck"),
  *("timeline", "payload"),
)
# Endings of the files that are taken from a folder.
VIDEOS = (
  *(".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".mxf", ".ts", ".mts"),
  *(".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One video and all that decides its sound.

  Attributes:
    video: path of the video.
    request: fields of a `Request`.
    delivery: fields of a `DeliveryOptions`.
    key: key of the watermark.
    expected: sha256 of the samples that must come out, by seed; for `--from`.
  """

  video: pathlib.Path
  request: dict[str, Any]
  delivery: dict[str, Any]
  key: str | None = None
  expected: dict[int, str] = dataclasses.field(default_factory=dict)


def main(argv: list[str]) -> int:
  """Runs `v2a generate`."""
  args = parsing.Parser("v2a generate", __doc__, ARGUMENTS, EXAMPLE).parse(argv)
  if sidecar := getattr(args, "from"):
    checkpoint, step, jobs = read_sidecar(sidecar, args)
  elif args.video:
    checkpoint, step, jobs = args.checkpoint, args.step, typed_jobs(args)
  else:
    raise parsing.UsageError("no video: name one, or a sidecar with --from")
  # Here, so that a mistyped flag is answered before jax is imported.
  from v2a_jax.media import Limits, MediaError
  from v2a_jax.soundtrack import timeline
  from v2a_jax.soundtrack.delivery import check_source
  from v2a_jax.soundtrack.options import DeliveryOptions
  from v2a_jax.soundtrack.request import Request
  from v2a_jax.soundtrack.tracker import Soundtracker

  limits = Limits().scaled(args.read_limits)
  for job in jobs:  # Refuses a wrong value before weights are loaded.
    Request(**job.request)
    options = DeliveryOptions(**job.delivery)
    if len(jobs) == 1:
      check_source(job.video, options, limits)
  tracker = Soundtracker.load(checkpoint, step=step)
  failed, shots = 0, []
  for job in jobs:
    try:
      if args.skip_existing and (shot := _made(tracker, job, args.output)):
        print(f"{job.video}: {shot.sounds[0].parent} has it", flush=True)
        shots.append(shot)
        continue
      same, delivery = run(tracker, job, args.output, limits)
      failed += not same
      shots.append(delivery.shot)
    except MediaError as error:
      # One file that cannot be read does not cost the others their sound.
      if len(jobs) == 1:
        raise
      failed += 1
      print(f"v2a generate: {error}", file=sys.stderr, flush=True)
  if len(jobs) > 1:
    print(f"{len(jobs) - failed} of {len(jobs)} videos have sound now")
    for name in options.timeline if shots else ():
      path = pathlib.Path(args.output, f"timeline.{name}")
      print(timeline.write(path, shots, "v2a generate"))
  return 1 if failed else 0


def _made(tracker, job: Job, output: str):
  """Returns the `Shot` of soundtracks that need not be made again, or None."""
  from v2a_jax.soundtrack.delivery import existing
  from v2a_jax.soundtrack.options import DeliveryOptions
  from v2a_jax.soundtrack.request import Request

  return existing(
    job.video,
    Request(**job.request),
    tracker.describe(),
    pathlib.Path(output),
    DeliveryOptions(**job.delivery),
    key=job.key,
  )


def run(tracker, job: Job, output: str, limits) -> tuple[bool, Any]:
  """Makes one video's soundtracks.

  Returns:
    (False if they are not those expected, their `Delivery`).
  """
  from v2a_jax.soundtrack.delivery import check_source
  from v2a_jax.soundtrack.options import DeliveryOptions

  check_source(job.video, DeliveryOptions(**job.delivery), limits)
  _say_track(job, limits)
  takes = tracker(job.video, limits=limits, **job.request)
  delivery = takes.save(output, key=job.key, **job.delivery)
  for path, row in zip(delivery.videos, delivery.rows):
    score = f"{takes.request.score_name} {row['score']:.3f}"
    if len(takes.request.rank_by) > 1:
      each = (f"{k} {row['scores'][k]:.3f}" for k in takes.request.rank_by)
      score += f" ({', '.join(each)})"
    lost = row["watermark"] and not row["watermark"]["found"]
    unmarked = "  too little is new to find the watermark" * bool(lost)
    print(f"{path}  {score}  seed {row['seed']}{unmarked}", flush=True)
  if not job.expected:
    return True, delivery
  same = _digests(delivery.rows) == job.expected
  print("bit for bit the same sound" if same else "NOT the same sound")
  return same, delivery


def _say_track(job: Job, limits) -> None:
  """Says what becomes of the sound tracks of a file that has several."""
  from v2a_jax import media

  audio, number = job.request.get("audio"), job.request.get("audio_track")
  file = audio or job.video
  info = media.probe_limited(file, limits=limits, audio_track=number)
  track = info.several_tracks()
  if track and audio:
    print(f"{file}: {track} is kept; --audio_track chooses", flush=True)
  elif track:
    print(
      f"{file}: the new sound replaces its {info.audio_tracks} sound tracks;"
      " with --regenerate START-END the rest of one is kept",
      flush=True,
    )


def typed_jobs(args: argparse.Namespace) -> list[Job]:
  """Returns a job for each video, as the flags ask for it.

  Raises:
    UsageError: a video is not there.
  """
  typed = {k: value for k, value in vars(args).items() if value is not None}
  request = {name: typed[name] for name in REQUEST if name in typed}
  request["sampler"] = sampler_flags.overrides(args)
  request["prompts"] = tuple(args.prompt_at or ())
  request["layers"] = tuple(args.layer or ())
  if args.rank_by:
    request["rank_by"] = tuple(args.rank_by)
  if args.transcript_file:
    request["words"] = _words(args.transcript_file)
  if args.like:
    parsing.existing(args.like, "sound")
  if args.clap and args.clap != CLAP:
    parsing.existing(args.clap, "folder of LAION's CLAP")
  delivery = {name: typed[name] for name in DELIVERY if name in typed}
  delivery |= {"mark": args.watermark, "sign": args.sign}
  delivery["timeline"] = tuple(args.timeline or ())
  jobs = []
  for video in _videos(args.video):
    own = {"audio": str(video)} if args.regenerate else {}
    jobs.append(
      Job(video=video, request=own | request, delivery=delivery, key=args.key)
    )
  return jobs


def _words(path: str) -> tuple[dict[str, Any], ...]:
  from v2a_jax.basics import files
  from v2a_jax.soundtrack import transcripts

  file = parsing.existing(path, "transcript")
  try:
    return transcripts.parse(files.read_bytes(file).decode())
  except UnicodeDecodeError:
    raise parsing.UsageError(f"{path} is not text in UTF-8") from None
  except transcripts.TranscriptError as error:
    raise parsing.UsageError(f"{path} {error}") from None


def _videos(names: list[str]) -> list[pathlib.Path]:
  """Returns the files, and those in the folders, that are named.

  Raises:
    UsageError: one is not there, or a folder has no video.
  """
  videos = []
  for name in names:
    path = parsing.existing(name, "video")
    if not path.is_dir():
      videos.append(path)
      continue
    found = sorted(
      pathlib.Path(folder, file)
      for folder, _, files in os.walk(path, followlinks=True)
      for file in files
      if file.lower().endswith(VIDEOS) and not file.startswith(".")
    )
    if not found:
      endings = " ".join(VIDEOS)
      raise parsing.UsageError(f"{name} has no video file ({endings})")
    videos += found
  return videos


def read_sidecar(
  path: str, args: argparse.Namespace
) -> tuple[str, int | str | None, list[Job]]:
  """Reads what made the soundtracks beside a sidecar: checkpoint, step, job.

  Raises:
    UsageError: it is no sidecar, or its video is not there.
  """
  from launch import sidecar
  from v2a_jax import watermark

  file = parsing.existing(path, "sidecar")
  try:
    found = sidecar.read(file)
  except (OSError, ValueError, RecursionError) as error:
    raise parsing.UsageError(
      f"{file} is not a sidecar of v2a generate ({error})"
    ) from None
  delivery = dataclasses.asdict(found.delivery)
  digest = delivery.pop("key_digest")
  if digest and digest != watermark.key_digest(args.key):
    raise parsing.UsageError(
      f"{file}: the watermark has another key than the one given; give it with"
      " --key or in V2A_WATERMARK_KEY"
    )
  job = Job(
    video=parsing.existing((args.video or [found.video])[0], "video"),
    request=vars(found.request),
    delivery=delivery,
    key=args.key,
    expected={row.seed: row.sha256_samples for row in found.candidates},
  )
  checkpoint = found.checkpoint
  return args.checkpoint or checkpoint.path, checkpoint.step, [job]


def _digests(candidates) -> dict[int, str]:
  return {row["seed"]: row["sha256_samples"] for row in candidates}
