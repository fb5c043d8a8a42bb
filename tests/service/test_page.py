"""The story of a user in a real browser, from upload to downloaded file."""

import json
import time
import zipfile

import numpy as np
import pytest

from tests.accessibility import assert_accessible
from v2a_jax import media, watermark
from v2a_jax.soundtrack import provenance


@pytest.fixture
def page(browser, served, tmp_path):
  """The page in Chromium, which downloads to `tmp_path`."""
  browser.set_window_size(1280, 1000)
  browser.get(served.url + "/")
  browser.execute_script("localStorage.clear()")
  browser.execute_cdp_cmd(
    "Browser.setDownloadBehavior",
    {"behavior": "allow", "downloadPath": str(tmp_path)},
  )
  browser.get_log("browser")
  browser.get(served.url + "/")
  wait(browser, "return document.querySelector('#model_name').textContent")
  return browser


def wait(browser, script: str, seconds: float = 60.0):
  """Waits until a script returns something, and returns that."""
  deadline = time.monotonic() + seconds
  while True:
    if found := browser.execute_script(script):
      return found
    said = browser.execute_script("return $('said').textContent")
    assert time.monotonic() < deadline, f"{script}: the page says {said!r}"
    time.sleep(0.05)


def press(browser, *keys) -> None:
  from selenium.webdriver.common.action_chains import ActionChains

  ActionChains(browser).send_keys(*keys).perform()


def fill(browser, **values) -> None:
  for name, value in values.items():
    browser.execute_script(
      "const e = $(arguments[0]); e.value = arguments[1];"
      "e.dispatchEvent(new Event('change'))",
      name,
      str(value),
    )


def make(browser, clip, **values) -> None:
  """Uploads the clip, asks for takes and waits until they can be heard."""
  browser.find_element("id", "file").send_keys(str(clip))
  wait(browser, "return !$('go').disabled")
  fill(browser, num_steps=2, **values)
  browser.find_element("id", "go").click()
  count = values.get("num_candidates", 4)
  ready = "#takes li[data-ready]"
  wait(
    browser, f"return document.querySelectorAll('{ready}').length == {count}"
  )


def download(browser, folder):
  """Downloads the kept takes to a folder; returns the zip file."""
  browser.find_element("id", "export").click()
  path = folder / "a door.zip"
  deadline = time.monotonic() + 30
  while not path.exists():
    said = browser.execute_script("return $('said').textContent")
    assert time.monotonic() < deadline, f"{said!r}, {list(folder.iterdir())}"
    time.sleep(0.1)
  return path


def drag(browser, take: int, begin: float, end: float) -> None:
  """Drags over a take, from and to shares of its width."""
  from selenium.webdriver.common.action_chains import ActionChains

  wave = browser.find_elements("css selector", "#takes .wave")[take]
  browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", wave)
  x = lambda share: round((share - 0.5) * wave.size["width"])
  chain = ActionChains(browser, duration=50)
  chain.move_to_element_with_offset(wave, x(begin), 0).click_and_hold()
  chain.move_by_offset(x(end) - x(begin), 0).release().perform()


GAINS = "return state.takes.map((t) => t.gain ? t.gain.gain.value : -1)"


def test_from_upload_to_download(page, served, clip, tmp_path):
  hostile = '<img src=x onerror="document.title=1"> rain'
  make(page, clip, num_candidates=2, prompt=hostile, seed=5)
  assert page.title == "v2a: sound for video"
  shown = page.find_element("id", "command").get_attribute("textContent")
  assert shown.startswith("v2a generate 'a door.mp4' -o out -p '<img")
  assert "--num_steps=2" in shown and "--loudness=-23" in shown

  # One playhead; keys switch what is heard at once.
  page.find_element("tag name", "body").click()
  press(page, " ")
  wait(page, "return state.playing && position() > 0.2")
  press(page, "2")
  wait(page, "return state.takes[1].gain?.gain.value > 0.99")
  assert page.execute_script(GAINS)[0] < 0.01
  press(page, "1")
  wait(page, "return state.takes[0].gain?.gain.value > 0.99")
  heads = page.execute_script(
    "return state.takes.map((t) => t.head.style.left)"
  )
  assert len(set(heads)) == 1
  press(page, " ")
  wait(page, "return !state.playing")
  where = page.execute_script("return position()")
  press(page, "\ue014")  # the right arrow
  moved = page.execute_script("return position()")
  assert moved == pytest.approx(where + 0.04, abs=1e-3) or moved == 0.04
  picture = page.execute_script("return $('video').currentTime")
  assert picture == pytest.approx(moved, abs=0.05)

  # A span, by dragging, of the second take is made anew.
  press(page, "2")
  drag(page, 1, 0.25, 0.5)
  chosen = page.execute_script("return state.selection")
  assert chosen == pytest.approx([0.5, 1.0], abs=0.03)
  press(page, "r")
  wait(
    page,
    "return document.querySelectorAll('#takes li[data-ready]').length == 3",
  )
  second, third = page.execute_script("""
    const get = (t) => Array.from(t.buffer.getChannelData(0));
    return [get(state.takes[1]), get(state.takes[2])]""")
  rate = len(second) // 2
  differ = lambda a, b: max(
    abs(x - y)
    for x, y in zip(second[int(a * rate) : int(b * rate)],
                    third[int(a * rate) : int(b * rate)])
  )  # fmt: skip
  assert differ(0.6, 0.9) > 0 and len(second) == len(third)

  # What is kept is there after the page is loaded again, and downloaded.
  press(page, "3", "k")
  wait(page, "return state.takes[2].kept && !$('exporting').disabled")
  page.refresh()
  ready = "#takes li[data-ready]"
  wait(page, f"return document.querySelectorAll('{ready}').length == 3")
  assert sum(page.execute_script("return state.takes.map((t) => t.kept)")) == 1
  fill(page, container="mov", audio_codec="pcm", timeline="edl")
  with zipfile.ZipFile(download(page, tmp_path)) as archive:
    archive.extractall(tmp_path / "got")
    names = {name.rpartition(".")[2] for name in archive.namelist()}
  assert names == {"mov", "wav", "json", "edl"}
  (mov,) = (tmp_path / "got").rglob("*.mov")
  assert media.video_packets_digest(mov) == media.video_packets_digest(clip)
  heard = media.read_audio(mov, sample_rate=48_000).samples
  found = watermark.detect(heard, 48_000)
  assert found.found and len(heard) == 2 * 48_000
  # The payload leads to the job in the audit log.
  (sidecar,) = (tmp_path / "got").rglob("*.json")
  text = sidecar.read_text()
  assert str(served.root) not in text
  payload = json.loads(text)["delivery"]["payload"]
  job = page.execute_script("return state.takes.find((t) => t.kept).job")
  (exported,) = [
    row
    for row in served.audit()
    if row["event"] == "export" and row["job"] == job
  ]
  assert exported["payload"] == payload == found.payload
  quiet(page, served)


