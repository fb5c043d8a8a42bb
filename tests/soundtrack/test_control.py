"""Prompts by span, words with times, rejection, reference sounds, ranking."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from configs import ar_tiny, diffusion_tiny
from tests.soundtrack.test_tracker import RATE, _tracker
from tests.soundtrack.test_tracker import video as video  # noqa: PLC0414
from v2a_jax import media
from v2a_jax.basics import scratch
from v2a_jax.basics.settings import SettingError
from v2a_jax.hearing import unwanted
from v2a_jax.sampling.windows import Windows
from v2a_jax.soundtrack import ranking, scoring, selection, transcripts
from v2a_jax.soundtrack.request import Request
from v2a_jax.weights import registry

SOUNDS = pathlib.Path(__file__).parents[2].parent / "shared/clips/audio"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
  return _tracker(diffusion_tiny, tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def teller(tmp_path_factory):
  """An autoregressive model."""
  return _tracker(ar_tiny, tmp_path_factory.mktemp("ar"))


def _need(*names: str) -> None:
  """Skips where the weights of a published network are missing."""
  for name in names:
    try:
      registry.find(name)
    except registry.MissingWeightsError as error:
      pytest.skip(str(error))


def made(tracker, video, **request) -> np.ndarray:  # noqa: F811
  request = dict(num_candidates=1, seed=3) | request
  return tracker(video, **request).best.samples


def test_a_prompt_of_a_span_changes_the_sound_there(tracker, video):  # noqa: F811
  plain = made(tracker, video, prompt="rain")
  whole = made(tracker, video, prompt="x", prompts=((0, 9, "rain"),))
  np.testing.assert_array_equal(whole, plain)
  # The same prompt in a span is the same prompt, but for rounding.
  same = made(tracker, video, prompt="rain", prompts=((1, 2, "rain"),))
  assert np.abs(same - plain).max() < 1e-3 * np.abs(plain).max()
  late = made(tracker, video, prompt="rain", prompts=((2.2, 9, "a hammer"),))
  change = np.abs(late - plain).max(axis=1)
  # One window of a second reaches from there to half a window before.
  assert change[:RATE].max() < 1e-3 * change.max()
  assert change[round(2.3 * RATE) :].max() == change.max() > 0


def test_windows_of_a_token_model_take_the_prompt_of_their_span(
  teller,
  video,  # noqa: F811
):
  plain = made(teller, video, prompt="rain")
  late = made(teller, video, prompt="rain", prompts=((2, 9, "a hammer"),))
  np.testing.assert_array_equal(plain[:RATE], late[:RATE])
  assert np.abs(plain - late).max() > 0


def test_words_are_spoken_at_their_times(tracker, video):  # noqa: F811
  words = ({"word": "two", "start": 0.2}, {"word": "words", "start": 2.4})
  request = Request(words=words)
  assert request.spoken == "two words" and request.presence[0] == 1
  picture = media.read_video(video, max_fps=10.0, size=(16, 16))
  windows = _windows(tracker)
  texts = [""] * windows.count
  cond = tracker.encoder.conditions(picture, windows, request, texts)
  assert cond.transcript_timed.all()
  rate = tracker.codec.config.latent_rate
  for row, start in enumerate(windows.starts):
    inside = [w["start"] - start / rate for w in words]
    inside = {round(x, 3) for x in inside if 0 <= x < tracker.window_seconds}
    times = cond.transcript_times[row][cond.transcript_mask[row]]
    assert inside <= {round(float(x), 3) for x in times}
    # The pieces of a word follow its start, until it ends.
    assert all(any(s <= t < s + 0.5 for s in inside) for t in times.round(3))
  other = tuple(word | {"start": word["start"] + 0.25} for word in words)
  first, second = (made(tracker, video, words=w) for w in (words, other))
  assert np.abs(first - second).max() > 0


def _windows(tracker):
  rate = tracker.codec.config.latent_rate
  return Windows.cover(int(2.7 * rate), length=round(rate))


SRT = """1
00:00:01,000 --> 00:00:02,000
<i>Hello</i> you &amp; me

2
00:01:00,500 --> 00:01:01,500
there
"""
VTT = """WEBVTT

