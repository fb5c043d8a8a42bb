"""A listening test: its page in a browser, and what answers say."""

import collections
import json
import time

import numpy as np
import pytest
from report_results import write_results

from launch import cli
from tests.accessibility import assert_accessible
from v2a_jax import media
from v2a_jax.evaluation.listening import make, score
from v2a_jax.evaluation.listening.score import Answer


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  root = tmp_path_factory.mktemp("results")
  return [
    write_results(root / name, name, clips=3, with_media=3)
    for name in ("diffusion", "ar")
  ]


def written(results, tmp_path, **options):
  page, key = make.write_test(
    results, tmp_path / "test.html", make.ListeningOptions(**options)
  )
  text = page.read_text()
  begin = text.index('id="data">') + len('id="data">')
  data = json.loads(text[begin : text.index("</script>", begin)])
  return text, data, json.loads(key.read_text()), key


@pytest.mark.parametrize("kind, number", [("pairs", 9), ("rating", 9)])
def test_every_clip_is_heard_of_every_system(results, tmp_path, kind, number):
  _, data, key, _ = written(results, tmp_path, kind=kind)
  assert len(data["trials"]) == number  # 3 clips of 3 pairs, or of 3 systems
  groups = collections.Counter()
  for trial in data["trials"]:
    sounds = [key["sounds"][code] for code in trial["sounds"]]
    assert len({sound["clip"] for sound in sounds}) == 1
    groups[tuple(sorted(sound["system"] for sound in sounds))] += 1
  assert set(groups.values()) == {3} and len(groups) == 3


def test_the_page_does_not_say_which_system_is_heard(results, tmp_path):
  text, data, key, _ = written(results, tmp_path)
  assert set(key["systems"]) == {"diffusion", "ar", "ground_truth"}
  for name in ("diffusion", "ground_truth", "clip_00"):
    assert name not in text
  assert data["test"] == key["test"]


def test_all_sounds_are_equally_loud(results, tmp_path):
  import base64

  import pyloudnorm

  _, data, _, _ = written(results, tmp_path, num_clips=1, loudness=-30.0)
  for number, url in enumerate(data["sounds"].values()):
    path = tmp_path / f"{number}.m4a"
    path.write_bytes(base64.b64decode(url.partition(",")[2]))
    sound = media.read_audio(path, sample_rate=16_000)
    meter = pyloudnorm.Meter(16_000)
    found = meter.integrated_loudness(sound.samples.astype(float))
    assert found == pytest.approx(-30, abs=0.5)


def answers(key, tmp_path, listener, values):
  """Writes a listener's answers: `values` of (system, ...) and clip."""
  by_sound = {(s["clip"], s["system"]): c for c, s in key["sounds"].items()}
  rows = []
  for (clip, *systems), value in values.items():
    codes = [by_sound[clip, system] for system in systems]
    rows.append({"sounds": codes, "value": by_sound.get((clip, value), value)})
  path = tmp_path / f"{listener}.json"
  given = {"schema": 1, "test": key["test"], "listener": listener}
  path.write_text(json.dumps(given | {"answers": rows}))
  return path


def test_answers_are_scored(results, tmp_path, capsys):
  _, _, key, place = written(results, tmp_path)
  clips = [f"clip_{i:03d}" for i in range(3)]
  pair = lambda clip: (clip, "ar", "diffusion")
  one = answers(key, tmp_path, "one", {pair(c): "diffusion" for c in clips})
  two = answers(
    key,
    tmp_path,
    "two",
    {pair(clips[0]): "same", pair(clips[1]): "ar", pair(clips[2]): "diffusion"},
  )
  found = score.score(place, [one, two])
  (row,) = found["rows"]
  assert (row["first"], row["second"]) == ("diffusion", "ar")
  assert (row["wins"], row["losses"], row["same"], row["n"]) == (4, 1, 1, 6)
  assert row["share"] == pytest.approx(4.5 / 6)
  assert 0 <= row["low"] < row["share"] < row["high"] <= 1
  out = tmp_path / "scores.json"
  args = ["listen", "score", str(place), str(one), str(two), "-o", str(out)]
  assert cli.main(args) == 0
  said = capsys.readouterr().out
  assert "diffusion over ar: 75 % [" in said and "(4 to 1, 1 no diff" in said
  assert json.loads(out.read_text()) == found


