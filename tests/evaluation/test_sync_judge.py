"""The bundled judge on scenes that it never saw, and what is said beside it."""

import shutil

import flashes
import numpy as np
import pytest
import soundfile

from data_pipelines import scenes
from v2a_jax import media
from v2a_jax.evaluation import clips as clips_lib
from v2a_jax.evaluation import folders, rows, systems
from v2a_jax.evaluation.clips import Clip
from v2a_jax.evaluation.metrics import METRICS, base
from v2a_jax.evaluation.metrics.sync_judge import JudgedOffset, JudgedSync
from v2a_jax.evaluation.report import columns, skill
from v2a_jax.objectives.teacher import TEACHERS
from v2a_jax.sync import bundled
from v2a_jax.weights import bundle

RATE = 16_000
IN_TIME, OFFSET = JudgedSync(), JudgedOffset()
ACTIONS = ("strike", "drum", "bounce", "clap", "walk", "talk")


def make_clip(action: str, seed: int) -> Clip:
  scene = scenes.make_scene(seed, action=action)
  return Clip(
    id=action,
    video=media.encode_video(scene.frames, fps=25),
    audio=scene.audio,
    seconds=scene.seconds,
  )


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
  """Scenes of a seed that neither generators nor the judge were trained on."""
  return [make_clip(a, 91_000_000_000 + i) for i, a in enumerate(ACTIONS)]


def samples(clip: Clip, sounds, rate=RATE) -> list[base.Sample]:
  common = dict(clip=clip, sample_rate=rate, features={})
  truth = base.Sample(waveform=clip.audio, **common)
  return [base.Sample(waveform=s, truth=truth, **common) for s in sounds]


