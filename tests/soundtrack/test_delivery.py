"""What a sound editor gets: level, peak, rate, time code, mix, timelines."""

from fractions import Fraction
import json
import struct
import zipfile

import av
import numpy as np
import pytest

from v2a_jax import media, watermark
from v2a_jax.soundtrack import delivery, loudness, places
from v2a_jax.soundtrack.options import DeliveryOptions
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks

FPS, SECONDS, RATE = 25, 4, 16_000


def measured(path) -> tuple[float, float]:
  """Loudness and true peak of a file's sound, by FFmpeg's own meter."""
  with av.open(str(path)) as container:
    stream = container.streams.audio[0]
    graph = av.filter.Graph()
    source = graph.add_abuffer(template=stream)
    meter = graph.add("ebur128", "peak=true:metadata=1")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found = {}

    def pull():
      while True:
        try:
          found.update(sink.pull().metadata)
        except (av.BlockingIOError, av.EOFError):
          return

    for frame in container.decode(stream):
      source.push(frame)
      pull()
    source.push(None)
    pull()
  peak = float(found["lavfi.r128.true_peak"])
  return float(found["lavfi.r128.I"]), 20 * np.log10(peak)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
  """A video with a time code, and somebody who speaks from 1 s to 2 s."""
  path = tmp_path_factory.mktemp("films") / "shot 7.mov"
  rng = np.random.default_rng(0)
  voice = np.zeros((48_000 * SECONDS, 1), np.float32)
  voice[48_000 : 2 * 48_000] = 0.1 * rng.standard_normal((48_000, 1))
  with av.open(str(path), "w") as container:
    video = container.add_stream("libx264", rate=FPS)
    video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
    video.metadata["timecode"] = "10:00:00:00"
    audio = container.add_stream("pcm_s24le", rate=48_000, layout="mono")
    for i in range(FPS * SECONDS):
      pixels = np.full((32, 32, 3), 2 * i, np.uint8)
      container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
    container.mux(video.encode(None))
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(voice.T), format="fltp", layout="mono"
    )
    frame.sample_rate = 48_000
    container.mux(audio.encode(frame))
    container.mux(audio.encode(None))
  return path


@pytest.fixture(scope="module")
def takes(film):
  """Steps on a quiet floor: much peak for little loudness."""
  rng = np.random.default_rng(1)
  candidates = []
  for seed in (7, 9):
    sound = 0.003 * rng.standard_normal((RATE * SECONDS, 1))
    for hit in range(6):
      begin = int((0.2 + 0.6 * hit) * RATE)
      fall = np.exp(-np.arange(1600) / 200)[:, None]
      sound[begin : begin + 1600] += fall * rng.standard_normal((1600, 1)) / 4
    candidates.append(
      Soundtrack(
        samples=np.clip(sound, -1, 1).astype(np.float32),
        sample_rate=RATE,
        seed=seed,
        score=1.0 / seed,
      )
    )
  return Soundtracks(
    video=film,
    request=Request(prompt="steps on gravel", num_candidates=2),
    candidates=tuple(candidates),
    model={"checkpoint": {"path": "x"}},
    seconds=Fraction(SECONDS),
  )


@pytest.mark.parametrize(
  "options",
  [
    dict(loudness=-23.0),
    dict(loudness=-16.0, container="mov", audio_codec="pcm"),
    dict(loudness=-14.0, true_peak=-2.0, audio_codec="flac", keep=1),
  ],
  ids=str,
)
def test_level_and_true_peak_are_those_asked_for(takes, tmp_path, options):
  done = takes.save(tmp_path, payload=0xBEEF, **options)
  assert len(done.videos) == options.get("keep", 2)
  for path in (*done.waves, *done.videos):
    found, peak = measured(path)
    assert found == pytest.approx(options["loudness"], abs=0.5)
    assert peak <= options.get("true_peak", -1.0) + 0.01  # of its meter
    info = media.probe(path)
    assert info.sample_rate == 48_000
    heard = media.read_audio(path, sample_rate=48_000).samples
    assert len(heard) == SECONDS * 48_000
    mark = watermark.detect(heard, 48_000)
    assert mark.found and mark.payload == 0xBEEF
  for row in done.rows:
    assert row["loudness_lufs"] == pytest.approx(options["loudness"], abs=0.1)
    assert row["watermark"]["found"]
    for name in ("true_peak_dbtp", "video_true_peak_dbtp"):
      assert row[name] <= options.get("true_peak", -1.0)
  for path in done.videos:
    assert media.video_packets(path) == media.video_packets(takes.video)
    assert media.probe(path).timecode == "10:00:00:00"


