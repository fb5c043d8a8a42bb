"""The data set that several files of this folder evaluate on."""

from concurrent import futures

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
