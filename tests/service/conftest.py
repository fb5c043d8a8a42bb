"""A service that runs as its users run it, in a process of its own."""

import contextlib
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import av
import numpy as np
import pytest

from tests.processes import ENVIRONMENT, ROOT

pytest.importorskip("fastapi", reason="v2a serve needs the extra `ui`")
pytest.importorskip("uvicorn", reason="v2a serve needs the extra `ui`")


class Client:
  """Who asks a service.

  Attributes:
    root: the service's folder.
    url: its address.
  """

  def __init__(self, root: pathlib.Path, port: int):
    self.root, self.port = root, port
    self.url = f"http://127.0.0.1:{port}"

  def ask(self, method, path, body=None, *, headers=(), raw=False):
    """Returns the JSON, or with `raw` the bytes, of an answer.

    Raises:
      HTTPError: the status is an error.
    """
    if body is not None and not isinstance(body, bytes):
      body = json.dumps(body).encode()
    request = urllib.request.Request(
      self.url + path,
      data=body,
      method=method,
      headers={"content-type": "application/json", **dict(headers)},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
      data = answer.read()
    return data if raw else json.loads(data)

  def refused(self, method, path, body=None, **how) -> tuple[int, str]:
    """Returns the status and the reason of a refusal."""
    with pytest.raises(urllib.error.HTTPError) as caught:
      self.ask(method, path, body, **how)
    data = caught.value.read()
    return caught.value.code, json.loads(data)["detail"]

  def upload(self, path: pathlib.Path, name=None) -> dict:
    """Uploads a file."""
    quoted = urllib.request.quote(name or path.name)
    return self.ask("POST", f"/api/videos?name={quoted}", path.read_bytes())

  def wait(self, job: str, until=("done", "failed", "cancelled"), takes=0):
    """Waits until a job is in a state, or has so many takes."""
    deadline = time.monotonic() + 120
    while True:
      found = self.ask("GET", f"/api/jobs/{job}")
      if found["state"] in until or (takes and len(found["takes"]) >= takes):
        return found
      assert time.monotonic() < deadline, found
      time.sleep(0.1)

  def audit(self) -> list[dict]:
    """Returns the lines of the audit log."""
    text = (self.root / "audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


class Served(Client):
  """A running `v2a serve`.

  Attributes:
    process: the process.
  """

  def __init__(self, root: pathlib.Path, *flags: str, prefix=()):
    super().__init__(root, _free_port())
    self.flags, self.prefix = flags, prefix
    self.start()

  def start(self) -> None:
    """Starts it, and waits until it answers."""
    command = [
      sys.executable,
      "-m",
      "launch.cli",
      "serve",
      "-o",
      str(self.root),
    ]
    self.process = subprocess.Popen(
      [*self.prefix, *command, "--port", str(self.port), *self.flags],
      cwd=ROOT,
      env=ENVIRONMENT | {"JAX_PLATFORMS": "cpu"},
      stdout=subprocess.DEVNULL,
      stderr=(self.root.parent / f"{self.root.name}.log").open("ab"),
    )
    deadline = time.monotonic() + 120
    while True:
      with contextlib.suppress(OSError):
        return self.ask("GET", "/api/model")
      assert self.process.poll() is None and time.monotonic() < deadline
      time.sleep(0.1)

  def kill(self, how=signal.SIGKILL) -> None:
    """Ends it."""
    self.process.send_signal(how)
    self.process.wait(timeout=60)


@contextlib.contextmanager
def running(tracker, root, options, **how):
  """Runs a service in a thread of this process; yields who asks it."""
  import uvicorn

  from v2a_jax.service import app

  client = Client(root, _free_port())
  settings = {"log_level": "warning", "limit_concurrency": 200}
  application = app.create(tracker, root, options, **how)
  server = uvicorn.Server(
    uvicorn.Config(application, port=client.port, **settings)
  )
  thread = threading.Thread(target=server.run)
  thread.start()
  try:
    deadline = time.monotonic() + 30
    while not server.started:
      assert thread.is_alive() and time.monotonic() < deadline
      time.sleep(0.02)
    yield client
  finally:
    server.should_exit = True
    thread.join()


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


@pytest.fixture(scope="session")
def tracker(tmp_path_factory):
  """A model in a folder of the user's own."""
  from v2a_jax.soundtrack.tracker import Soundtracker
  from v2a_jax.weights import bundle

  folder = tmp_path_factory.mktemp("secret") / "mine"
  shutil.copytree(bundle.find("diffusion_tiny"), folder)
  return Soundtracker.load(folder)


@pytest.fixture(scope="session")
def served(tmp_path_factory):
  """A service of the bundled model."""
  root = tmp_path_factory.mktemp("service") / "served"
  service = Served(root, "--per_minute=1000", "--upload_mb=20")
  yield service
  service.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
  """Two seconds of a square that moves, with a tone."""
  path = tmp_path_factory.mktemp("uploads") / "a door.mp4"
  with av.open(str(path), "w") as container:
    video = container.add_stream("libx264", rate=12)
    video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
    audio = container.add_stream("aac", rate=16_000, layout="mono")
    for i in range(24):
      pixels = np.zeros((64, 96, 3), np.uint8)
      pixels[20:40, 3 * i : 3 * i + 20] = 255
      container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
    container.mux(video.encode(None))
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    frame = av.AudioFrame.from_ndarray(
      tone[None].astype(np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = 16_000
    container.mux(audio.encode(frame))
    container.mux(audio.encode(None))
  return path