def test_the_wave_is_at_the_time_of_the_picture(takes, tmp_path):
  done = takes.save(tmp_path)
  head = done.waves[0].read_bytes()[:4000]
  bext = head[head.index(b"bext") + 8 :]
  assert bext.startswith(b"shot 7.mov steps on gravel\0")
  (since,) = struct.unpack("<Q", bext[338:346])
  assert since == 10 * 3600 * 48_000
  assert b"<TAKE>1</TAKE>" in head and b"<SCENE>shot 7</SCENE>" in head
  assert media.probe(done.waves[0]).audio_codec == "pcm_s24le"


def _db(samples, start, end) -> float:
  part = samples[round(start * 48_000) : round(end * 48_000)]
  return 10 * np.log10(np.square(part, dtype=np.float64).mean() + 1e-12)


def test_the_new_sound_goes_under_the_original(takes, film, tmp_path):
  read = lambda path: media.read_audio(path, sample_rate=48_000).samples
  dry = dict(mark=False, keep=1, audio_codec="pcm", container="mov")
  alone = read(takes.save(tmp_path / "0", **dry).waves[0])
  voice = read(film)
  for mode, down in (("mix", 0.0), ("duck", 20.0)):
    done = takes.save(tmp_path / mode, original=mode, duck=20.0, **dry)
    mixed = read(done.waves[0])
    added = mixed - voice
    # Where the voice is, and long after it; a step begins at 1.4 s, at 3.2 s.
    assert _db(added, 1.2, 1.8) == pytest.approx(
      _db(alone, 1.2, 1.8) - down, abs=0.2
    )
    assert _db(added, 2.7, 3.9) == pytest.approx(_db(alone, 2.7, 3.9), abs=0.2)
    stem = done.sidecar.with_name(done.rows[0]["stems"]["new"])
    assert np.abs(read(stem) - alone).max() < 1e-6
    assert np.abs(read(done.videos[0]) - mixed).max() < 2**-21


def test_timelines_and_zip_have_what_was_written(takes, film, tmp_path):
  otio = pytest.importorskip("opentimelineio")
  done = takes.save(tmp_path, timeline=("edl", "otio"), zip=True)
  folder = done.sidecar.parent
  edl = (folder / "shot 7.edl").read_text().splitlines()
  assert edl[:2] == ["TITLE: shot 7", "FCM: NON-DROP FRAME"]
  span = "10:00:00:00 10:00:04:00 10:00:00:00 10:00:04:00"
  assert [line for line in edl if line[:3].isdigit()] == [
    f"001  AX       V     C        {span}",
    f"002  AX       A     C        {span}",
  ]
  assert f"* FROM CLIP NAME: {done.waves[0].name}" in edl
  timeline = otio.adapters.read_from_file(str(folder / "shot 7.otio"))
  assert timeline.global_start_time.to_timecode() == "10:00:00:00"
  picture, *sounds = timeline.tracks
  assert [track.enabled for track in sounds] == [True, False]
  assert picture[0].duration().to_seconds() == SECONDS
  urls = [track[0].media_reference.target_url for track in sounds]
  assert urls == [path.name.replace(" ", "%20") for path in done.waves]
  with zipfile.ZipFile(folder / "shot 7.zip") as archive:
    assert archive.testzip() is None
    inside = {name.removeprefix("shot 7/") for name in archive.namelist()}
  assert inside == {p.name for p in folder.iterdir()} - {"shot 7.zip"}


