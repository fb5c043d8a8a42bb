"""Folders of sounds of any system, judged by the true sounds of the same names."""

import json

from flashes import (
  RATE,
  SECONDS,
  Mean,
  clicks,
  evaluate_quickly,
  make_record,
  value_of,
)
import numpy as np
import pytest
import soundfile

from launch import cli
from tests.launch.commands import refused, succeeds
from v2a_jax import media
from v2a_jax.evaluation import clips, folders, results, systems
from v2a_jax.evaluation.metrics import METRICS, base, frechet
from v2a_jax.evaluation.report import page as report
from v2a_jax.weights import registry as weights

NUM = 6
SOME = (
  "duration_error",
  "onset_f1_50ms",
  "onset_f1_100ms",
  "av_align",
  "silent",
  "level_error",
)


class Fad(base.SetMetric):
  """The Fréchet distance on an embedding without weights."""

  id, label, direction = "fad_mean", "FAD (mean)", "lower"
  about = "Fréchet distance of mean levels."
  embedding = Mean
  needs_reference = has_own = True

  def compute(self, features, *, reference, seed=0):
    return frechet.frechet(features, reference, seed=seed)

  def compute_own(self, features, *, truth, seed=0):
    return frechet.frechet(features, truth, seed=seed, own=True)


MEASURED = (*(m for m in METRICS if m.id in SOME), Fad())


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)


def sound(i: int) -> np.ndarray:
  return clicks([0.3 + 0.1 * i, 1.2])


@pytest.fixture
def truth(tmp_path):
  """A folder of true sounds, some in a subfolder."""
  folder = tmp_path / "truth"
  (folder / "deep").mkdir(parents=True)
  for i in range(NUM):
    soundfile.write(folder / name_of(i, ".wav"), sound(i), RATE)
  return folder


def name_of(i: int, suffix: str) -> str:
  return f"deep/clip{i}{suffix}" if i % 2 else f"clip{i}{suffix}"


@pytest.fixture
def outputs(tmp_path):
  """Sounds of a system: the truth at other rates, channels and formats."""
  folder = tmp_path / "system"
  (folder / "deep").mkdir(parents=True)
  write = [
    lambda path, x: soundfile.write(path.with_suffix(".wav"), x, RATE),
    lambda path, x: soundfile.write(path.with_suffix(".flac"), x, 2 * RATE),
    lambda path, x: soundfile.write(path.with_suffix(".ogg"), x, RATE),
    lambda path, x: media.encode_audio(path.with_suffix(".m4a"), x, RATE),
  ]
  for i in range(NUM):
    x = np.repeat(sound(i), 1 + i % 2, axis=1)
    if i == 1:
      x = np.repeat(x, 2, axis=0)  # At twice the rate, the same length.
    write[i % 4](folder / name_of(i, ""), x)
  return folder


def evaluate(outputs, truth, out, **settings):
  folder = folders.read_folder(outputs, "the outputs")
  pairs = folders.match(truth.ids(), folder.names).pairs
  return evaluate_quickly(
    truth,
    out,
    tracker=systems.Outputs("system", folder, pairs),
    metrics=MEASURED,
    **{"num_clips": None} | settings,
  )


def test_sounds_of_all_formats_are_judged_by_those_of_the_same_name(
  truth, outputs, tmp_path
):
  content = evaluate(outputs, clips.open_truth(truth), tmp_path / "out")
  assert content["name"] == "system" and content["kind"] == "outputs"
  assert [clip["id"] for clip in content["clips"]] == sorted(
    name_of(i, "") for i in range(NUM)
  )
  score = lambda row: value_of(content, row, "onset_f1_100ms")["value"]
  assert score("generated") > 0.8 and score("ground_truth") == 1.0
  assert score("shuffled_video") < 0.8 and score("silence") == 0
  assert "codec" not in [row["name"] for row in content["rows"]]
  assert content["identity"]["judged at"] == f"{RATE} Hz, mono"
  # Nothing to look at, so what looks at the picture is not measured.
  assert "no clip has" in content["skipped"]["av_align"]
  assert "av_align" not in content["metrics"]
  own = content["metrics"]["fad_mean"]["identity"]["reference"]
  assert own == f"the {NUM} judged clips' own true sounds, copies paired"
  fad = value_of(content, "ground_truth", "fad_mean")["value"]
  assert fad == pytest.approx(0, abs=1e-9)
  page = report.write_report([tmp_path / "out"], tmp_path / "report.html")
  assert "system" in page.read_text()


