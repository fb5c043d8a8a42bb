"""The story of a user in a real browser, from upload to downloaded file.

With V2A_SCREENSHOTS=FOLDER pictures of the page are left there, to be looked at.
"""

import base64
import contextlib
import json
import os
import pathlib
import time
import zipfile

import numpy as np
import pytest

from tests.accessibility import VIEWS, assert_accessible, shown_as
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


def wait(browser, script: str, seconds: float = 120.0):
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
      "e.dispatchEvent(new Event('change', {bubbles: true}))",
      name,
      str(value),
    )


def make(browser, clip, **values) -> None:
  """Uploads the clip, asks for takes and waits until they can be heard."""
  browser.find_element("id", "file").send_keys(str(clip))
  wait(browser, "return !$('go').disabled")
  fill(browser, **({"num_steps": 2} | values))
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


@contextlib.contextmanager
def late_answers(browser, job: str):
  """Has what is asked about a job arrive half a second later, on new pages."""
  script = browser.execute_cdp_cmd(
    "Page.addScriptToEvaluateOnNewDocument",
    {
      "source": f"""const fetched = window.fetch;
        window.fetch = async (url, ...rest) => {{
          if (url.includes({json.dumps(job)}))
            await new Promise((go) => setTimeout(go, 500));
          return fetched(url, ...rest);
        }};"""
    },
  )
  yield
  browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def look(browser, name: str) -> None:
  """Leaves pictures of the whole page where $V2A_SCREENSHOTS says."""
  if not (folder := os.environ.get("V2A_SCREENSHOTS")):
    return
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  bars = "Emulation.setScrollbarsHidden"
  for width, scheme in VIEWS:
    browser.execute_cdp_cmd(bars, {"hidden": True})
    with shown_as(browser, width=width, scheme=scheme):
      taken = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True}
      )
    browser.execute_cdp_cmd(bars, {"hidden": False})
    path = pathlib.Path(folder, f"{name}_{width}.png")
    path.write_bytes(base64.b64decode(taken["data"]))


def open_all(browser) -> None:
  browser.execute_script(
    "document.querySelectorAll('details').forEach((d) => d.open = true)"
  )


def told(browser) -> str:
  return browser.execute_script("return $('command').textContent")


GAINS = "return state.takes.map((t) => t.gain ? t.gain.gain.value : -1)"


def test_from_upload_to_download(page, served, clip, tmp_path):
  hostile = '<img src=x onerror="document.title=1"> rain'
  make(page, clip, num_candidates=2, prompt=hostile, seed=5)
  assert page.title == "v2a: sound for video"
  wait(page, "return $('command').textContent.startsWith('# take 1, seed 5')")
  shown = told(page).partition("\n")[2]
  assert shown.startswith("v2a generate 'a door.mp4' -o out -p '<img")
  assert "--num_steps=2" in shown and "--loudness=-23" in shown
  look(page, "takes")

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

  # What is kept is there after the page is loaded again, and downloaded; takes
  # have their numbers, whichever job the service tells of first.
  press(page, "3", "k")
  wait(page, "return state.takes[2].kept && !$('exporting').disabled")
  with late_answers(page, page.execute_script("return state.takes[0].job")):
    page.refresh()
    ready = "#takes li[data-ready]"
    wait(page, f"return document.querySelectorAll('{ready}').length == 3")
  assert sum(page.execute_script("return state.takes.map((t) => t.kept)")) == 1
  fill(page, container="mov", audio_codec="pcm", timeline="edl")
  # The command is that of what is kept, by its seed, as it is downloaded.
  wait(page, "return $('command').textContent.includes('--container mov')")
  (said, line) = told(page).splitlines()
  assert said == "# take 3, seed 7" and "--seed 7 " in line
  assert "--audio 'a door__c01_s0006.wav'" in line and "--regenerate" in line
  assert "--audio_codec pcm" in line and "--timeline edl" in line
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
  assert exported["payload"] == payload
  # Most of it is kept, and has the payload of the job that made that.
  assert found.payload in {row.get("payload") for row in served.audit()}
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
  look(page, "detect")
  # What stays on, and why, is one click away from the switches.
  page.find_element("css selector", "[data-view=make]").click()
  open_all(page)
  page.find_element("id", "why").click()
  card = page.find_element("id", "card")
  assert card.is_displayed() and "M parameters" in card.text
  rows = card.find_elements("css selector", "tbody tr")
  assert any("generated" in row.text for row in rows)
  use = page.find_element("id", "responsible_use")
  assert use.find_element("tag name", "h3").text == "Responsible use"
  assert "Lips need not match" in use.text
  focus = page.execute_script("return document.activeElement.id")
  assert focus == "responsible_use"
  assert_accessible(page)
  look(page, "model")


