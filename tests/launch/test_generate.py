"""`v2a generate` and `v2a watermark`: from a silent video to a marked file."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from launch import cli, generate, parsing
from tests import processes
from tests.launch.commands import refused, succeeds
from tests.media.media_synthetic import write_tracks
from v2a_jax import media, watermark
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request

RATE = 16_000
QUICK = ("--num_candidates=2", "--num_steps=1", "--guidance_video=1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  """A silent video of a second that flashes twice."""
  frames = np.zeros((12, 32, 32, 3), np.uint8)
  frames[[3, 8]] = 255
  path = tmp_path_factory.mktemp("clips") / "clip.mp4"
  media.encode_video(frames, fps=12.0, path=path)
  return path


def wave(path: pathlib.Path, *, key=None, mark=True, seconds=2.0):
  """Writes noise, with or without the watermark."""
  rng = np.random.default_rng(0)
  samples = 0.1 * rng.standard_normal((round(seconds * RATE), 1))
  samples = np.clip(samples, -1, 1).astype(np.float32)
  if mark:
    samples = watermark.embed(samples, RATE, key=key, payload=77)
  media.write_wav(path, samples, RATE)
  return path


@pytest.fixture(scope="module")
def generated(clip, tmp_path_factory):
  """Soundtracks by the bundled model, of a clip and of a broken one."""
  out = tmp_path_factory.mktemp("generated")
  broken = out / "broken.mp4"
  broken.write_bytes(clip.read_bytes()[:200])
  args = ["generate", broken, clip, "-o", out, *QUICK, "--seed=5"]
  code = cli.main([str(arg) for arg in args])
  return code, out


def test_each_video_gets_a_folder_of_ranked_files(generated, clip):
  _, out = generated
  sidecar = json.loads((out / "clip" / "clip.json").read_text())
  rows = sidecar["candidates"]
  assert {row["seed"] for row in rows} == {5, 6}
  assert rows[0]["score"] >= rows[1]["score"]
  for rank, row in enumerate(rows, start=1):
    assert row["video"] == f"clip__c{rank:02d}_s{row['seed']:04d}.mp4"
    path = out / "clip" / row["video"]
    info = media.probe(path)
    assert info.has_video and info.has_audio
    assert info.duration == pytest.approx(1.0, abs=0.1)
    assert media.video_packets_digest(path) == media.video_packets_digest(clip)
    assert watermark.detect(*_sound(path)).found
  assert sidecar["request"]["sampler"] == {
    "num_steps": 1,
    "guidance": {"video": 1.0},
  }


def _sound(path):
  info = media.probe(path)
  sound = media.read_audio(path, sample_rate=info.sample_rate)
  return sound.samples, info.sample_rate


def test_a_broken_video_does_not_cost_the_others_their_sound(generated):
  code, out = generated
  assert code == 1
  assert not (out / "broken").exists()
  assert (out / "clip" / "clip.json").exists()


def test_a_sidecar_gives_the_same_sound_again(generated, tmp_path, capsys):
  _, out = generated
  again = tmp_path / "again"
  source = json.loads((out / "clip" / "clip.json").read_text())
  text = succeeds(
    capsys, "generate", "--from", out / "clip" / "clip.json", "-o", again
  )
  assert text.endswith("\nbit for bit the same sound\n")
  made = json.loads((again / "clip" / "clip.json").read_text())
  digests = lambda sidecar: [
    (row["seed"], row["sha256_samples"]) for row in sidecar["candidates"]
  ]
  assert digests(made) == digests(source)


@pytest.mark.slow
def test_a_sidecar_of_another_sound_ends_with_status_1(
  generated, tmp_path, capsys
):
  sidecar = json.loads((generated[1] / "clip" / "clip.json").read_text())
  sidecar["candidates"][0]["sha256_samples"] = "0" * 64
  file = tmp_path / "clip.json"
  file.write_text(json.dumps(sidecar))
  args = ["generate", "--from", str(file), "-o", str(tmp_path / "again")]
  assert cli.main(args) == 1
  assert capsys.readouterr().out.endswith("\nNOT the same sound\n")


@pytest.mark.parametrize(
  "change,words",
  [
    ("{", "is not JSON (Expecting"),
    ("[]", "is not a sidecar of v2a generate"),
    ({"model": {}}, "model.checkpoint is not an object"),
    ({"delivery": None}, "delivery is not an object"),
    ({"candidates": [{"seed": 1}]}, "sha256_samples is missing"),
    ({"video": "/gone/clip.mp4"}, "no video at /gone/clip.mp4"),
    (
      {"delivery": {"key_digest": "00c0ffee"}},
      "the watermark has another key than the one given; give it with --key",
    ),
    ({"request": {"seed": -1}}, "seed=-1 is not in [0, 4294967295]"),
    ({"request": {"promt": "x"}}, "no such key, did you mean prompt?"),
    (
      {"request": {"num_candidates": 10**9}},
      "num_candidates=1000000000 is not",
    ),
    (
      {"request": {"num_candidates": "4"}},
      "num_candidates='4' is not of type int",
    ),
    ({"request": {"num_candidates": True}}, "True is not of type int"),
    ({"request": {"duration": float("nan")}}, "duration=nan is not in"),
    ({"request": {"prompt": None}}, "prompt=None is not of type str"),
    ({"request": {"speech": "yes"}}, "speech='yes' is not one of"),
    ({"request": {"regenerate": [1, 2], "audio": "a"}}, "is not a pair"),
    ({"request": {"sampler": []}}, "sampler=() is not a section"),
    ({"request": [1]}, "request is not an object"),
    ({"delivery": {"key_digest": "", "mode": 1}}, "delivery.mode: no such key"),
    ({"delivery": {"key_digest": "", "payload": 1e300}}, "is not of type int"),
    ({"delivery": {"key_digest": "", "loudness": 99}}, "loudness=99 is not in"),
    ({"video": 5}, "video=5 is not a path"),
    ("[" * 200_000, "is not a sidecar of v2a generate"),
  ],
)
def test_a_sidecar_that_cannot_be_used_is_refused(
  change, words, clip, tmp_path, capsys
):
  sidecar = {
    "video": str(clip),
    "model": {"checkpoint": {"path": "no/such/run", "step": 3}},
    "request": {"prompt": "rain"},
    "delivery": {"key_digest": "", "keep": None},
    "candidates": [{"seed": 0, "sha256_samples": "0" * 64}],
  }
  file = tmp_path / "clip.json"
  file.write_text(
    change if isinstance(change, str) else json.dumps(sidecar | change)
  )
  line = refused(capsys, "generate", "--from", file, "-o", tmp_path / "out")
  assert words in line
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "args,words",
  [
    (["--num_candidates=0"], "0 is not a whole number in [1, inf)"),
    (["--duration=0"], "duration=0.0 is not in (0, inf)"),
    (["--read_limits=0"], "0 is not a number above 0"),
    (["--read_limits=1e-5"], "allow more with --read_limits=2"),
    (["--regenerate", "2-1"], "regenerate=2.0-1.0 is not a span in seconds"),
    (["--checkpoint=no/such/run"], "no/such/run"),
    (["--solver=eulr"], "config.sampler.solver='eulr' is not one of euler"),
    (["--guidance_video=-1"], "config.sampler.guidance.video=-1.0 is not in"),
    (["--loudness=5"], "loudness=5.0 is not in [-70, 0]"),
    (["--container=avi"], "container='avi' is not one of mp4, mov, mkv"),
    (["--timeline=aaf"], "timeline='aaf' is not one of edl, otio"),
    (["--original=mix"], "clip.mp4: has no sound to mix with; leave it out"),
    (["--temperature=1"], "config.sampler.temperature: no such key"),
  ],
)
def test_a_wrong_request_is_refused_and_nothing_is_written(
  args, words, clip, tmp_path, capsys
):
  out = tmp_path / "out"
  assert words in refused(capsys, "generate", clip, "-o", out, *args)
  assert not out.exists()


def typed(*args) -> dict:
  """Returns the fields of the request that a command line asks for."""
  parser = parsing.Parser("x", "x", generate.ARGUMENTS, "x")
  args = parser.parse([__file__, "-o", "out", *args])
  (job,) = generate.typed_jobs(args)
  return Request(**job.request), DeliveryOptions(**job.delivery), job.key


def test_what_is_not_typed_is_the_default_of_a_request():
  assert typed() == (Request(), DeliveryOptions(), None)


def test_flags_have_the_names_of_a_request():
  request, delivery, key = typed(
    *("-p", "rain", "-n", "music", "--transcript", "red", "--seed", "7"),
    *("--no-speech", "--effects", "--num_candidates=2", "--duration=1.5"),
    *("--keep=1", "--loudness=-23", "--key=mine", "--no-watermark"),
    *("--true_peak=-2", "--container=mov", "--audio_codec=pcm", "--zip"),
    *("--original=duck", "--timeline=edl", "--timeline=otio"),
    *("--prompt_at", "2-4.5:thunder: near", "--rank_by=motion_onset"),
    *("--rank_by=no_music", "--retries=2"),
  )
  assert request == Request(
    prompt="rain",
    negative_prompt="music",
    transcript="red",
    speech=False,
    effects=True,
    num_candidates=2,
    seed=7,
    duration=1.5,
    prompts=((2.0, 4.5, "thunder: near"),),
    rank_by=("motion_onset", "no_music"),
    retries=2,
  )
  assert key == "mine"
  assert delivery == DeliveryOptions(
    keep=1,
    loudness=-23.0,
    mark=False,
    true_peak=-2.0,
    container="mov",
    audio_codec="pcm",
    zip=True,
    original="duck",
    timeline=("edl", "otio"),
  )


def test_spans_are_of_the_videos_own_sound_unless_another_is_named():
  request, *_ = typed("--regenerate", "0.5-1", "2-2.5")
  assert request.audio == __file__
  assert request.regenerate == [(0.5, 1.0), (2.0, 2.5)]
  request, *_ = typed("--regenerate", "0.5-1", "--audio=draft.wav")
  assert request.audio == "draft.wav"


@pytest.mark.slow
def test_which_of_several_tracks_is_kept_is_said(tmp_path, capsys):
  film = write_tracks(tmp_path / "film.mkv", tones=(400, 900))
  args = ("generate", film, "-o", tmp_path / "out", *QUICK)
  shown = succeeds(capsys, *args, "--regenerate=0-0.2", "--audio_track=1")
  assert "film.mkv: sound track 1 of 2 is kept" in shown
  wav = next((tmp_path / "out").rglob("*.wav"))
  sound = media.read_audio(wav, sample_rate=RATE, start=0.25).samples[:, 0]
  loudest = np.argmax(np.abs(np.fft.rfft(sound))) * RATE / len(sound)
  assert loudest == pytest.approx(900, abs=20)


def test_a_track_that_is_not_there_or_not_kept_is_refused(tmp_path, capsys):
  film = write_tracks(tmp_path / "film.mkv", tones=(400, 900))
  args = ("generate", film, "-o", tmp_path / "out", *QUICK)
  error = refused(capsys, *args, "--regenerate=0-0.2", "--audio_track=2")
  assert "has 2 sound tracks, so there is no number 2" in error
  error = refused(capsys, *args, "--audio_track=1")
  assert "audio_track=1 is a track of the sound to keep" in error
  assert not (tmp_path / "out").exists()


def test_a_mark_is_found_in_files_and_the_status_says_so(tmp_path, capsys):
  marked = wave(tmp_path / "marked.wav")
  plain = wave(tmp_path / "plain.wav", mark=False)
  text = succeeds(capsys, "watermark", "detect", marked)
  assert text.startswith(f"{marked}: watermark found, score ")
  assert "payload 77, 2.0 s examined\n" in text
  assert cli.main(["watermark", "detect", str(plain), str(marked)]) == 1
  first, second = capsys.readouterr().out.splitlines()
  assert first.startswith(f"{plain}: no watermark of this key (score ")
  assert second + "\n" == text


def test_where_in_a_file_the_mark_is_is_said(tmp_path, capsys):
  rng = np.random.default_rng(1)
  plain = (0.1 * rng.standard_normal((9 * RATE, 1))).astype(np.float32)
  parts = [
    plain[: 3 * RATE],
    watermark.embed(plain[3 * RATE : 6 * RATE], RATE, payload=7),
    plain[6 * RATE : 7 * RATE],
    watermark.embed(plain[7 * RATE :], RATE, payload=9),
  ]
  file = tmp_path / "cut.wav"
  media.write_wav(file, np.concatenate(parts), RATE)
  text = succeeds(capsys, "watermark", "detect", file)
  assert re.search(
    r", at (2\.9|3\.0|3\.1)-(5\.9|6\.0|6\.1) s \(payload 7\), "
    r"(6\.9|7\.0|7\.1)-(8\.9|9\.0) s \(payload 9\), payload ",
    text,
  )
  row = json.loads(succeeds(capsys, "watermark", "detect", file, "--json"))
  first, second = row["places"]
  assert first["start"] == pytest.approx(3, abs=0.13)
  assert second["end"] == pytest.approx(9, abs=0.13)
  assert [first["payload"], second["payload"]] == [7, 9]


@pytest.mark.parametrize("flag", ["detect", "--audio", "--like"])
def test_data_that_pose_as_sound_are_refused_before_any_work(
  flag, clip, tmp_path, capsys
):
  """An hour at 1 Hz took the detector over two minutes."""
  odd = tmp_path / "odd.wav"
  media.write_wav(odd, np.full((3600, 1), 0.1, np.float32), 1)
  args = ("watermark", "detect", odd)
  if flag != "detect":
    args = ("generate", clip, "-o", tmp_path / "out", flag, odd, *QUICK)
  start = time.monotonic()
  error = refused(capsys, *args)
  assert f"{odd}: cannot be sound by its sample rate: 1 Hz" in error
  assert time.monotonic() - start < 30


def test_json_has_one_object_a_file(tmp_path, capsys):
  marked = wave(tmp_path / "marked.wav")
  plain = wave(tmp_path / "plain.wav", mark=False)
  args = ["watermark", "detect", str(marked), str(plain), "--json"]
  assert cli.main(args) == 1
  rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert [row["found"] for row in rows] == [True, False]
  assert [row["file"] for row in rows] == [str(marked), str(plain)]
  assert rows[0]["payload"] == 77 and rows[0]["score"] > rows[1]["score"]


def test_the_key_is_that_of_the_flag_or_of_the_environment(
  tmp_path, capsys, monkeypatch
):
  file = str(wave(tmp_path / "mine.wav", key="mine"))
  assert cli.main(["watermark", "detect", file]) == 1
  assert cli.main(["watermark", "detect", file, "--key=mine"]) == 0
  monkeypatch.setenv("V2A_WATERMARK_KEY", "mine")
  assert cli.main(["watermark", "detect", file]) == 0


def test_a_file_without_sound_is_refused(clip, tmp_path, capsys):
  line = refused(capsys, "watermark", "detect", clip)
  assert line == f"v2a watermark: {clip} has no sound\n"
  text = tmp_path / "notes.txt"
  text.write_text("rain on a tin roof")
  assert str(text) in refused(capsys, "watermark", "detect", text)


def test_no_soundtrack_is_written_over_another(clip, tmp_path, capsys):
  """Of videos of one name, and of one video with another prompt or seed."""
  videos = [tmp_path / "x" / "clip.mp4", tmp_path / "y" / "clip.mp4"]
  for video in videos:
    video.parent.mkdir()
    video.write_bytes(clip.read_bytes())
  out = tmp_path / "out"
  quick = ("--num_candidates=1", "--num_steps=1", "--guidance_video=1")
  said = succeeds(capsys, "generate", *videos, "-o", out, *quick)
  assert "2 of 2 videos have sound now" in said
  first = {path: path.read_bytes() for path in out.rglob("*.*")}
  assert {path.parent.name for path in first} == {"clip", "clip_2"}
  succeeds(capsys, "generate", videos[0], "-o", out, *quick, "--seed=1")
  succeeds(capsys, "generate", videos[0], "-o", out, *quick, "-p", "rain")
  assert all(path.read_bytes() == data for path, data in first.items())
  folders = sorted(path.name for path in out.iterdir())
  assert folders == ["clip", "clip_2", "clip_3", "clip_4"]
  for folder in folders:
    sidecar = json.loads((out / folder / "clip.json").read_text())
    (row,) = sidecar["candidates"]
    assert (out / folder / row["video"]).exists()
  # The same request gives the same files again.
  succeeds(capsys, "generate", videos[0], "-o", out, *quick, "--seed=1")
  assert sorted(path.name for path in out.iterdir()) == folders


def test_a_folder_is_a_batch_that_goes_on_where_it_was(clip, tmp_path, capsys):
  shots = tmp_path / "shots" / "day 1"
  shots.mkdir(parents=True)
  for name in ("a.mp4", "b.MP4", ".hidden.mp4", "notes.txt"):
    (shots / name).write_bytes(clip.read_bytes())
  out = tmp_path / "out"
  args = ("generate", tmp_path / "shots", "-o", out, "--skip_existing")
  args += ("--num_candidates=1", "--num_steps=1", "--guidance_video=1")
  args += ("--timeline=edl", "--timeline=otio", "--loudness=-23")
  said = succeeds(capsys, *args)
  assert "2 of 2 videos have sound now" in said
  edl = (out / "timeline.edl").read_text()
  assert edl.count("* FROM CLIP NAME: a.mp4") == 1
  events = [line.split() for line in edl.splitlines() if line[:3].isdigit()]
  # A second at 12 frames a second each, one after the other.
  assert [(e[2], *e[6:]) for e in events] == [
    ("V", "00:00:00:00", "00:00:01:00"),
    ("A", "00:00:00:00", "00:00:01:00"),
    ("V", "00:00:01:00", "00:00:02:00"),
    ("A", "00:00:01:00", "00:00:02:00"),
  ]
  before = {path: path.stat().st_mtime_ns for path in out.rglob("*__c*")}
  (out / "b" / "b.json").unlink()
  said = succeeds(capsys, *args)
  assert f"a.mp4: {out / 'a'} has it" in said and "b.MP4: " not in said
  after = {path: path.stat().st_mtime_ns for path in out.rglob("*__c*")}
  kept = {path.parent.name for path in before if before[path] == after[path]}
  assert kept == {"a", "b"} or kept == {"a"}
  assert (out / "timeline.edl").read_text().count("FROM CLIP NAME: a.mp4") == 1


def test_a_killed_run_is_finished_by_the_next(clip, tmp_path, capsys):
  """Killed while it writes a video file, of which a part stays."""
  out = tmp_path / "out"
  args = ("generate", clip, "-o", out, *QUICK, "--skip_existing", "--zip")
  parts = lambda: [x for x in out.rglob(".*.mp4") if x.stat().st_size]
  process = subprocess.Popen(
    [sys.executable, "-m", "launch.cli", *map(str, args)],
    env=processes.ENVIRONMENT,
  )
  while not parts() and process.poll() is None:
    time.sleep(0.001)
  process.kill()
  process.wait()
  assert process.returncode == -signal.SIGKILL and parts()
  said = succeeds(capsys, *args)
  assert "has it" not in said
  assert [path.name for path in out.iterdir()] == ["clip"]
  names = {path.name for path in (out / "clip").iterdir()}
  rows = json.loads((out / "clip" / "clip.json").read_text())["candidates"]
  written = {row[kind] for row in rows for kind in ("video", "wave")}
  assert names == written | {"clip.json", "clip.zip"} and len(rows) == 2
  assert f"{out / 'clip'} has it" in succeeds(capsys, *args)


@pytest.mark.parametrize(
  "name, hint",
  [
    ("...mp4", "nothing stands before the ending"),
    ("\N{SNOWMAN}" * 80 + ".mp4", "the name is 240 bytes long"),
  ],
)
def test_a_name_that_cannot_be_used_is_refused_before_the_work(
  clip, tmp_path, capsys, name, hint
):
  video = tmp_path / name
  video.write_bytes(clip.read_bytes())
  assert hint in refused(capsys, "generate", video, "-o", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_a_file_that_reads_as_a_flag(clip, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("-dash.mp4").write_bytes(clip.read_bytes())
  said = refused(capsys, "generate", "-dash.mp4", "-o", "out")
  assert "name the file ./-dash.mp4" in said