@pytest.mark.parametrize("shift", [-320, -80, 0, 160])
def test_planted_offsets_are_found(clips, shift):
  """Within 40 ms in all scenes but one, and without bias."""
  found = []
  for clip in clips:
    moved = rows.delayed(clip.audio, shift * RATE // 1000)
    found.append(OFFSET.get_state(*samples(clip, [moved])))
  error = np.array(found) - shift
  assert np.sum(np.abs(error) <= 40) >= len(clips) - 1, error
  assert abs(np.median(error)) <= 20


def test_the_true_sound_is_first(clips):
  """Against itself 160 ms late or early, noise, a metronome, another's sound."""
  first = 0
  for i, clip in enumerate(clips):
    rivals = [
      rows.delayed(clip.audio, RATE * 160 // 1000),
      rows.delayed(clip.audio, -RATE * 160 // 1000),
      rows.pink_noise(clip.audio, RATE, seed=i),
      rows.metronome(clip.audio, RATE),
      clips[i - 1].audio,
      np.zeros_like(clip.audio),
    ]
    true, *others = map(IN_TIME.get_state, samples(clip, [clip.audio, *rivals]))
    first += true > max(others)
  assert first >= len(clips) - 1


def test_in_time_may_be_concluded_from_it(clips):
  """It tells true sounds from all that is out of time, as reports ask."""
  sounds = {
    "ground_truth": lambda clip: clip.audio,
    "shifted": lambda clip: rows.delayed(clip.audio, RATE * 120 // 1000),
    "metronome": lambda clip: rows.metronome(clip.audio, RATE),
    "noise": lambda clip: rows.pink_noise(clip.audio, RATE, seed=5),
  }
  states = {row: [] for row in sounds}
  for clip in clips:
    for row, one in zip(
      sounds, samples(clip, [f(clip) for f in sounds.values()])
    ):
      states[row].append(IN_TIME.get_state(one))
  run = {
    "name": "run",
    "set": {"manifest_sha256": "", "split": "test"},
    "metrics": {IN_TIME.id: {"label": IN_TIME.label, "higher_is_better": True}},
    "rows": [
      {"name": row, "metrics": {IN_TIME.id: IN_TIME.compute(of).to_json()}}
      for row, of in states.items()
    ],
    "clips": [
      {
        "id": str(i),
        "scores": {r: {IN_TIME.id: of[i]} for r, of in states.items()},
      }
      for i in range(len(clips))
    ],
  }
  (column,) = columns.columns_of([run])
  assert skill.tells_time(run, column)


def test_rate_and_channels_of_the_sound_do_not_matter(clips):
  clip = clips[0]
  fine = np.repeat(
    np.repeat(clip.audio, 3, axis=0), 2, axis=1
  )  # 48 kHz, stereo
  (one,) = map(OFFSET.get_state, samples(clip, [clip.audio]))
  (two,) = map(OFFSET.get_state, samples(clip, [fine], rate=3 * RATE))
  assert two == pytest.approx(one, abs=10)


def test_results_say_how_good_the_judge_is(data, tmp_path):
  content = flashes.evaluate_quickly(data, tmp_path, metrics=[IN_TIME, OFFSET])
  judge = bundled.load()
  assert judge.measured
  for metric in (IN_TIME, OFFSET):
    about = content["metrics"][metric.id]
    assert judge.sha256 in about["identity"]["judge"]
    for sentence in judge.measured.values():
      assert "held-out true pairs" in sentence and " ms" in sentence
      assert sentence in about["about"]
  said = " ".join(content["notes"])
  assert all(sentence in said for sentence in judge.measured.values())
  assert content["metrics"][IN_TIME.id]["judges_timing"]
  assert content["metrics"][OFFSET.id]["role"] == "shown"


def evaluate_sounds(tmp_path, pictures: int):
  """Evaluates three sounds, of which the first few have a picture."""
  sounds, videos = tmp_path / "sounds", tmp_path / "videos"
  sounds.mkdir()
  videos.mkdir()
  frames = np.zeros((50, 16, 16, 3), np.uint8)
  for i in range(3):
    soundfile.write(sounds / f"clip{i}.wav", flashes.clicks([0.5, 1.2]), 8000)
    if i < pictures:
      media.encode_video(frames, fps=25, path=videos / f"clip{i}.mp4")
  folder = folders.read_folder(sounds, "the outputs")
  truth = clips_lib.open_truth(sounds, videos=videos if pictures else None)
  return flashes.evaluate_quickly(
    truth,
    tmp_path / "out",
    tracker=systems.Outputs(
      "system", folder, folders.match(truth.ids(), folder.names).pairs
    ),
    metrics=[IN_TIME, OFFSET],
    num_clips=None,
    rows=("generated", "ground_truth"),
  )


def test_clips_without_a_picture_are_left_out(tmp_path):
  clips = evaluate_sounds(tmp_path, pictures=2)["clips"]
  scored = {c["id"] for c in clips if IN_TIME.id in c["scores"]["generated"]}
  assert scored == {"clip0", "clip1"} and len(clips) == 3


def test_without_any_picture_it_is_not_measured(tmp_path):
  content = evaluate_sounds(tmp_path, pictures=0)
  assert set(content["skipped"]) == {IN_TIME.id, OFFSET.id}
  assert not content["metrics"]


def test_a_damaged_judge_is_refused(tmp_path):
  folder = tmp_path / "judge"
  shutil.copytree(bundle.find(bundled.DEFAULT), folder)
  weights = folder / bundle.WEIGHTS
  data = bytearray(weights.read_bytes())
  data[-1] ^= 1
  weights.write_bytes(data)
  with pytest.raises(bundle.BundleError, match="does not have the sha256"):
    bundled.load(str(folder))


def test_a_bundle_of_something_else_is_no_judge():
  with pytest.raises(bundle.BundleError, match="codec_tiny holds no judge"):
    bundled.load("codec_tiny")


def test_it_teaches_and_conditions_nothing():
  """Metrics that are reported are not what a generator could learn from."""
  assert bundled.DEFAULT not in TEACHERS and "sync" not in TEACHERS
  assert {IN_TIME.id, OFFSET.id} <= {metric.id for metric in METRICS}
