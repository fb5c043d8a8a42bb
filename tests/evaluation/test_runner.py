"""The whole evaluation, with a stand-in model whose skill is known.

Clips show a grey picture that flashes, and sound a click at each flash. The
stand-in clicks wherever the frames that it is given turn bright: a model that
follows the video perfectly and knows nothing else.
"""

from concurrent import futures
import json
import pathlib

import numpy as np
import pytest

from data_pipelines import schema
from data_pipelines.assemble import OutputOptions, Plan, assemble
from data_pipelines.clips import clip_facts
from data_pipelines.loader import LoaderConfig
from data_pipelines.writer import Outcome
from v2a_jax import media
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import results, rows, runner
from v2a_jax.evaluation.metrics import METRICS
from v2a_jax.evaluation.metrics.level_error import level_dbfs
from v2a_jax.evaluation.report import page as report
from v2a_jax.weights import registry as weights

WEIGHTS = pathlib.Path(__file__).parents[2].parent / "shared" / "weights"
RATE, FPS, SECONDS = 8000, 25, 2.0


def _clicks(times, seconds=SECONDS):
  sound = 1e-4 * np.random.default_rng(0).standard_normal(round(RATE * seconds))
  for time in times:
    start = round(time * RATE)
    tail = np.arange(min(800, len(sound) - start))
    sound[start : start + len(tail)] += np.sin(tail) * np.exp(-tail / 100) / 2
  return sound.astype(np.float32)[:, None]


def _record(index, split, **changes):
  """Flashes on and off screen at times that differ from clip to clip."""
  rng = np.random.default_rng(index)
  seen = np.round(np.sort(rng.choice(np.arange(4, 44, 6), 3, False)) / FPS, 4)
  frames = np.full((round(FPS * SECONDS), 16, 16, 3), 30 + 3 * index, np.uint8)
  for time in seen:
    first = round(time * FPS)
    frames[first : first + 2] = 220
  unseen = [1.9]
  events = [
    {"time": float(t), "kind": "flash", "on_screen": t not in unseen}
    for t in [*seen, *unseen]
  ]
  given = dict(
    id=f"clip{index}",
    video=media.encode_video(frames, fps=FPS),
    audio=media.encode_flac(_clicks([*seen, *unseen]), RATE),
    duration=SECONDS,
    caption=f"a lamp flashes {index} times",
    events=events,
    label="flash",
    split=split,
  )
  return schema.make_record(**(given | changes))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """Six clips to judge, one of them without sound; four others."""
  records = [_record(i, "test") for i in range(5)]
  records.append(_record(5, "test", audio=b""))
  records += [_record(10 + i, "val") for i in range(4)]
  by_key = {record["id"]: record for record in records}

  def make(key):
    return Outcome(key=key, clips=[clip_facts(by_key[key])]), [by_key[key]]

  out = tmp_path_factory.mktemp("data") / "flashes"
  plan = Plan(keys=list(by_key), unit="clips", settings={}, description="test")
  assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=OutputOptions(),
    log=lambda _: None,
  )
  return out


class Follower:
  """Clicks at every flash that it sees."""

  sample_rate = RATE
  window_seconds = SECONDS

  def __init__(self, data, *, path="", broken=()):
    self.loader_config = LoaderConfig(
      paths=(str(data),),
      seconds=SECONDS,
      fps=FPS,
      frame_size=16,
      sample_rate=RATE,
      channels=1,
    )
    self._path, self._broken = str(path), broken
    self.seeds = []

  def sample(self, cond, *, seed, sampler):
    self.seeds.append(seed)
    sounds = []
    for i, frames in enumerate(cond.frames):
      bright = frames.mean(axis=(1, 2, 3)) > 130
      rises = np.flatnonzero(bright[1:] & ~bright[:-1]) + 1
      sounds.append(_clicks(cond.frame_times[i][rises]))
      if seed + i in self._broken:
        sounds[-1][100] = np.nan
    return np.stack(sounds)

  def reconstruct(self, audio):
    return 0.9 * audio

  def describe(self):
    return {
      "name": "follower",
      "checkpoint": {
        "path": self._path,
        "step": 7,
        "sha256": "",
        "train_seconds": 3.0,
        "clips_seen": 56,
      },
      "config": {"model": {"width": 1}},
      "sampler": {"num_steps": 1},
    }


