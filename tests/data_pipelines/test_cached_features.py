"""A copy of a data set with features is read as its frames would be encoded."""

import dataclasses

import numpy as np
import pytest

from data_pipelines import features as features_lib
from data_pipelines.assemble import OutputOptions
from data_pipelines.columns import admit, store, view
from data_pipelines.columns.measure import measure
from data_pipelines.derive import copy_with, of_frames
from data_pipelines.features import FeatureFacts
from data_pipelines.loader import make_loader
from data_pipelines.manifest import read_manifest
from data_pipelines.schema import DataError
from data_pipelines.shard import BuildError
from data_pipelines.source import open_source
from data_pipelines.tokenizer import Tokenizer
from tests.data_pipelines.samples import (
  clip_record,
  film_config,
  flip_byte,
  read,
  write,
)
from v2a_jax.basics.settings import SettingError

DIM = 4


def encode(frames):
  """Sees each frame alone: means of its quarters."""
  halves = frames.reshape(len(frames), 2, 4, 2, 6, 3).astype(np.float32)
  return halves.mean((2, 4, 5)).reshape(len(frames), DIM)


def encode_with_neighbours(frames):
  """Also sees the frames before: a running mean."""
  values = encode(frames)
  steps = np.arange(1, len(values) + 1)[:, None]
  return np.cumsum(values, 0) / steps


@pytest.fixture(scope="module")
def records():
  long = [clip_record(i, seconds=2.0) for i in range(4)]
  short = clip_record(4, seconds=0.4, split="val")
  return [*long, short, clip_record(5, video=b"")]


@pytest.fixture(scope="module")
def path(records, tmp_path_factory):
  return write(tmp_path_factory.mktemp("sets") / "ds", records)


@pytest.fixture
def config(path):
  return film_config(path, batch_size=5, num_threads=0, seed=3)


def add(
  config,
  path,
  out,
  *,
  whole,
  function=encode,
  encoder="abc",
  log=lambda _: None,
  **options,
):
  window = dataclasses.replace(config.window, features=DIM)
  encode_record = of_frames(function, window, whole=whole)

  def change(record):
    found = encode_record(record)
    if not len(found.times):
      return record
    return record | {"features": features_lib.pack(found)}

  facts = FeatureFacts(
    encoder=encoder,
    dim=DIM,
    fps=window.fps,
    frame_size=window.frame_size,
    seconds=0.0 if whole else window.seconds,
  )
  return copy_with(
    path,
    out=out,
    change=change,
    facts={features_lib.KEY: dataclasses.asdict(facts)},
    output=OutputOptions(**options),
    log=log,
  )


def batches(config, steps=4):
  with make_loader(config) as loader:
    return [next(loader) for _ in range(steps)]


@pytest.fixture
def cached(config, path, tmp_path):
  """(path of the copy, its manifest)."""
  out = tmp_path / "features"
  return str(out), add(config, path, out, whole=True)


def test_the_copy_differs_in_its_features_alone(cached, path, records):
  copy, manifest = cached
  originals = read(path)
  for name, record in read(copy).items():
    features = record.pop("features")
    assert bool(features) == bool(record["video"])
    assert record == {
      k: v for k, v in originals[name].items() if k != "features"
    }
  assert Tokenizer.load(copy).model == Tokenizer.load(path).model
  source = read_manifest(path)
  assert manifest["splits"] == source["splits"] == {"train": 5, "val": 1}
  assert manifest["counts"]["items_dropped"] == 0
  assert manifest["features"] == dict(
    encoder="abc", dim=DIM, fps=5, frame_size=(8, 12), seconds=0.0
  )


