"""Eight virtual CPU devices for every test, and fixtures that rooms share."""

import gc
import os
import pathlib
import shutil
import tempfile

# Tests compile much and compute little: these make XLA compile three times as
# fast, also in the processes that tests start. Before jax is imported.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
)
# Tests leave the user's compiled programs alone, and share their own.
os.environ.setdefault("V2A_COMPILE_CACHE", "off")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _folder = tempfile.TemporaryDirectory()
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _folder.name

from absl import flags
import jax
import pytest

from tests.object_store import (  # noqa: F401
  gs_url,
  object_stores,
  s3_url,
  store_url,
)

# Imports librosa; test processes that did so at once would damage its cache.
from v2a_jax.evaluation import onset_detector  # noqa: F401

LARGE = 4 << 30  # bytes

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Grain's worker processes read absl flags, which pytest never parses.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()


def pytest_collection_finish(session):
  """Collects garbage as seldom as the commands, and not in what was imported."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
  """Drops compiled programs when a test process has grown large.

  Those that are needed again come from the cache on disk.
  """
  yield
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  if pages * os.sysconf("SC_PAGE_SIZE") > LARGE:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def mesh():
  """A 2 x 2 x 2 mesh of (data, fsdp, tensor)."""
  from v2a_jax.parallel import mesh as mesh_lib

  return mesh_lib.make_mesh(mesh_lib.MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.fixture
def key():
  return jax.random.key(0)


@pytest.fixture
def publish(tmp_path):
  """Draws a torch model's parameters anew, saves it, returns the folder.

  `transformers` starts with biases at 0 and gains at 1, which would hide a
  mistake in where they go.
  """
  torch = pytest.importorskip("torch", reason="the reference needs torch")

  def save(model, **settings):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
      for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = parameter.ndim == 1 and name.endswith("weight")
        parameter.copy_(gain + 0.2 * noise)
    model.eval().save_pretrained(tmp_path, **settings)
    return tmp_path

  return save


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
