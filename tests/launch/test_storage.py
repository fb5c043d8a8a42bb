"""Commands on an object store, as processes: build, train, be killed, go on."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.commands import ENV, ROOT, refused, succeeds, v2a
from tests.launch.test_train import SMALL, losses
from v2a_jax.basics.paths import as_path
from v2a_jax.training.digests import list_steps

SCENES = "--num=6 --seconds=2 --fps=8 --size=32 --held_out=0.34 --workers=1"


@pytest.fixture(scope="module")
def bucket(object_stores):
  return as_path(object_stores.s3) / "commands"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder of this machine, in which the commands run."""
  return tmp_path_factory.mktemp("here")


@pytest.fixture(scope="module")
def environment(object_stores, folder):
  return object_stores.environment | {
    "V2A_CACHE": str(folder / "cache"),
    "V2A_COMPILE_CACHE": str(folder / "programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "TMPDIR": str(folder),
  }


@pytest.fixture(scope="module")
def scenes(bucket, folder, environment):
  """A data set that was built on the store."""
  args = ("data", "scenes", "-o", bucket / "scenes", "--vocab_size=512")
  done = v2a(*args, *SCENES.split(), cwd=folder, env=environment)
  assert done.returncode == 0, done.stderr
  return bucket / "scenes"


def train(scenes, workdir, *overrides):
  return [
    *("train", f"--config={ROOT}/configs/diffusion_tiny.py", *SMALL),
    *(f"--config.data.paths=('{scenes}',)", f"--workdir={workdir}"),
    *overrides,
  ]


@pytest.fixture(scope="module")
def trained(scenes, bucket, folder, environment):
  """A workdir in which one run was killed and the next one came to the end."""
  workdir = bucket / "run"
  endless = "--config.num_train_steps=100000"
  command = train(scenes, workdir, endless, "--config.checkpoint_every=2")
  log = folder / "killed.log"
  with open(log, "w") as file:
    process = subprocess.Popen(
      [sys.executable, "-m", "launch.cli", *command],
      env=ENV | environment,
      cwd=folder,
      stdout=file,
      stderr=subprocess.STDOUT,
    )
  until = time.monotonic() + 120
  while not list_steps(workdir / "checkpoints"):
    assert process.poll() is None and time.monotonic() < until, log.read_text()
    time.sleep(0.2)
  assert json.loads((workdir / "claim.json").read_text())["process"]
  process.send_signal(signal.SIGKILL)
  process.wait()
  step = list_steps(workdir / "checkpoints")[0]
  last = f"--config.num_train_steps={step + 3}"
  command = train(scenes, workdir, last)
  done = v2a(*command, cwd=folder, env=environment)
  assert done.returncode == 0, done.stderr
  begun = int(re.search(r"from step (\d+)", done.stdout)[1])
  return workdir, begun, step + 3


def test_a_killed_run_goes_on_from_its_checkpoint(trained):
  workdir, begun, last = trained
  assert 0 < begun < last
  assert list_steps(workdir / "checkpoints")[0] == last
  assert set(range(begun + 1, last + 1)) <= losses(workdir).keys()
  assert max(losses(workdir)) == last
  names = workdir.sizes().keys()
  assert {"config.json", "tokenizer.model", "run.json", "hosts"} <= names
  assert "claim.json" not in names
  log = (workdir / "hosts" / "0.log").read_text()
  assert f"done: step {last} is saved" in log


def test_no_local_path_is_made_of_a_url(trained, folder):
  made = [path for path in folder.iterdir() if path.name[:2] in ("s3", "gs")]
  assert not made


def test_weights_travel_from_and_to_the_store(
  trained, bucket, environment, monkeypatch, capsys
):
  for name in ("V2A_CACHE", "TMPDIR"):
    monkeypatch.setenv(name, environment[name])
  bundle = bucket / "bundle"
  succeeds(capsys, "weights", "export", trained[0], "-o", bundle)
  names = ["CARD.md", "config.json", "sha256.json", "tokenizer.model"]
  names += ["weights.safetensors"]
  assert list(bundle.sizes()) == names
  from v2a_jax.experiment import load

  for place in (bundle, trained[0]):
    loaded = load.load(str(place))
    assert loaded.source["path"] == str(place)
    assert loaded.tokenizers["tokenizer"].vocab_size > 256


REFUSED = {
  "no bucket": "there is no bucket s3://absent",
  "permission": "s3://no-writing/run/.* permission denied",
  "a slash": "write s3://bucket/run",
  "scheme": "only local paths, gs:// and s3:// can be used",
}
WORKDIRS = {
  "no bucket": "s3://absent/run",
  "permission": "s3://no-writing/run",
  "a slash": "s3:/bucket/run",
  "scheme": "https://example.com/run",
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_workdir_that_cannot_be_written_is_refused_at_the_start(
  fault, scenes, environment, monkeypatch, capsys, tmp_path
):
  monkeypatch.chdir(tmp_path)
  if fault == "permission":
    forbid_writing("no-writing")
  line = refused(capsys, *train(scenes, WORKDIRS[fault]))
  assert re.search(REFUSED[fault], line), line
  assert not os.listdir(tmp_path)


def forbid_writing(name):
  """Makes a bucket that can be read and not written."""
  import boto3

  client = boto3.client("s3")
  client.create_bucket(Bucket=name)
  rule = {"Effect": "Deny", "Principal": "*", "Action": ["s3:PutObject"]}
  policy = {
    "Version": "2012-10-17",
    "Statement": [rule | {"Resource": f"arn:aws:s3:::{name}/*"}],
  }
  client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))


@pytest.mark.parametrize(
  "args",
  [
    "generate s3://b/clip.mp4 -o out",
    "generate --from gs://b/clip.json -o out",
    "sweep plan --config=configs/ar_tiny.py -o gs://b/sweep",
    "sweep status s3://b/sweep",
    "train --config=gs://b/config.py --workdir=run",
    "watermark detect s3://b/clip.mp4",
  ],
)
def test_what_must_be_local_is_refused_as_a_url(args, capsys):
  line = refused(capsys, *args.split())
  assert "on this machine" in line
  assert "gs:/b" not in line and "s3:/b" not in line