@pytest.fixture(scope="module")
def judged(data, tmp_path_factory):
  """One full evaluation; without the weights, so that it runs anywhere."""
  out = tmp_path_factory.mktemp("eval")
  workdir = tmp_path_factory.mktemp("workdir")
  lines = [{"step": i, "train/loss": 1 / (i + 1)} for i in range(1, 1001)]
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 10'
  (workdir / "metrics.jsonl").write_text(text)
  follower, log = Follower(data, path=workdir), []
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv(weights.CACHE_VARIABLE, str(out / "cache"))
    patch.delenv(weights.PATH_VARIABLE, raising=False)
    returned = runner.evaluate(
      follower,
      data=data,
      out=out,
      num_clips=6,
      batch_size=2,
      gallery_clips=2,
      seed=3,
      log=log.append,
    )
  found = json.loads((out / results.FILE).read_text())
  assert found == json.loads(json.dumps(returned))
  return found, out, log, follower


def _value(found, row, metric):
  (row,) = [r for r in found["rows"] if r["name"] == row]
  return row["metrics"][metric]


def test_results_have_the_documented_form(judged):
  found, _, _, _ = judged
  assert found["schema"] == 1 and found["name"] == "follower"
  assert found["checkpoint"]["step"] == 7 and found["seed"] == 3
  assert [row["name"] for row in found["rows"]] == list(rows.ROWS)
  assert found["rows"][0]["kind"] == "model"
  assert {row["kind"] for row in found["rows"][1:]} == {"anchor"}
  assert found["set"]["n"] == 5 and found["set"]["seconds"] == 10.0
  assert len(found["set"]["manifest_sha256"]) == 64
  assert found["code"]["versions"]["numpy"]
  for row in found["rows"]:
    assert row["metrics"].keys() == found["metrics"].keys()
    for figure in row["metrics"].values():
      assert {"value", "low", "high", "n"} <= figure.keys()
  for metric in found["metrics"].values():
    assert {"label", "unit", "higher_is_better", "about"} <= metric.keys()


def test_the_rows_tell_the_story(judged):
  found = judged[0]
  score = lambda row: _value(found, row, "onset_f1_50ms")
  assert score("ground_truth")["value"] == pytest.approx(1.0)
  assert score("generated")["value"] == pytest.approx(1.0)
  assert score("codec")["value"] == pytest.approx(1.0)
  assert score("shuffled_video")["value"] < 0.8
  assert score("silence")["value"] == 0.0
  over = score("generated")["over_shuffled"]
  assert over["low"] > 0.1
  assert _value(found, "silence", "silent")["value"] == 1.0
  assert _value(found, "generated", "silent")["value"] == 0.0
  assert _value(found, "noise", "level_error")["value"] < 0.5
  codec = _value(found, "codec", "level_error")["value"]
  assert codec == pytest.approx(-20 * np.log10(0.9), abs=1e-3)


def test_both_model_rows_have_the_same_noise(judged):
  follower = judged[3]
  assert follower.seeds == [3, 5, 7, 3, 5, 7]


def test_a_bad_record_is_named_and_not_replaced(judged):
  found, _, log, _ = judged
  (failure,) = found["failures"]
  assert failure["id"] == "clip5" and "sound" in failure["reason"]
  assert any("clip5" in line for line in log)
  assert len(found["clips"]) == 5


def test_missing_weights_are_said_not_hidden(judged):
  found, _, log, _ = judged
  assert "fad_mn04" not in found["metrics"]
  assert "v2a weights fetch mn04" in found["skipped"]["fad_mn04"]
  assert any("not measured: fad_mn04" in line for line in log)


def test_clips_have_media_events_and_scores(judged):
  found, out, _, _ = judged
  with_media = [clip for clip in found["clips"] if clip["video"]]
  assert len(with_media) == 2
  for clip in with_media:
    assert media.probe(out / clip["video"]).has_video
    assert set(clip["audio"]) == set(rows.ROWS)
    for path in clip["audio"].values():
      assert media.probe(out / path).duration == pytest.approx(SECONDS, abs=0.1)
  for clip in found["clips"]:
    assert len(clip["events"]) == 3 and 1.9 not in clip["events"]
    assert clip["scores"]["generated"]["onset_f1_50ms"] == 1.0
    assert clip["duration"] == SECONDS and clip["caption"]


