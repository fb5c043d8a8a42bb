"""The report in a real browser: no errors, no requests, keys that work."""

import json
import time

import pytest
from report_results import write_results

from tests.accessibility import assert_accessible
from v2a_jax.evaluation.report import page as report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  root = tmp_path_factory.mktemp("browser")
  results = [
    write_results(root / "a", "diffusion", shift=0.2, clips=8),
    write_results(root / "b", "ar", clips=8),
  ]
  return report.write_report(results, root / "report.html")


def press(browser, *keys):
  from selenium.webdriver.common.action_chains import ActionChains

  ActionChains(browser).send_keys(*keys).perform()


def state(browser) -> dict:
  """Reads the state of the active clip and of its players."""
  return browser.execute_script("""
    const card = document.querySelector(".clip.active");
    if (!card) return null;
    const rows = [...card.querySelectorAll(".track")];
    return {
      clip: Number(card.dataset.clip),
      track: rows.findIndex((row) => row.classList.contains("on")),
      pressed: rows.filter((row) => row.querySelector(".pick")
        .getAttribute("aria-pressed") === "true").length,
      time: Number(card.querySelector("output").textContent),
      heads: rows.map((row) => parseFloat(
        row.querySelector(".spectrogram b").style.left || "0")),
      video: card.querySelector("video").currentTime,
      muted: card.querySelector("video").muted,
      ready: card.querySelector("video").readyState,
      playing: card.classList.contains("playing"),
    };""")


def wait_until(browser, condition, seconds=20.0):
  deadline = time.monotonic() + seconds
  while time.monotonic() < deadline:
    if condition(state(browser)):
      return state(browser)
    time.sleep(0.05)
  raise AssertionError(f"the page stays at {state(browser)}")


def test_opens_from_disk_and_keys_switch_the_sound(browser, page):
  # Discards what the browser's own start page logged.
  browser.get("about:blank")
  browser.get_log("browser")
  browser.get_log("performance")
  browser.get(page.as_uri())
  assert "diffusion vs ar" in browser.title
  press(browser, "j")
  press(browser, "2")
  now = wait_until(browser, lambda s: s and s["track"] == 1)
  assert now["clip"] == 0 and now["muted"] and now["pressed"] == 1
  wait_until(browser, lambda s: s["ready"] >= 2)

  press(browser, " ")
  if wait_until(browser, lambda s: s["time"] > 0.3)["playing"]:
    press(browser, " ")
  stopped = wait_until(browser, lambda s: not s["playing"])
  press(browser, "3")
  now = wait_until(browser, lambda s: s["track"] == 2)
  # The playhead is shared: one position for the picture and all rows.
  assert now["time"] == stopped["time"]
  assert now["video"] == pytest.approx(stopped["video"], abs=0.06)
  assert len(set(now["heads"])) == 1 and now["heads"][0] > 0

  press(browser, "\ue012")  # the left arrow
  moved = wait_until(browser, lambda s: s["time"] < stopped["time"])
  assert moved["time"] == pytest.approx(stopped["time"] - 0.25, abs=0.011)
  press(browser, "j")
  assert wait_until(browser, lambda s: s["clip"] == 1)["track"] == 0

  assert_quiet(browser, page)


def assert_quiet(browser, page):
  """Checks for an empty console and no network requests."""
  errors = [
    entry
    for entry in browser.get_log("browser")
    if entry["level"] in ("SEVERE", "WARNING")
  ]
  assert not errors
  requested = []
  for entry in browser.get_log("performance"):
    message = json.loads(entry["message"])["message"]
    if message["method"] == "Network.requestWillBeSent":
      requested.append(message["params"]["request"]["url"])
  outside = [
    url for url in requested if not url.startswith((page.as_uri(), "data:"))
  ]
  assert requested and not outside


def test_sounds_of_the_page_can_be_decoded(browser, page):
  browser.get(page.as_uri())
  failed = browser.execute_async_script("""
    const done = arguments[0];
    const data = JSON.parse(document.getElementById("data").textContent);
    const clip = data.clips[0];
    Promise.all(clip.tracks.map((address) => new Promise((resolve) => {
      const sound = new Audio(address);
      sound.addEventListener("loadeddata", () => {
        const close = Math.abs(sound.duration - clip.duration) < 0.1;
        resolve(close ? null : sound.duration);
      });
      sound.addEventListener("error", () => resolve(sound.error.message));
    }))).then((all) => done(all.filter((x) => x !== null)));""")
  assert failed == []


def test_copies_the_table_and_switches_the_theme(browser, page):
  from selenium.webdriver.common.by import By

  browser.get(page.as_uri())
  button = browser.find_element(By.CSS_SELECTOR, '[data-copy="markdown"]')
  button.click()
  status = browser.find_element(By.ID, "copied")
  deadline = time.monotonic() + 5
  while not status.text and time.monotonic() < deadline:
    time.sleep(0.05)
  assert status.text
  colour = "return getComputedStyle(document.body).backgroundColor"
  before = browser.execute_script(colour)
  browser.find_element(By.ID, "theme").click()
  assert browser.execute_script(colour) != before


def test_axe_core_finds_nothing_wrong(browser, page):
  browser.get(page.as_uri())
  assert_accessible(browser)


def test_a_phone_shows_row_names_sections_and_pictures(browser, page):
  browser.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride",
    {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
  )
  try:
    browser.get(page.as_uri())
    seen = browser.execute_script("""
      const box = document.querySelector("#figures .scroll");
      box.style.width = "250px";  // As with more columns than here.
      box.scrollLeft = box.scrollWidth;
      const name = box.querySelector("tbody th").getBoundingClientRect();
      const links = [...document.querySelectorAll("nav a")];
      return {
        scrolled: box.scrollLeft, left: name.left, right: name.right,
        links: links.filter((a) => a.offsetParent !== null).length,
        wide: document.documentElement.scrollWidth,
        posters: [...document.querySelectorAll("video")].every((v) => v.poster),
      };""")
  finally:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
  assert seen["scrolled"] > 0
  assert 0 <= seen["left"] < seen["right"] <= 200
  assert seen["links"] >= 4 and seen["posters"] and seen["wide"] <= 390