def test_ratings_are_scored(results, tmp_path):
  _, _, key, place = written(results, tmp_path, kind="rating")
  given = {
    ("clip_000", "ar"): 2,
    ("clip_001", "ar"): 3,
    ("clip_000", "diffusion"): 5,
  }
  found = score.score(place, [answers(key, tmp_path, "one", given)])
  best, worst = found["rows"]
  assert (best["system"], best["mean"], best["low"]) == ("diffusion", 5, None)
  assert (worst["system"], worst["mean"], worst["n"]) == ("ar", 2.5, 2)
  assert found["agreement"] is None


def test_intervals_cover_and_agreement_is_that_of_a_made_panel():
  """Listeners and clips have tastes of their own; 95 % are aimed at."""
  rng = np.random.default_rng(0)
  covered, panels = 0, 150
  for _ in range(panels):
    listeners, clips = rng.normal(0, 0.5, 8), rng.normal(0, 0.5, 12)
    given = [
      Answer(f"l{i}", f"c{j}", ("a",), listeners[i] + clips[j] + rng.normal())
      for i in range(8)
      for j in range(12)
    ]
    _, low, high = score.interval([a.value for a in given], given, rng)
    covered += low <= 0 <= high
  assert covered / panels > 0.88
  same = [
    Answer(f"l{i}", f"c{j}", ("a",), 1 + j % 5)
    for i in range(3)
    for j in range(9)
  ]
  assert score.agreement(same) == pytest.approx(1)
  other = [
    Answer(a.listener, a.clip, ("a",), int(rng.integers(1, 6))) for a in same
  ]
  assert abs(score.agreement(other)) < 0.5


@pytest.mark.parametrize(
  "change, words",
  [
    ({"test": "x"}, "answers test 'x', not"),
    ({"schema": 9}, "is not a file of answers"),
    ({"answers": [{"sounds": ["x"], "value": 1}]}, "answers[0] is damaged"),
    ({"answers": [5]}, "answers[0] is damaged"),
    ({"answers": []}, "no answers"),
  ],
)
def test_answers_that_cannot_be_used(results, tmp_path, change, words, capsys):
  _, _, key, place = written(results, tmp_path)
  path = answers(key, tmp_path, "one", {})
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  assert cli.main(["listen", "score", str(place), str(path)]) == 2
  assert words in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(results, tmp_path, capsys):
  out = ["-o", str(tmp_path / "t.html")]
  alone = ["listen", "make", str(results[0]), "--rows", ""]
  assert cli.main([*alone, *out]) == 2
  assert "one system to listen to, diffusion" in capsys.readouterr().err
  odd = ["listen", "make", str(results[0]), "--kind=mushra", *out]
  assert cli.main(odd) == 2
  assert "kind='mushra' is not one of pairs, rating" in capsys.readouterr().err


def test_a_listener_goes_through_it_with_keys_alone(results, tmp_path, browser):
  """The sounds are short: 2 s each."""
  _, _, key, place = written(results, tmp_path, num_clips=1)
  browser.get((tmp_path / "test.html").as_uri())
  from selenium.webdriver.common.by import By

  find = lambda id_: browser.find_element(By.ID, id_)
  assert_accessible(browser)
  find("listener").send_keys("AB")
  find("begin").click()
  assert_accessible(browser)
  for number in range(3):
    assert find("progress").text == f"Clip {number + 1} of 3"
    assert not find("next").is_enabled()
    press(browser, "3")  # Not yet: nothing was heard.
    for heard, letter in enumerate("ab", start=1):
      press(browser, letter)
      wait_until_heard(browser, heard)
    press(browser, "1")
    if number == 1:  # Closing the page loses nothing.
      browser.refresh()
      assert find("begin").text == "Go on"
      find("begin").click()
    assert find("next").is_enabled()
    find("next").click()
  assert_accessible(browser)
  given = json.loads(find("text").get_attribute("value"))
  assert len(given["answers"]) == 3 and given["listener"].startswith("AB ")
  file = tmp_path / "answers.json"
  file.write_text(json.dumps(given))
  found = score.score(place, [file])
  assert sum(row["wins"] + row["losses"] for row in found["rows"]) == 3
  assert not [x for x in browser.get_log("browser") if x["level"] == "SEVERE"]


def press(browser, *keys):
  from selenium.webdriver.common.action_chains import ActionChains

  ActionChains(browser).send_keys(*keys).perform()


def buttons(browser):
  from selenium.webdriver.common.by import By

  found = browser.find_elements(By.CSS_SELECTOR, "#players button")
  return [button.text for button in found]


def wait_until_heard(browser, number, seconds=20.0):
  deadline = time.monotonic() + seconds
  while sum("again" in text for text in buttons(browser)) < number:
    assert time.monotonic() < deadline, buttons(browser)
    time.sleep(0.1)