@pytest.mark.parametrize("crop", ["start", "random"])
def test_cached_features_are_those_of_the_frames_that_are_read(
  cached, config, crop
):
  """Both loaders draw the same crops; one encodes, the other reads."""
  config = dataclasses.replace(config, crop=crop)
  copy = dataclasses.replace(config, paths=(cached[0],), features=DIM)
  for batch in batches(copy):
    mask = batch["frame_mask"]
    for features, frames in zip(batch["features"][mask], batch["frames"][mask]):
      np.testing.assert_allclose(features, encode(frames[None])[0], atol=1e-4)
    assert not batch["features"][~mask].any()
  alone = dataclasses.replace(copy, frames=False)
  for frames, both, only in zip(*map(batches, (config, copy, alone))):
    assert "frames" not in only and "features" not in frames
    np.testing.assert_array_equal(both["features"], only["features"])
    for key in only.keys() - {"features"}:
      np.testing.assert_array_equal(frames[key], only[key], err_msg=key)


def test_features_of_one_window_are_those_of_its_frames(config, path, tmp_path):
  """An encoder that sees neighbours is run on the loader's window."""
  manifest = add(
    config,
    path,
    tmp_path / "ds",
    whole=False,
    function=encode_with_neighbours,
  )
  assert manifest["features"]["seconds"] == 1.0
  copy = dataclasses.replace(
    config, paths=(str(tmp_path / "ds"),), features=DIM, crop="start"
  )
  for batch in batches(copy):
    for frames, features, mask in zip(
      batch["frames"], batch["features"], batch["frame_mask"]
    ):
      if mask.any():
        np.testing.assert_allclose(
          features[mask], encode_with_neighbours(frames[mask]), atol=1e-3
        )
  random = dataclasses.replace(copy, crop="random")
  with pytest.raises(
    SettingError, match="record .*only the window at the start of its 2 s"
  ):
    batches(random)


@pytest.mark.parametrize(
  "changes,words",
  [
    (dict(fps=2.5), "fps=5, this run has 2.5"),
    (dict(frame_size=(8, 8)), r"frame_size=\(8, 12\), this run has \(8, 8\)"),
    (dict(encoder="other"), "encoder=abc, this run has other"),
    (dict(features=3), "dim=4, this run has 3"),
  ],
)
def test_features_of_another_run_are_refused_before_it_starts(
  cached, config, changes, words
):
  changes = dict(features=DIM) | changes
  copy = dataclasses.replace(config, paths=(cached[0],), **changes)
  with pytest.raises(DataError, match=words) as error:
    make_loader(copy)
  assert str(error.value).startswith(f"{cached[0]}: its cached features are")
  assert str(error.value).endswith(
    "make them with `v2a data precompute --add features` again"
  )


def test_any_window_fits_features_of_whole_records(cached, config):
  facts = FeatureFacts(encoder="", dim=DIM, fps=5, frame_size=(8, 12))
  for seconds in (0.5, 3.0):
    wanted = dataclasses.replace(facts, seconds=seconds)
    assert features_lib.check(cached[0], wanted) is None
  with pytest.raises(DataError, match="has no cached features"):
    features_lib.check(config.paths[0], facts)


def test_a_record_that_cannot_be_decoded_is_dropped_by_name(config, tmp_path):
  records = [clip_record(0), clip_record(1, video=b"no video"), clip_record(2)]
  path = write(tmp_path / "ds", records)
  manifest = add(config, path, tmp_path / "features", whole=True)
  assert manifest["drops"] == {"unreadable": 1}
  assert list(read(tmp_path / "features")) == ["clip0", "clip2"]
  drops = (tmp_path / "features/drops.csv").read_text()
  assert "train/0000001,,,unreadable" in drops


def test_adding_features_again_is_done_already(cached, config, path):
  copy, manifest = cached
  calls = []
  count = lambda frames: calls.append(len(frames)) or encode(frames)
  again = add(config, path, copy, whole=True, function=count)
  assert again["fingerprint"] == manifest["fingerprint"] and not calls
  # Another encoder makes another data set.
  add(
    config, path, copy, whole=True, function=count, encoder="x", overwrite=True
  )
  assert len(calls) == 6
  assert read_manifest(copy)["features"]["encoder"] == "x"


