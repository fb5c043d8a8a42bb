"""The data set that several files of this folder evaluate on."""

from concurrent import futures
import shutil

from flashes import make_record
import pytest

from data_pipelines.assemble import OutputOptions, Plan, assemble
from data_pipelines.clips import clip_facts
from data_pipelines.writer import Outcome


@pytest.fixture(scope="session")
def data(tmp_path_factory):
  """A data set of six test clips, one without sound, and four others."""
  records = [make_record(i, "test") for i in range(5)]
  records.append(make_record(5, "test", audio=b""))
  records += [make_record(10 + i, "val") for i in range(4)]
  return build(records, tmp_path_factory.mktemp("data") / "flashes")


def build(records, out):
  """Builds a data set of records."""
  by_key = {record["id"]: record for record in records}

  def make(key):
    return Outcome(key=key, clips=[clip_facts(by_key[key])]), [by_key[key]]

  plan = Plan(keys=list(by_key), unit="clips", settings={}, description="test")
  assemble(
    plan,
    out=out,
    make=make,
    pool=futures.ThreadPoolExecutor,
    output=OutputOptions(),
    log=lambda _: None,
  )
  return out


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
  """Chromium, steered by selenium."""
  webdriver = pytest.importorskip("selenium.webdriver")
  from selenium.webdriver.chrome.service import Service

  chromium = shutil.which("chromium") or shutil.which("chromium-browser")
  driver = shutil.which("chromedriver")
  if not (chromium and driver):
    pytest.skip("needs chromium and chromium-driver (Debian packages)")
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  for flag in (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1280,1000",
    f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
  ):
    options.add_argument(flag)
  options.set_capability(
    "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
  )
  chrome = webdriver.Chrome(options=options, service=Service(driver))
  yield chrome
  chrome.quit()