def test_layers_are_made_apart_and_downloaded_as_stems(page, clip, tmp_path):
  open_all(page)
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


def test_all_that_the_command_can_be_asked_is_on_the_page(page, served, clip):
  open_all(page)
  page.find_element("css selector", "#rank_by [value=no_music]").click()
  page.find_element("id", "shots").click()
  page.find_element("id", "mark").click()
  page.find_element("id", "sign").click()
  page.execute_script("""
    const fields = {video: 2.5, prompt: 3, transcript: 1.5, negative_prompt: 4,
      joint: 1.25};
    for (const [name, value] of Object.entries(fields)) {
      document.querySelector(`[data-guidance=${name}]`).value = value;
    }
    const how = {solver: "heun", shift: 2, guide_from: 0.1, guide_to: 0.9,
      rescale_guidance: 0.5};
    for (const [name, value] of Object.entries(how)) {
      document.querySelector(`[data-sampler=${name}]`).value = value;
    }""")
  # A field that this model has no use for is not offered; defaults are shown.
  field = lambda name: page.find_element(
    "css selector", f"[data-sampler={name}]"
  )
  assert not field("temperature").is_displayed()
  assert field("num_steps").get_attribute("placeholder") == "16"
  page.find_element("id", "file").send_keys(str(clip))
  wait(page, "return !$('go').disabled")
  assert not page.find_element("id", "duck").is_displayed()
  fill(page, original="duck", original_level=-3, duck=9, duration=1.5)
  assert page.find_element("id", "duck").is_displayed()
  look(page, "all_fields")
  assert_accessible(page)
  asked = page.execute_script("return request()")
  assert asked["rank_by"] == ["motion_onset", "no_music"]
  page.find_element("css selector", "#rank_by [value=no_music]").click()
  # What is wrong is shown, also where it was folded away.
  fill(page, num_candidates=1, num_steps=0)
  page.execute_script("$('more').open = false")
  page.find_element("id", "go").click()
  wait(page, "return $('more').open")
  assert not page.execute_script("return state.jobs.size")
  fill(page, num_steps=2)
  page.find_element("id", "go").click()
  line = wait(page, "return [...state.jobs.values()][0]?.command")
  page.find_element("id", "cancel").click()
  wait(page, "return [...state.jobs.values()][0].state == 'cancelled'")
  assert told(page) == line
  for flag in (
    *("--shots", "--duration=1.5", "--solver=heun"),
    *(
      "--guidance_video=2.5",
      "--guidance_prompt=3",
      "--guidance_transcript=1.5",
    ),
    *("--guidance_negative_prompt=4", "--guidance_joint=1.25", "--shift=2"),
    *("--guide_from=0.1", "--guide_to=0.9", "--rescale_guidance=0.5"),
    *("--original duck", "--original_level=-3", "--duck=9", "--num_steps=2"),
    *("--no-watermark", "--no-sign"),
  ):
    assert flag in line, flag