00:01.000 --> 00:03.000 align:start
Good <00:02.500>morning
"""
WHISPER = {
  "text": "a b",
  "segments": [
    {"text": " a b", "words": [
      {"word": " a", "start": 0.5, "end": 0.7},
      {"word": " b", "start": 0.8, "end": 1},
    ]},
    {"text": "c", "start": 2, "end": 3},
  ],
}  # fmt: skip


@pytest.mark.parametrize(
  "text,expected",
  [
    (SRT, [("Hello", 1.0), ("you", 1.4), ("&", 1.667), ("me", 1.8),
           ("there", 60.5)]),
    ("\ufeff" + SRT.replace("\n", "\r\n"), 5),
    (VTT, [("Good", 1.0), ("morning", 2.5)]),
    (json.dumps(WHISPER), [("a", 0.5), ("b", 0.8), ("c", 2.0)]),
    ('[{"word": "hi", "start": 2}]', [("hi", 2.0)]),
  ],
)  # fmt: skip
def test_words_with_times_are_read(text, expected):
  found = [(w["word"], w["start"]) for w in transcripts.parse(text)]
  assert (
    len(found) == expected if isinstance(expected, int) else (found == expected)
  )
  Request(words=transcripts.parse(text))


@pytest.mark.parametrize(
  "text", ["", "hello", "{", "{}", '[{"word": "x"}]', "[1]", "[" * 100_000]
)
def test_what_has_no_words_is_refused(text):
  with pytest.raises(transcripts.TranscriptError):
    transcripts.parse(text)


@pytest.mark.parametrize(
  "fields,words",
  [
    (dict(prompts=((2, 1, "x"),)), "is not a span in seconds"),
    (dict(prompts=((0, 1, "x"),) * 17), "17 spans, at most 16"),
    (dict(words=({"word": "x"},)), "is not an entry such as"),
    (dict(words=({"word": "a", "start": 2}, {"word": "b", "start": 1})),
     "'b' starts at 1 s, before the one before it"),
    (dict(words=({"word": "a", "start": 0},), transcript="a"), "choose one"),
    (dict(retries=2, speech=True), "retries=2 rejects nothing"),
    (dict(rank_by=("beauty",)), "rank_by='beauty' is not one of motion_onset"),
    (dict(rank_by=("quality", "quality")), "quality, quality: each score once"),
    (dict(rank_by=("like",)), "rank_by=like needs the sound"),
    (dict(rank_by=("prompt",), clap="x"), "rank_by=prompt needs the words"),
    (dict(rank_by=("prompt",), prompt="x"), "needs the folder of LAION's CLAP"),
    (dict(like_strength=0.5), "like_strength needs the sound"),
    (dict(like="a.wav", like_strength=0.0), "like_strength=0.0 is not in"),
    (dict(seed=2**32 - 7, retries=1), "needs seeds up to"),
  ],
)  # fmt: skip
def test_a_request_that_contradicts_itself_is_refused(fields, words):
  with pytest.raises(SettingError, match=words.replace("[", r"\[")):
    Request(**fields)


def test_a_diffusion_model_begins_from_a_sound(
  tracker,
  teller,
  video,
  tmp_path,  # noqa: F811
):
  rng = np.random.default_rng(0)
  sound = 0.3 * rng.standard_normal((round(2.7 * RATE), 1))
  path = media.write_wav(tmp_path / "like.wav", sound, RATE)
  ask = dict(like=str(path), rank_by=("motion_onset",))
  coded = tracker.reconstruct(np.clip(sound, -1, 1)[None].astype(np.float32))
  free = made(tracker, video)
  distance = lambda x, y: float(np.square(x - y[: len(x)]).mean())
  far = [
    distance(made(tracker, video, like_strength=s, **ask), coded[0])
    for s in (0.02, 1.0)
  ]
  assert far[0] < 0.1 * far[1]
  anew = made(tracker, video, like_strength=1.0, **ask)
  assert np.abs(anew - free).max() < 1e-3 * np.abs(free).max() + 1e-6
  with pytest.raises(SettingError, match="a diffusion model does"):
    made(teller, video, like_strength=0.5, **ask)


@pytest.fixture(scope="module")
def recordings():
  """Dogs at seeds 0 and 2, people who read aloud at 1 and 3; with Silero."""
  _need("silero")
  names = (
    "esc10/karoldvl_ESC-10__dog_bark__1-100032-A.ogg",
    "ljspeech/coqui-ai_TTS__LJ001-0001.ogg",
    "esc10/karoldvl_ESC-10__dog_bark__1-110389-A.ogg",
    "ljspeech/coqui-ai_TTS__LJ001-0002.ogg",
  )
  if not SOUNDS.is_dir():
    pytest.skip("../shared/clips is not here")
  return [SOUNDS / name for name in names]


def test_the_score_prefers_sound_that_starts_with_the_picture():
  rng = np.random.default_rng(0)
  rate, times = 16_000, np.arange(100) / 25
  frames = np.full((100, 16, 16, 3), 90, np.uint8)
  hits = [0.8, 1.9, 2.3, 3.3]
  samples = rng.normal(0, 1e-4, (4 * rate, 1))
  for hit in hits:
    near = np.abs(times - hit) < 0.05
    frames[near, 4:12, 4:12] = 250
    at = int(hit * rate)
    burst = rng.normal(0, 0.3, 1600) * np.exp(-np.arange(1600) / 300)
    samples[at : at + 1600, 0] += burst
  motion = ranking.Motion.of(frames, times)
  good = ranking.motion_onset(samples, rate, motion)
  late = np.roll(samples, int(0.4 * rate), axis=0)
  assert good > 0.3
  assert good > ranking.motion_onset(late, rate, motion) + 0.2
  silence = np.zeros_like(samples)
  assert ranking.motion_onset(silence, rate, motion) == 0.0


def test_candidates_with_unwanted_speech_are_made_anew(recordings, video):  # noqa: F811
  request = Request(num_candidates=2, retries=3, speech=False)
  picture = media.read_video(video, max_fps=10.0, size=(16, 16))
  motion = ranking.Motion.of(picture.frames, picture.times)
  against = scoring.Against(motion=motion)

  def make(seed: int, count: int):
    return [
      selection.judged(
        media.read_audio(recordings[s % 5], sample_rate=RATE).samples,
        RATE,
        s,
        request=request,
        against=against,
      )
      for s in range(seed, seed + count)
    ]

  taken, rows = selection.select(make, request)
  # The second candidate has seed 1, then 3, which both speak, then 5.
  assert {take.seed for take in taken} == {0, 5}
  assert not any(take.rejected for take in taken)
  assert taken[0].score >= taken[1].score
  assert [row["seed"] for row in rows] == [1, 3]
  assert all(row["rejected"] and row["heard"]["speech"] > 1 for row in rows)
  # One after another they are the same, so that the page's command is true.
  singles = list(selection.one_by_one(make, request))
  assert [take.seed for take, _ in singles] == [0, 5]
  assert [row["seed"] for _, rows in singles for row in rows] == [1, 3]
  one, two = selection.one_by_one(make, dataclasses.replace(request, retries=1))
  assert one[0].seed == 0 and one[1] == []
  assert two[0].rejected and {two[0].seed, two[1][0]["seed"]} == {1, 3}


def test_speech_that_stays_is_delivered_and_said(
  tracker,
  recordings,
  video,
  tmp_path,  # noqa: F811
):
  speech = str(recordings[1])
  ask = dict(num_candidates=1, audio=speech, speech=False, retries=1)
  done = tracker(video, **ask).save(tmp_path)
  sidecar = json.loads(done.sidecar.read_text())
  (row,) = sidecar["candidates"]
  assert row["rejected"] and row["heard"]["speech"] > 1
  assert [r["rejected"] for r in sidecar["rejected"]] == [True]
  assert sidecar["ranked_by"] == "motion_onset"
  assert sidecar["chosen_by"].keys() == {"motion_onset", "no_speech"}
  # Also where takes are made one by one.
  (one,) = tracker.stream(video, **ask)
  one = one.save(tmp_path / "one", mark=False, sign=False)
  sidecar = json.loads(one.sidecar.read_text())
  assert sidecar["chosen_by"].keys() == {"motion_onset", "no_speech"}


def test_several_scores_rank_by_the_mean_of_their_ranks():
  rows = [
    {"motion_onset": 0.9, "no_music": 0.1},
    {"motion_onset": 0.5, "no_music": 0.9},
    {"motion_onset": 0.1, "no_music": 0.5},
  ]
  names = ("motion_onset", "no_music")
  assert scoring.combined(rows, names[:1]) == [0.9, 0.5, 0.1]
  assert scoring.combined(rows, names) == [0.5, 0.75, 0.25]


def test_speech_and_likeness_are_heard_in_real_recordings():
  """With the published networks, where their weights are."""
  _need("silero", "mn04")
  rng = np.random.default_rng(0)
  noise = 0.1 * rng.standard_normal((4 * RATE, 1)).astype(np.float32)
  hum = 0.3 * np.sin(2 * np.pi * 120 * np.arange(4 * RATE) / RATE)
  hum = hum[:, None].astype(np.float32)
  assert unwanted.amount("speech", noise, RATE) < unwanted.SPEECH_SECONDS
  assert 0 <= unwanted.amount("music", noise, RATE) <= 1
  assert unwanted.similarity(noise, noise, RATE) == pytest.approx(1, abs=1e-5)
  other = 0.05 * rng.standard_normal((3 * RATE, 1)).astype(np.float32)
  near = unwanted.similarity(noise, other, RATE)
  assert near > unwanted.similarity(noise, hum, RATE) + 0.1


def test_takes_are_streamed_and_each_can_be_made_again(tracker, video):
  ask = dict(prompt="rain", num_candidates=2, seed=7)
  stream = tracker.stream(video, **ask)
  first = next(stream)
  assert first.best.seed == 7 and len(first.candidates) == 1
  second, *rest = stream
  assert second.best.seed == 8 and not rest
  again = tracker(video, **vars(second.request))
  np.testing.assert_array_equal(again.best.samples, second.best.samples)


def test_the_mark_is_in_a_mix_with_the_original(tracker, tmp_path):
  """With a voice in the video that is louder than the new sound."""
  rng = np.random.default_rng(0)
  clip = tmp_path / "clip.mp4"
  frames = rng.integers(0, 255, (30, 16, 16, 3), dtype=np.uint8)
  voice = 0.1 * rng.standard_normal((3 * RATE, 1))
  media.encode_video(
    frames, fps=10, path=clip, audio=voice.clip(-1, 1), sample_rate=RATE
  )
  takes = tracker(clip, num_candidates=1)
  done = takes.save(tmp_path / "out", original="duck", loudness=-23.0)
  (row,) = done.rows
  assert row["watermark"]["found"]
  assert row["video_loudness_lufs"] == pytest.approx(-23.0, abs=0.5)


def test_layers_are_made_apart_and_their_stems_add_up(tracker, video, tmp_path):
  layers = (("effects", "a hammer"), ("music", "rain"))
  ask = dict(num_candidates=1, seed=3)
  takes = tracker(video, layers=layers, **ask)
  parts = takes.best.layers
  total = sum(parts.values())
  np.testing.assert_allclose(takes.best.samples, total, atol=1e-6)
  alone = tracker(
    video, prompt="rain", speech=False, music=True, effects=False, **ask
  )
  gain = np.abs(parts["music"]).max() / np.abs(alone.best.samples).max()
  np.testing.assert_allclose(
    parts["music"], gain * alone.best.samples, atol=1e-5
  )
  done = takes.save(tmp_path, loudness=-30.0, mark=False)
  (row,) = done.rows
  assert set(row["stems"]) == {"effects", "music"}
  read = lambda name: (
    media.read_audio(done.sidecar.with_name(name), sample_rate=48_000).samples
  )
  stems = sum(read(name) for name in row["stems"].values())
  np.testing.assert_allclose(stems, read(row["wave"]), atol=2e-3)


def test_long_layers_and_kept_sound_are_on_disk(
  tracker,
  video,  # noqa: F811
  tmp_path,
  monkeypatch,
):
  monkeypatch.setattr(scratch, "LARGE", 1)
  media.write_wav(tmp_path / "a.wav", np.full((RATE, 1), 0.1), RATE)

  def on_disk(array) -> bool:
    while array is not None and not isinstance(array, np.memmap):
      array = array.base
    return array is not None

  layers = (("effects", "a hammer"), ("music", "rain"))
  take = tracker(video, layers=layers, num_candidates=1).best
  assert all(map(on_disk, (take.samples, *take.layers.values())))
  take = tracker(video, audio=str(tmp_path / "a.wav"), num_candidates=1).best
  assert on_disk(take.samples)


@pytest.mark.parametrize(
  "fields,words",
  [
    (dict(layers=(("drums", ""),)), "layers='drums' is not one of effects"),
    (dict(layers=(("music", ""), ("music", "x"))), "each kind once"),
    (dict(layers=("music",)), "is not a kind and a prompt"),
    (dict(layers=(("music", ""),), prompt="rain"), "prompts of their own"),
    (dict(layers=(("music", ""),), transcript="hi"), "the layer speech"),
  ],
)
def test_layers_that_cannot_be_made_are_refused(fields, words):
  with pytest.raises(SettingError, match=words):
    Request(**fields)