def test_names_with_accents_match_however_they_are_spelled(tmp_path):
  for folder, name in (("true", "caf\xe9"), ("ours", "cafe\u0301")):
    (tmp_path / folder).mkdir()
    soundfile.write(tmp_path / folder / f"{name}.wav", sound(0), RATE)
  true, ours = (
    folders.read_folder(tmp_path / name, "") for name in ("true", "ours")
  )
  found = folders.match(true.names, ours.names)
  assert len(found.pairs) == 1 and not found.without_truth


def test_names_that_differ_in_signs_alone_have_sounds_of_their_own(tmp_path):
  names = ("a b", "a_b", "a/b", "a-b", "../a_b")
  assert len({folders.plain(name) for name in names}) == len(names)
  assert not folders.plain("../a_b").startswith(".")
  for i, name in enumerate(names[:3]):
    path = tmp_path / "true" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(i), RATE)
  true = clips.open_truth(tmp_path / "true")
  content = evaluate(
    tmp_path / "true",
    *(true, tmp_path / "out"),
    **dict(rows=("generated",), gallery_clips=3, keep_sounds=True),
  )
  for clip in content["clips"]:
    own = media.read_audio(
      tmp_path / "true" / f"{clip['id']}.wav", sample_rate=RATE
    ).samples
    kept = results.sound_path(tmp_path / "out/sounds/generated", clip["id"])
    for path in (tmp_path / "out" / clip["audio"]["generated"], kept):
      heard = media.read_audio(path, sample_rate=RATE).samples[: len(own)]
      assert np.corrcoef(own[:, 0], heard[:, 0])[0, 1] > 0.9


def test_bad_sounds_are_named_and_not_replaced(truth, outputs, tmp_path):
  broken = np.repeat(sound(0), 2, axis=0)
  broken[10] = np.nan
  (outputs / "clip0.wav").unlink()
  soundfile.write(outputs / "clip0.wav", broken, RATE, subtype="FLOAT")
  (outputs / "clip2.ogg").write_bytes(b"")
  soundfile.write(outputs / "clip4.wav", np.zeros(3 * RATE), RATE)
  content = evaluate(outputs, clips.open_truth(truth), tmp_path / "out")
  reasons = {f["id"]: f["reason"] for f in content["failures"]}
  assert set(reasons) == {"clip0", "clip2"}
  assert "not finite" in reasons["clip0"] and "empty" in reasons["clip2"]
  assert content["set"]["n"] == NUM - 2
  assert value_of(content, "generated", "silent")["value"] == 0.25
  scores = {c["id"]: c["scores"]["generated"] for c in content["clips"]}
  assert scores["clip4"]["duration_error"] == 1.0  # It is a second too long.


def test_one_clip_has_values_and_no_intervals(truth, outputs, tmp_path):
  content = evaluate(
    outputs, clips.open_truth(truth), tmp_path / "out", num_clips=1
  )
  entry = value_of(content, "generated", "level_error")
  assert entry["value"] is not None and entry["low"] is None
  assert "one clip" in content["skipped"]["fad_mean"]
  assert "shuffled_video" not in [row["name"] for row in content["rows"]]
  assert any("one clip" in note for note in content["notes"])
  with pytest.raises(ValueError, match="give two clips"):
    evaluate(
      outputs,
      *(clips.open_truth(truth), tmp_path / "none"),
      **dict(num_clips=1, rows=("shuffled_video",)),
    )


def test_a_data_set_is_a_reference_and_gives_pictures(data, tmp_path):
  truth = clips.open_truth(data)
  out = tmp_path / "sounds"
  out.mkdir()
  for i in range(5):
    record = make_record(i, "test")
    times = [e["time"] for e in record["events"]]
    soundfile.write(out / f"clip{i}.flac", clicks(times), RATE)
  content = evaluate(out, truth, tmp_path / "out", eligible=range(5))
  assert value_of(content, "generated", "onset_f1_50ms")["value"] == 1.0
  assert "av_align" in content["metrics"]
  assert content["metrics"]["fad_mean"]["identity"]["reference"].startswith(
    "true sounds of other clips: 4 of val"
  )