def test_curve_is_thinned_and_survives_a_cut_line(judged):
  curve = judged[0]["curve"]
  assert 300 < len(curve) <= 401
  assert curve[-1]["step"] == 1000 and curve[0]["step"] == 1


def test_the_report_reads_it(judged, tmp_path):
  _, out, _, _ = judged
  page = tmp_path / "report.html"
  report.write_report([out / results.FILE], page)
  assert "follower" in page.read_text()


def test_a_sound_that_is_not_finite_is_a_failure(data, tmp_path, monkeypatch):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path))
  monkeypatch.delenv(weights.PATH_VARIABLE, raising=False)
  evaluate = lambda broken: runner.evaluate(
    Follower(data, broken=broken),
    data=data,
    out=tmp_path / "out",
    rows=("generated", "silence"),
    gallery_clips=0,
    log=lambda line: None,
  )
  found = evaluate((1,))
  assert found["set"]["n"] == 4
  reasons = [f["reason"] for f in found["failures"]]
  assert "the sound of the row generated is not finite" in reasons
  with pytest.raises(ValueError, match="diverged"):
    evaluate(range(10))


def test_refusals_name_what_to_do(data, tmp_path):
  with pytest.raises(ValueError, match="two or more"):
    runner.evaluate(Follower(data), data=data, out=tmp_path, num_clips=1)
  with pytest.raises(ValueError, match="ground_truth"):
    runner.evaluate(Follower(data), data=data, out=tmp_path, rows=("truth",))
  with pytest.raises(schema.DataError, match="no data set"):
    runner.evaluate(Follower(data), data=tmp_path / "none", out=tmp_path)
  assert not (tmp_path / results.FILE).exists()


def test_distances_with_the_real_network(data, tmp_path, monkeypatch):
  if not (WEIGHTS / "mn04_as_mAP_432.pt").is_file():
    pytest.skip("../shared/weights is not here")
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path))
  evaluate = lambda: runner.evaluate(
    Follower(data),
    data=data,
    out=tmp_path / "out",
    gallery_clips=0,
    rows=("generated", "ground_truth", "silence"),
    weights_path=WEIGHTS,
    log=lambda line: None,
  )
  found = evaluate()
  assert list(found["metrics"]) == [m.id for m in METRICS]
  fad = lambda row: _value(found, row, "fad_mn04")
  assert fad("silence")["low"] > fad("ground_truth")["high"]
  assert fad("generated")["reference_clips"] == 4
  assert "4 of val" in found["metrics"]["fad_mn04"]["about"]
  assert _value(found, "ground_truth", "kl_mn04")["value"] == 0.0
  again = evaluate()  # The reference now comes from the cache.
  assert again["rows"] == found["rows"] and again["metrics"] == found["metrics"]


def test_every_video_moves_on_by_one(data):
  config = Follower(data).loader_config
  records, indices = clips_lib.choose(data, "test", num=5, seed=0)
  clips, _ = clips_lib.load(records, indices, config)
  shuffled = rows.with_other_videos(clips, seed=1)
  frames = lambda clip: clip.example["frames"].tobytes()
  assert sorted(map(frames, shuffled)) == sorted(map(frames, clips))
  for clip, other in zip(clips, shuffled):
    assert frames(clip) != frames(other)
    for key in ("prompt", "transcript", "audio"):
      np.testing.assert_array_equal(clip.example[key], other.example[key])


def test_pink_noise_has_the_level_and_falls_by_3_db_an_octave():
  true = 0.05 * np.random.default_rng(0).standard_normal((64000, 1))
  noise = rows.pink_noise(true, 16000, seed=(0, 1))
  assert level_dbfs(noise) == pytest.approx(level_dbfs(true), abs=0.1)
  power = np.square(np.abs(np.fft.rfft(noise[:, 0])))
  hz = np.fft.rfftfreq(64000, 1 / 16000)
  octaves = [
    power[(hz >= f) & (hz < 2 * f)].mean() for f in (250, 500, 1000, 2000)
  ]
  drops = 10 * np.log10(np.array(octaves[:-1]) / octaves[1:])
  np.testing.assert_allclose(drops, 3.0, atol=0.7)


def test_the_choice_depends_on_the_seed_alone(data):
  pick = lambda seed: clips_lib.choose(data, "test", num=3, seed=seed)[1]
  assert pick(0) == pick(0) and len(set(pick(0))) == 3
  assert any(pick(seed) != pick(0) for seed in range(1, 6))