def test_what_is_said_of_the_records_goes_with_them(config, path, tmp_path):
  """Also what is said of them later, and what only the copy has stays."""
  source = write(tmp_path / "ds", list(read(path).values()))
  copy = tmp_path / "copy"
  measure(source, log=lambda _: None)
  add(config, source, copy, whole=True)
  expression = "silence < 0.98 and not duplicate"
  counted = admit.admitted(source, expression).describe()
  assert admit.admitted(copy, expression).describe() == counted
  with store.Journal(copy, "own") as journal:
    journal.add("clip0", "", {"score": 1})
    journal.finish()
  with store.Journal(source, "late") as journal:
    journal.add("clip0", "", {"caption": "said later"})
    journal.finish()
  add(config, source, copy, whole=True)
  assert store.sources(copy) == sorted([*store.sources(source), "own"])
  opened, _ = view.open_view(copy, "train", annotations=("late",))
  assert "said later" in {t for r in opened for t in r["other_captions"]}


def test_a_changed_caption_and_a_new_clip_cost_what_is_new(
  config, path, tmp_path
):
  records = list(read(path).values())
  source = write(tmp_path / "ds", records)
  copy, calls, lines = tmp_path / "copy", [], []

  def encode_counted(frames):
    calls.append(len(frames))
    return encode(frames)

  def add_again(**options):
    calls.clear()
    lines.clear()
    add(config, source, copy, whole=True, function=encode_counted,
        log=lines.append, **options)  # fmt: skip
    return len(calls)

  assert add_again() == len(records)
  records[0] = records[0] | {"caption": "corrected"}
  write(source, records, overwrite=True)
  assert add_again() == 0
  assert f"{len(records)} clips were taken over" in "".join(lines)
  assert read(copy)[records[0]["id"]]["caption"] == "corrected"
  records.insert(1, clip_record(20))
  records[3] = clip_record(21, id=records[3]["id"])  # Other media, same name.
  write(source, records, overwrite=True)
  assert add_again() == 2
  fresh = tmp_path / "fresh"
  add(config, source, fresh, whole=True)
  assert read(copy) == read(fresh)
  # Another encoder, or another source, replaces nothing unasked.
  with pytest.raises(BuildError, match="features was"):
    add(config, source, copy, whole=True, encoder="other")
  other = write(tmp_path / "other", records[:2])
  with pytest.raises(BuildError, match="another folder"):
    add(config, other, copy, whole=True)
  assert add_again(encoder="other", overwrite=True) == len(records)


def test_a_damaged_copy_is_computed_again(config, path, tmp_path):
  records = list(read(path).values())
  source, copy, calls = write(tmp_path / "ds", records), tmp_path / "copy", []
  count = lambda frames: calls.append(len(frames)) or encode(frames)
  add(config, source, copy, whole=True)
  write(source, [*records, clip_record(30)], overwrite=True)
  for shard in copy.glob("*train*"):
    flip_byte(shard)
  add(config, source, copy, whole=True, function=count)
  assert 1 < len(calls) <= len(records) + 1
  fresh = tmp_path / "fresh"
  add(config, source, fresh, whole=True)
  assert read(copy) == read(fresh)


def test_long_records_are_encoded_whole(config, tmp_path):
  """Longer than what the loader would decode whole."""
  path = write(tmp_path / "ds", [clip_record(0, seconds=6.0)])
  add(config, path, tmp_path / "features", whole=True)
  record = open_source(tmp_path / "features")[0]
  features = features_lib.unpack(record["features"], DIM)
  np.testing.assert_allclose(features.times, np.arange(30) / 5, atol=1e-6)
  assert features.values.shape == (30, DIM) and features.whole
  assert (np.diff(features.values[:, 0]) > 0).all()  # it gets brighter