def test_all_rows_come_at_one_rate(truth, outputs, tmp_path):
  """A system of a lower rate is charged for the treble that it lacks."""
  reference = clips.open_truth(truth)
  full = evaluate(
    outputs,
    reference,
    tmp_path / "full",
    rate=16_000,
    rows=["generated"],
    num_clips=2,
  )
  assert full["identity"]["judged at"] == "16000 Hz, mono"
  soundfile.write(truth / "clip0.wav", sound(0), 2 * RATE)
  above = evaluate(
    outputs, clips.open_truth(truth), tmp_path / "above", rows=["generated"]
  )
  assert above["identity"]["judged at"] == "16000 Hz, mono"


def test_the_command(truth, outputs, tmp_path, capsys):
  (outputs / "clip2.ogg").unlink()
  soundfile.write(outputs / "stray.wav", sound(0), RATE)
  for i in range(30):
    (outputs / f"stray{i}.wav").touch()
  captions = tmp_path / "captions.csv"
  captions.write_text("file,caption\nclip0.wav,a lamp\nno.wav,nothing\n")
  videos = tmp_path / "videos"
  (videos / "deep").mkdir(parents=True)
  frames = np.zeros((round(25 * SECONDS), 16, 16, 3), np.uint8)
  for i in range(NUM):
    media.encode_video(frames, fps=25, path=videos / name_of(i, ".mp4"))
  other = tmp_path / "other" / "system"
  (other / "deep").mkdir(parents=True)
  for i in range(NUM - 1):
    soundfile.write(other / name_of(i, ".wav"), sound(i) / 2, RATE)
  args = [
    *("eval", "--outputs", outputs, "--outputs", other, "--reference", truth),
    *("--videos", videos, "--captions", captions, "--gallery_clips=1"),
    *("--rows=generated,ground_truth", "-o", tmp_path / "out"),
  ]
  shown = succeeds(capsys, *args)
  assert "31 files of" in shown and "stray" in shown
  assert "1 clips of" in shown and "no sound in" in shown and "clip2" in shown
  results = sorted((tmp_path / "out").glob("*/results.json"))
  assert [path.parent.name for path in results] == [
    "other_system",
    f"{tmp_path.name}_system",
  ]
  both = [json.loads(path.read_text()) for path in results]
  # Those that all have a sound for, so that the two can be compared.
  assert both[0]["identity"] == both[1]["identity"]
  assert [c["id"] for c in both[0]["clips"]] == [
    *("clip0", "clip4", "deep/clip1", "deep/clip3")
  ]
  # Every name is kept, however many there are.
  assert both[1]["unmatched"]["without_truth"] == {
    "count": 31,
    "names": sorted(["stray", *(f"stray{i}" for i in range(30))]),
  }
  assert both[0]["clips"][0]["caption"] == "a lamp"
  assert both[0]["clips"][0]["video"] and "av_align" in both[0]["metrics"]
  assert "is there already" in succeeds(capsys, *args)
  args[args.index("--gallery_clips=1")] = "--interval_seed=1"
  assert cli.main([str(arg) for arg in args]) == 2
  line = capsys.readouterr().err
  assert "results of other settings (seeds, gallery_clips)" in line


def test_the_first_take_of_each_video_stands_for_it():
  """As `v2a generate` names its files."""
  takes = ["c02_s0001", "c01_s0003", "c03_s0002"]
  names = [f"{of}/{of}__{take}" for of in ("dog", "cat") for take in takes]
  found = folders.match(["pets/dog", "cat", "bird"], [*names, "cat/other"])
  assert found.pairs == {
    "pets/dog": "dog/dog__c01_s0003",
    "cat": "cat/cat__c01_s0003",
  }
  assert found.without_output == ["bird"]
  assert found.without_truth == ["cat/other"]


def test_what_matches_nothing_is_refused_in_one_line(truth, tmp_path, capsys):
  stranger = tmp_path / "stranger"
  stranger.mkdir()
  args = ["eval", "--outputs", stranger, "--reference", truth, "-o", "x"]
  assert "0 media files in" in refused(capsys, *args)
  soundfile.write(stranger / "a.wav", sound(0), RATE)
  line = refused(capsys, *args)
  assert "(a) is that of a clip of" in line and "clip0" in line
  soundfile.write(stranger / "a.flac", sound(0), RATE)
  assert "have one name ('a')" in refused(capsys, *args)


def test_no_system_is_judged_if_one_of_them_is_none(truth, tmp_path, capsys):
  none = tmp_path / "none"
  none.mkdir()
  out = tmp_path / "out"
  args = ["eval", "diffusion_tiny", none, "--set", truth, "-o", out]
  assert f"{none} holds no config.json" in refused(capsys, *args)
  assert not out.exists()
