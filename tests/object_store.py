"""Object stores on this machine: S3 (moto) and GCS (gcp-storage-emulator).

The servers run in threads of the test process and keep everything in memory.
Child processes reach them through environment variables, which the fixture
`object_stores` sets for the whole session.
"""

from collections.abc import Iterator
import dataclasses
import importlib.util
import logging
import os
from unittest import mock
import uuid

import pytest

BUCKET = "v2a-tests"


@dataclasses.dataclass(frozen=True)
class ObjectStores:
  """Two running servers, each with an empty bucket.

  Attributes:
    s3: URL of the bucket on the S3 server.
    gs: URL of the bucket on the GCS server.
    environment: variables by which clients find the servers.
  """

  s3: str
  gs: str
  environment: dict[str, str]


@pytest.fixture(scope="session")
def object_stores() -> Iterator[ObjectStores]:
  """Both servers; the environment variables are set until the session ends."""
  for package in ("moto", "s3fs", "gcsfs", "gcp_storage_emulator"):
    # Not imported: gcsfs reads its environment then.
    if not importlib.util.find_spec(package):
      pytest.skip(f"no object stores here: pip install {package}")
  from gcp_storage_emulator import server as gcs_server
  from moto import server as s3_server

  for name in ("werkzeug", "gcp_storage_emulator"):
    logging.getLogger(name).setLevel(logging.ERROR)
  s3 = s3_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
  gcs = gcs_server.create_server("127.0.0.1", 0, in_memory=True)
  s3.start()
  gcs.start()
  host, port = gcs._api._httpd.server_address
  environment = {
    "AWS_ENDPOINT_URL": "http://{}:{}".format(*s3.get_host_and_port()),
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "STORAGE_EMULATOR_HOST": f"http://{host}:{port}",
    "TENSORSTORE_GCS_HTTP_URL": f"http://{host}:{port}",
    # No search for a machine of Google's, which takes seconds.
    "NO_GCE_CHECK": "true",
    # No call to a control service, which the emulator does not have.
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
  }
  with mock.patch.dict(os.environ, environment):
    make_bucket("s3", BUCKET)
    make_bucket("gs", BUCKET)
    yield ObjectStores(f"s3://{BUCKET}", f"gs://{BUCKET}", environment)
  gcs.stop()
  s3.stop()


def make_bucket(scheme: str, name: str) -> str:
  """Makes a bucket on the server of `s3` or `gs`; returns its URL."""
  import fsspec

  fsspec.filesystem(scheme).mkdir(name)
  return f"{scheme}://{name}"


@pytest.fixture
def s3_url(object_stores) -> str:
  """An empty folder on the S3 server, of this test alone."""
  return f"{object_stores.s3}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def gs_url(object_stores) -> str:
  """An empty folder on the GCS server, of this test alone."""
  return f"{object_stores.gs}/{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["s3", "gs"])
def store_url(request) -> str:
  """An empty folder on each of the two servers in turn."""
  return request.getfixturevalue(f"{request.param}_url")
