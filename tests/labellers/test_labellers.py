"""Labellers that come with the package, as `v2a data annotate` runs them."""

import importlib.metadata
import importlib.util
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from data_pipelines.columns import store
from data_pipelines.columns.annotate import LabellerError, annotate
from data_pipelines.scenes import make_scene
from data_pipelines.scenes.records import to_record
from launch import cli
from tests.data_pipelines.samples import (
  clip_record,
  forbid_decoding,
  sound_record,
  write,
)
from v2a_jax import media
from v2a_jax.basics import audioset
from v2a_jax.labellers import reading, sounds, sync, whisper
from v2a_jax.pretrained import mn04, yamnet

SHARED = pathlib.Path(__file__).resolve().parents[2].parent / "shared"


def labelled(dataset, name):
  assert cli.main(["data", "annotate", str(dataset), "--labeller", name]) == 0
  rows = store.open_columns(dataset, name).table.to_pylist()
  return {row["id"]: row for row in rows}


def needs(*names):
  """Skips without the published weights, or the recordings, of ../shared."""
  for name in names:
    if not (SHARED / name).exists():
      pytest.skip(f"../shared/{name} is not here")


def golden(tmp_path):
  """A data set of recordings with known answers."""
  rows = []
  for name in ("swch_speech", "swch_music", "swch_typing"):
    sound = media.read_audio(
      SHARED / "clips" / "golden" / f"{name}.wav",
      sample_rate=32_000,
      channels=1,
    )
    flac = media.encode_flac(sound.samples[: 32_000 * 4], 32_000)
    seconds = min(len(sound.samples) / 32_000, 4.0)
    rows.append(
      clip_record(0, id=name, audio=flac, video=b"", duration=seconds)
    )
  return write(tmp_path / "ds", rows)


def test_what_a_labeller_is_given_is_decoded_in_the_sandbox(monkeypatch):
  request = clip_record(0)
  forbid_decoding(monkeypatch)
  assert len(reading.sound(request, 16_000)) == 16_000
  assert len(reading.picture(request, fps=5, size=(16, 16)).times) == 5


def test_networks_hear_speech_and_music(tmp_path, monkeypatch):
  needs("weights", "clips/golden")
  monkeypatch.setenv("V2A_WEIGHTS", str(SHARED / "weights"))
  dataset = golden(tmp_path)
  voice = labelled(dataset, "voice")
  assert [id for id, row in voice.items() if row["speech"]] == ["swch_speech"]
  heard = labelled(dataset, "sounds")
  assert [id for id, row in heard.items() if row["music"]] == ["swch_music"]
  assert heard["swch_typing"]["effects"]
  assert (
    cli.main(["data", "columns", dataset, "--admit", "speech or music"]) == 0
  )


def test_the_judge_says_how_late_a_sound_is(tmp_path):
  late = round(0.6 * 16_000)
  rows = []
  for seed, name in ((3, "right"), (3, "late")):
    scene = make_scene(seed, seconds=4.0, size=64, action="drum")
    record = to_record(scene, name)
    if name == "late":
      sound = np.pad(scene.audio, ((late, 0), (0, 0)))[: len(scene.audio)]
      record["audio"] = media.encode_flac(sound, scene.sample_rate)
    rows.append(record)
  rows.append(sound_record(0))
  found = labelled(write(tmp_path / "ds", rows), "sync")
  assert abs(found["right"]["offset"]) < 0.1 < found["right"]["in_time"]
  assert found["late"]["offset"] == pytest.approx(0.6, abs=0.1)
  assert found["late"]["in_time"] < 0.1 and found["late"]["agreement"] > 0.5
  assert found["sound000"]["error"] == "no picture"


def test_a_sound_is_moved_by_seconds():
  sound = np.arange(16_000, dtype=np.float32)[:, None]
  late, early = sync.moved(sound, 0.25), sync.moved(sound, -0.25)
  assert len(late) == len(early) == 16_000
  assert late[4_100] == 100 and not late[:4_000].any()
  assert early[100] == 4_100 and not early[12_000:].any()


def test_whisper_gives_words_times_and_how_sure_it_is():
  word = types.SimpleNamespace
  segments = [
    word(
      start=0.0,
      end=2.0,
      text=" Hello there.",
      no_speech_prob=0.1,
      words=[
        word(word=" Hello", start=0.2, end=0.5, probability=0.9),
        word(word=" there.", start=0.6, end=1.0, probability=0.7),
      ],
    )
  ]
  row = whisper.columns(segments, "en")
  assert row["transcript"] == "Hello there." and row["language"] == "en"
  assert row["words"][1] == {"word": "there.", "start": 0.6, "end": 1.0}
  assert row["confidence"] == pytest.approx(0.8)
  assert row["speech_probability"] == pytest.approx(0.9)
  assert whisper.columns([], "en") == {"speech_probability": 0.0}