def test_a_sound_of_ones_own_is_mended_and_continued(
  page, served, clip, tmp_path
):
  open_all(page)
  tone = 0.1 * np.sin(2 * np.pi * 300 * np.arange(20_000) / 16_000)
  media.write_wav(tmp_path / "own.wav", tone[:, None], 16_000)
  fill(page, keep_sound="file", loudness="")
  page.find_element("id", "mark").click()
  page.find_element("id", "file").send_keys(str(clip))
  wait(page, "return !$('go').disabled")
  page.find_element("id", "go").click()
  wait(page, "return $('said').textContent.startsWith('choose the file')")
  page.find_element("id", "audio").send_keys(str(tmp_path / "own.wav"))
  wait(page, "return $('said').textContent.includes('own.wav is kept, 1.25 s')")
  page.find_element("id", "anew").send_keys("0.2")
  page.find_element("id", "go").click()
  wait(page, "return $('said').textContent.includes('0.2 is not a span')")
  page.find_element("id", "anew").clear()
  fill(page, **{"from": 0.25, "to": 0.5})
  page.find_element("id", "add_anew").click()
  assert page.execute_script("return $('anew').value") == "0.25-0.5"
  assert_accessible(page)
  page.execute_script("$('num_steps').value = 2; $('num_candidates').value = 1")
  page.find_element("id", "go").click()
  wait(page, "return document.querySelector('#takes li[data-ready]')")
  wait(page, "return $('command').textContent.includes('--audio own.wav')")
  assert "--regenerate 0.25-0.5" in told(page)
  job = page.execute_script("return state.takes[0].job")
  heard = tmp_path / "heard.wav"
  path = f"/api/jobs/{job}/takes/0/sound"
  heard.write_bytes(served.ask("GET", path, raw=True))
  made = media.read_audio(heard, sample_rate=16_000).samples[:, 0]
  assert len(made) == 32_000
  off = np.abs(made[:20_000] - tone)
  kept = np.r_[off[100:3900], off[8300:19_800]]
  assert kept.max() < 2e-3 < off[4_500:7_500].max()
  assert np.abs(made[21_000:]).max() > 1e-4
  # Another video, or the same again, begins with nothing of the one before.
  page.execute_script("$('file').dispatchEvent(new Event('click'))")
  page.find_element("id", "file").send_keys(str(clip))
  wait(page, "return !state.takes.length && !state.jobs.size")
  assert told(page) == ""


def test_takes_are_reached_one_after_another_and_delivered_together(
  page, clip, tmp_path
):
  make(page, clip, num_candidates=4, num_steps=1)
  page.find_element("tag name", "body").click()
  assert "↑" in page.find_element("id", "keys").text
  down, up = "\ue015", "\ue013"  # as digits do not reach a tenth take
  press(page, "2", *[down] * 3)  # once too often
  assert page.execute_script("return state.current") == 3
  press(page, "k", up, "k", *[up] * 3, "k")
  wait(page, "return state.takes.filter((take) => take.kept).length == 3")
  assert page.execute_script("return state.current") == 0
  look(page, "kept_takes")
  fill(page, timeline="otio")
  wait(page, "return $('command').textContent.split('# take').length == 4")
  with zipfile.ZipFile(download(page, tmp_path)) as archive:
    names = archive.namelist()
    found = json.loads(archive.read("timeline.otio"))
  tracks = found["tracks"]["children"]
  sounds = [track for track in tracks if track["kind"] == "Audio"]
  urls = [
    track["children"][0]["media_references"]["DEFAULT_MEDIA"]["target_url"]
    for track in tracks
  ]
  # One picture and three sounds, which are in the zip file, the first one heard.
  assert urls[0] == "a%20door.mp4" and len(tracks) == 4
  seeds = [url.rpartition("_s")[2] for url in urls[1:]]
  assert seeds == ["0000.wav", "0002.wav", "0003.wav"]
  assert {url.replace("%20", " ") for url in urls[1:]} < set(names)
  assert [track["enabled"] for track in sounds] == [True, False, False]


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
    # More fields open: they are reached too, and nothing is wider.
    open_all(page)
    wide = "return document.documentElement.scrollWidth"
    assert page.execute_script(wide) <= width
    seen = set()
    for _ in range(90):
      press(page, "\ue004")  # tab
      seen.add(page.execute_script("return document.activeElement.id"))
    wanted = {"file", "prompt", "go", "play", "seek", "from", "to"}
    assert wanted | {"keep_sound", "shots", "mark", "why"} <= seen
  finally:
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