def quiet(browser, served) -> None:
  """Nothing was asked of other servers, and no script failed."""
  for entry in browser.get_log("browser"):
    assert entry["level"] != "SEVERE", entry["message"]
  urls = browser.execute_script(
    "return performance.getEntriesByType('resource').map((e) => e.name)"
  )
  own = (served.url, f"blob:{served.url}", "data:")
  assert not [url for url in urls if not url.startswith(own)]


def test_detect_tab_and_model_card(page, served, clip, tmp_path):
  page.find_element("css selector", "[data-view=detect]").click()
  rng = np.random.default_rng(0)
  sound = 0.1 * rng.standard_normal((3 * 16_000, 1))
  marked = watermark.embed(sound, 16_000, payload=77)
  media.write_wav(tmp_path / "marked.wav", marked, 16_000)
  page.find_element("id", "suspect").send_keys(str(tmp_path / "marked.wav"))
  verdict = "return $('verdict').textContent"
  wait(page, verdict + ".includes('watermark found')")
  assert "payload 77" in page.execute_script(verdict)
  assert "signed" not in page.execute_script(verdict)
  # The same name again, now signed.
  provenance.signer().sign(tmp_path / "marked.wav", {})
  page.execute_script("$('suspect').dispatchEvent(new Event('click'))")
  page.find_element("id", "suspect").send_keys(str(tmp_path / "marked.wav"))
  signed = f"It is signed by '{provenance.NOBODY}' with v2a_jax"
  wait(page, verdict + f".includes({json.dumps(signed)})")
  page.find_element("id", "suspect").send_keys(str(clip))
  wait(page, verdict + ".includes('no watermark of this key')")
  assert_accessible(page)
  page.find_element("css selector", "[data-view=model]").click()
  card = page.find_element("id", "card")
  assert card.is_displayed() and "M parameters" in card.text
  assert_accessible(page)


def test_layers_are_made_apart_and_downloaded_as_stems(page, clip, tmp_path):
  opened = "document.querySelectorAll('details').forEach((d) => d.open = true)"
  page.execute_script(opened)
  assert_accessible(page)
  effects, _, music, _ = page.find_elements("css selector", ".layer")
  effects.find_element("css selector", "[data-layer]").click()
  named = "input[aria-label='Prompt of the layer music']"
  music.find_element("css selector", named).send_keys("slow strings")
  assert not page.find_element("id", "prompt").is_enabled()
  make(page, clip, num_candidates=1)
  shown = page.find_element("id", "command").text
  assert "--layer effects: --layer 'music:slow strings'" in shown
  take = page.find_element("css selector", "#takes li")
  assert "seed 0 · effects + music · " in take.text
  take.find_element("css selector", ".keep").click()
  wait(page, "return !$('exporting').disabled")
  assert_accessible(page)
  with zipfile.ZipFile(download(page, tmp_path)) as archive:
    names = {name.rpartition("_s0000")[2] for name in archive.namelist()}
  assert {".mp4", ".wav", "__effects.wav", "__music.wav"} <= names
  # Without layers the prompt counts again.
  for kind in (effects, music):
    kind.find_element("css selector", "[data-layer]").click()
  fill(page, prompt="rain")
  asked = page.execute_script("return request()")
  assert asked["prompt"] == "rain" and asked["layers"] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_can_be_used_without_a_mouse(page, clip, width):
  page.set_window_size(max(width, 500), 1000)
  page.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride",
    {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
  )
  try:
    make(page, clip, num_candidates=1)
    wide = page.execute_script(
      "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert wide[0] <= wide[1] == width
    # Everything that can be used has a name, and is reached by the tab key.
    unnamed = page.execute_script("""
      return [...document.querySelectorAll("button, input, select, textarea, video")]
        .filter((e) => e.offsetParent && !(e.getAttribute("aria-label")
          || e.labels?.length || e.textContent.trim()))
        .map((e) => e.outerHTML)""")
    assert unnamed == []
    seen = set()
    for _ in range(60):
      press(page, "\ue004")  # tab
      seen.add(page.execute_script("return document.activeElement.id"))
    assert {"file", "prompt", "go", "play", "seek", "from", "to"} <= seen
  finally:
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