def test_the_same_is_found_again_if_it_is_whole(takes, tmp_path):
  asked = dict(keep=1, original="mix", timeline=("edl",), zip=True, mark=False)

  def find(**other):
    return delivery.existing(
      takes.video,
      takes.request,
      takes.model,
      tmp_path,
      DeliveryOptions(**asked | other),
    )

  assert find() is None
  done = takes.save(tmp_path, **asked)
  assert find() == done.shot
  assert find(loudness=-23.0) is None
  written = sorted(done.sidecar.parent.iterdir())
  assert [path.suffix for path in written] == [
    *(".edl", ".json", ".zip", ".mp4", ".wav", ".wav")
  ]
  for path in written:
    data = path.read_bytes()
    path.unlink()
    assert find() is None, path
    path.write_bytes(data)
  assert find() == done.shot


def test_what_was_not_finished_goes_on_in_its_folder(takes, tmp_path):
  asked = dict(keep=1, mark=False)

  def fail(path):
    raise RuntimeError

  with pytest.raises(RuntimeError):
    takes.save(tmp_path, on_file=fail, **asked)
  (folder,) = tmp_path.iterdir()
  part, own = folder / f".{'0a' * 16}.mp4", folder / ".mine"
  part.touch()
  own.touch()
  other = takes.save(tmp_path, **asked, loudness=-23.0)
  assert other.sidecar.parent.name == "shot 7_2" and part.exists()
  done = takes.save(tmp_path, **asked)
  assert done.sidecar.parent == folder and own.exists()
  assert not part.exists() and not (folder / ".unfinished").exists()


def test_two_processes_do_not_write_into_one_folder(tmp_path):
  with places.writing(tmp_path, "a", {"x": 1}) as first:
    with places.writing(tmp_path, "a", {"x": 1}) as second:
      assert (first.name, second.name) == ("a", "a_2")


def test_another_key_is_another_request(takes, tmp_path, monkeypatch):
  """Also where the key is in the environment."""
  monkeypatch.delenv("V2A_WATERMARK_KEY", raising=False)
  find = lambda key: delivery.existing(
    takes.video,
    takes.request,
    takes.model,
    tmp_path,
    DeliveryOptions(keep=1),
    key=key,
  )
  done = takes.save(tmp_path, keep=1, key="my secret")
  assert find("my secret") == done.shot
  assert find("yours") is None and find(None) is None
  monkeypatch.setenv("V2A_WATERMARK_KEY", "my secret")
  assert find(None) == done.shot
  assert "my secret" not in done.sidecar.read_text()


def test_short_and_silent_sound_is_delivered_without_a_loudness(
  film, takes, tmp_path
):
  silent = Soundtrack(
    samples=np.zeros((RATE // 5, 1), np.float32),
    sample_rate=RATE,
    seed=0,
    score=0.0,
  )
  short = Soundtracks(
    video=film,
    request=Request(duration=0.2),
    candidates=(silent,),
    model={},
    seconds=Fraction(1, 5),
  )
  done = short.save(tmp_path, loudness=-23.0)
  row = json.loads(done.sidecar.read_text())["candidates"][0]
  assert row["loudness_lufs"] is None and row["true_peak_dbtp"] < -40


def test_the_true_peak_is_that_between_the_samples():
  """A sine at a quarter of the rate, sampled 45 degrees off its crests."""
  time = np.arange(48_000)
  sine = np.sin(2 * np.pi * time / 4 + np.pi / 4)[:, None].astype(np.float32)
  assert np.abs(sine).max() == pytest.approx(np.sqrt(0.5), abs=1e-6)
  # Away from its ends, where it is cut off.
  ramp = np.minimum(1, np.minimum(time, time[::-1]) / 4800)[:, None]
  sine = (sine * ramp).astype(np.float32)
  assert loudness.true_peak(sine, 48_000) == pytest.approx(0.0, abs=0.02)
  limited = loudness.limit(sine, 48_000, peak=-6.0)
  assert loudness.true_peak(limited, 48_000) == pytest.approx(-6.0, abs=0.02)
