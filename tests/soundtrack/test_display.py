"""What a notebook shows of takes: players, seeds, scores, and no code."""

import base64
from fractions import Fraction
from html.parser import HTMLParser
import pathlib

import numpy as np
import pytest

from v2a_jax import media, watermark
from v2a_jax.soundtrack import display
from v2a_jax.soundtrack.request import Request
from v2a_jax.soundtrack.takes import Soundtrack, Soundtracks

RATE = 16_000
HOSTILE = "</td><script>alert('x')</script><img src=x onerror=\"y\">&amp;"


class Page(HTMLParser):
  """The elements, texts and sounds of what is shown."""

  def __init__(self, page: str):
    super().__init__()
    self.tags, self.attributes, self.sounds, self.text = [], set(), [], ""
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes |= {name for name, _ in attrs}
    if tag == "audio":
      kind, data = dict(attrs)["src"].split(",")
      assert kind == "data:audio/flac;base64"
      self.sounds.append(media.decode_flac(base64.b64decode(data)))

  def handle_data(self, data):
    self.text += data


def take(seed, *, seconds=2.0, channels=1, rate=RATE, **more):
  rng = np.random.default_rng(seed)
  size = (round(seconds * rate), channels)
  samples = rng.uniform(-0.5, 0.5, size).astype(np.float32)
  return Soundtrack(
    samples=samples,
    sample_rate=rate,
    seed=seed,
    score=0.0,
    scores={"motion_onset": seed / 8},
    **more,
  )


def takes(*candidates, name="clip.mp4", **request):
  return Soundtracks(
    video=pathlib.Path("folder") / name,
    request=Request(**request),
    candidates=candidates,
    model={},
    seconds=Fraction(2),
  )


def test_every_take_can_be_heard_with_its_seed_and_scores():
  made = takes(take(5), take(3, channels=2, rejected=True), prompt="rain")
  page = Page(made._repr_html_())
  assert "rain" in page.text and "clip.mp4" in page.text
  for shown in ("5", "0.625", "3 (rejected)", "0.375", "motion_onset"):
    assert shown in page.text
  for candidate, (sound, rate) in zip(
    made.candidates, page.sounds, strict=True
  ):
    assert rate == RATE and sound.shape == candidate.samples.shape
    assert np.corrcoef(sound[:, 0], candidate.samples[:, 0])[0, 1] > 0.9
    assert watermark.detect(sound, rate).found
  alone = Page(made.best._repr_html_())
  np.testing.assert_array_equal(alone.sounds[0][0], page.sounds[0][0])


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "transcript"])
def test_what_users_write_is_text(field):
  made = takes(take(1, seconds=0.5), name='<b onclick="z">.mp4')
  plain = Page(made._repr_html_())
  made = takes(take(1, seconds=0.5), **{field: HOSTILE})
  page = Page(made._repr_html_())
  assert HOSTILE in page.text and '<b onclick="z">.mp4' in plain.text
  for shown in (page, plain):
    assert set(shown.tags) <= {
      *("div", "b", "br", "table", "tr", "th", "td", "audio", "code")
    }
    assert shown.attributes == {"controls", "preload", "src"}


def test_many_long_takes_are_of_bounded_size(monkeypatch):
  monkeypatch.setattr(display, "SOUND_BYTES", 2**19)
  long = [take(i, seconds=2, channels=2) for i in range(20)]
  html = takes(*long, prompt="x" * 100_000)._repr_html_()
  assert len(html) < 1.4 * display.SOUND_BYTES
  page = Page(html)
  assert len(page.sounds) == 16 and "4 more are in candidates" in page.text
  assert all(len(sound) == 8192 for sound, _ in page.sounds)
  assert "the first 0.5 of 2.0 s" in page.text
