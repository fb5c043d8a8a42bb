import re

import numpy as np

from data_pipelines import build, report
from data_pipelines.clips import ClipOptions
from v2a_jax import media

RATE = 16_000


def test_the_page_names_what_is_suspicious_and_plays_it(tmp_path):
  frames = np.zeros((20, 32, 48, 3), np.uint8)
  hum = 0.1 * np.sin(np.arange(2 * RATE) * 0.1)[:, None].astype(np.float32)
  for name, audio in {
    "fine": hum,
    "mute & <b>": 0 * hum,
    "loud": np.sign(hum),
  }.items():
    media.encode_video(
      frames,
      fps=10,
      path=tmp_path / f"{name}.mp4",
      audio=audio,
      sample_rate=RATE,
      audio_codec="flac",
    )
  media.write_wav(tmp_path / "beep.wav", hum[: RATE // 2], RATE)
  (tmp_path / "empty.mp4").touch()
  (tmp_path / "c.csv").write_text("file,caption\nfine,A <hum>\nloud,Loud\n")
  build.build_folder(
    tmp_path,
    out=tmp_path / "ds",
    captions_csv=tmp_path / "c.csv",
    options=ClipOptions(allow_audio_only=True),
    log=lambda _: None,
  )
  page = report.write_report(tmp_path / "ds", num=3).read_text()
  assert "A &lt;hum&gt;" in page and "<hum>" not in page
  assert "5 items = 4 kept + 1 dropped" in page
  assert "is empty (0 bytes)" in page
  suspicious, random = page.split("<h2>Suspicious")[1].split("<h2>At random")
  assert {f: suspicious.count(f">{f}<") for f in ("silent", "clipped")} == {
    "silent": 1,
    "clipped": 1,
  }
  assert suspicious.count(">no caption<") == 2 and ">short<" in suspicious
  assert suspicious.count('class="card"') == random.count('class="card"') == 3
  # Nothing is fetched from anywhere.
  sources = re.findall(r'(?:src|href)="([^"]{5})', page)
  assert sources and set(sources) == {"data:"}


def test_measured_levels():
  record = {
    "id": "a",
    "video": b"",
    "duration": 2.0,
    "caption": "x",
    "audio_caption": "",
  }
  tone = 0.5 * np.sin(np.arange(RATE) * 2 * np.pi * 100 / RATE)[:, None]
  record["audio"] = media.encode_flac(tone.astype(np.float32), RATE)
  stats = report.measure(3, record)
  np.testing.assert_allclose(
    [stats.peak, stats.level], [-6.02, -9.03], atol=0.01
  )
  assert stats.faults == ("no picture",)
  record["audio"] = b"garbage"
  assert report.measure(3, record).faults[0].startswith("cannot be decoded")


def test_histogram():
  bars = report.histogram([1.0, 1.0, 2.0, float("-inf")], bins=2, unit="s")
  assert [(n, share) for _, n, share in bars] == [(2, 1.0), (1, 0.5)]
  assert report.histogram([3.0, 3.0], unit="s")[0][1] == 2
  assert report.histogram([], unit="s") == []