def tiny_captions(folder, records, of):
  """Answers of a small captioner by id; it runs as the real one does."""
  for package in ("torch", "transformers", "PIL"):
    if not importlib.util.find_spec(package):
      pytest.skip(f"{package} is not installed: no captioner")
  script = pathlib.Path(__file__).with_name("tiny_captioners.py")
  dataset = write(folder / "ds", records)
  command = f"{sys.executable} {script} {of} {folder / 'model'}"
  annotate(dataset, of, command, log=lambda _: None)
  rows = store.open_columns(dataset, of).table.to_pylist()
  return {row["id"]: row for row in rows}


def test_a_captioner_says_what_is_in_the_middle_of_the_picture(tmp_path):
  def film(name, *colours):
    frames = np.zeros((12, 32, 32, 3), np.uint8)
    frames[:] = np.repeat(np.array(colours, np.uint8), 4, 0)[:, None, None]
    video = media.encode_video(frames, fps=12, crf=0)
    return clip_record(0, id=name, video=video)

  red, blue = (200, 0, 0), (0, 0, 200)
  records = [
    film("red", red, red, red),
    film("blue", blue, blue, blue),
    film("middle", blue, red, blue),
    sound_record(0),
  ]
  found = tiny_captions(tmp_path, records, "picture")
  assert found["sound000"].get("error") == "no picture"
  said = {id: row["caption"] for id, row in found.items()}
  assert said["red"] == said["middle"] != said["blue"]
  assert said["red"] and said["blue"]
  assert found["sound000"]["error"] == "no picture"
  version = importlib.metadata.version("transformers")
  assert found["red"]["by"].endswith(f"model@transformers-{version}")


def test_a_captioner_says_what_is_heard(tmp_path):
  rng = np.random.default_rng(0)

  def sound(name, level):
    samples = rng.normal(0, level, (16_000, 1)).astype(np.float32)
    flac = media.encode_flac(samples, 16_000)
    return clip_record(0, id=name, video=b"", audio=flac)

  records = [sound("loud", 0.2), sound("low", 0.01)]
  records += [clip_record(1, id="mute", audio=b"")]
  found = tiny_captions(tmp_path, records, "sound")
  said = [found[id]["audio_caption"] for id in ("loud", "low")]
  assert all(said) and said[0] != said[1]
  assert found["mute"]["error"] == "no sound"


def test_a_labeller_whose_package_is_missing_says_so_in_one_line(tmp_path):
  dataset = write(tmp_path / "ds", [sound_record(0)])
  without = (
    "import sys, runpy; sys.modules['faster_whisper'] = None;"
    " sys.argv = ['whisper']; runpy.run_module('v2a_jax.labellers.whisper',"
    " run_name='__main__')"
  )
  with pytest.raises(LabellerError, match="faster_whisper") as caught:
    annotate(
      dataset, "x", f'{sys.executable} -c "{without}"', log=lambda _: None
    )
  assert "ended with status 1" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_names_of_classes_are_read_from_either_table(tmp_path):
  table = tmp_path / "a.csv"
  table.write_text('index,mid,display_name\n0,/m/1,"Male speech, man"\n')
  assert sounds.read_names(table) == ["Male speech, man"]
  table.write_text("Speech\nMusic\n")
  assert sounds.read_names(table) == ["Speech", "Music"]


@pytest.mark.parametrize("network", [mn04, yamnet])
def test_outputs_of_a_tagger_are_found_by_audiosets_numbers(network):
  """By the names of AudioSet's classes and of YAMNet's, as published."""
  needs("weights/audioset_527_labels.csv", "weights/yamnet_labels.txt")
  names = sounds.read_names(SHARED / "weights" / "audioset_527_labels.csv")
  own = names
  if network is yamnet:
    own = sounds.read_names(SHARED / "weights" / "yamnet_labels.txt")
  assert len(own) == network.NUM_CLASSES
  for number, name in enumerate(names):
    found = [own[i] for i in sounds.outputs(network, [number])]
    assert found == ([name] if name in own else [])
  effects = {
    own[i] for i in sounds.outputs(network, audioset.numbers("effects"))
  }
  assert {"Dog", "Wind", "Whispering", "Crunch"} <= effects
  assert effects.isdisjoint(
    {"Speech", "Singing", "Humming", "Music", "Silence"}
  )


def test_what_a_library_prints_is_no_answer(tmp_path):
  """Standard output is kept for answers, also from code in C."""
  program = (
    "from v2a_jax.labellers.contract import serve; import os\n"
    "def answer(r):\n"
    "  print('loading'); os.write(1, b'from C')\n"
    "  if r['id'] == 'b': raise ValueError('bad clip')\n"
    "  return {'x': 1}\n"
    "serve(answer, by='m@1')\n"
  )
  asked = "".join(json.dumps({"id": id}) + "\n" for id in "ab")
  done = subprocess.run(
    [sys.executable, "-c", program], input=asked, capture_output=True, text=True
  )
  rows = [json.loads(line) for line in done.stdout.splitlines()]
  assert rows == [
    {"id": "a", "by": "m@1", "x": 1},
    {"id": "b", "by": "m@1", "error": "bad clip"},
  ]
