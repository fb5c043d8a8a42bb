"""The schema: what a record holds, and one line on what it may not hold."""

import numpy as np
import pytest

from data_pipelines import schema


def record(**changes):
  return schema.make_record(id="a", duration=1.5, audio=b"x") | changes


def test_round_trip_through_tfds_features():
  features = schema.features()
  original = record(
    video=b"\x00\xff", words=[{"word": "hé", "start": 0.5}], tags=["speech"]
  )
  stored = features.serialize_example(
    features.encode_example(schema.encode(original))
  )
  assert schema.decode(features.deserialize_example_np(stored)) == original
  assert set(original) == set(schema.FIELDS)


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"id": ""}, "no id"),
    ({"duration": 0.0}, "duration must be a positive"),
    ({"duration": float("nan")}, "duration must be a positive"),
    ({"caption": None}, "caption must be text"),
    ({"audio": b""}, "must be media"),
    ({"split": "dev"}, "split must be one of"),
    ({"words": "[{"}, "words is not JSON"),
    ({"words": [{"start": 1}]}, "needs 'word'"),
    ({"events": {}}, "events must be a list"),
    ({"events": [{"time": None}]}, "needs 'time', in seconds"),
    ({"tags": [1]}, "tags must be texts"),
    ({"captoin": "x"}, "unknown fields ['captoin']"),
  ],
)
def test_errors_name_record_field_and_value(changes, words):
  with pytest.raises(schema.SchemaError) as error:
    schema.validate(record(**changes))
  assert words in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "tags, transcript, flags",
  [
    ([], "", [2, 2, 2]),
    ([], "hello", [1, 2, 2]),
    (["effects"], "", [0, 0, 1]),
    (["music", "Speech"], "", [1, 1, 0]),
    (["bird", "wind"], "", [2, 2, 2]),  # Keywords of a public set.
  ],
)
def test_presence(tags, transcript, flags):
  original = record(tags=tags, transcript=transcript)
  assert schema.presence(original).tolist() == flags


def test_presence_of_keywords_is_what_annotations_say():
  found = record(tags=["rain", "thunder"]) | {"presence": {"effects": True}}
  assert schema.presence(found).tolist() == [2, 2, 1]


def test_what_is_left_out_of_a_record_is_empty():
  plain = schema.make_record(id="a", duration=1, video=b"v")
  assert set(plain) == set(schema.FIELDS)
  assert plain["words"] == plain["events"] == plain["tags"] == []
  assert plain["audio"] == plain["features"] == b""
  assert plain["split"] == "train" and plain["duration"] == 1.0
  # Lists are not shared between records.
  plain["tags"].append("speech")
  assert schema.make_record(id="b", duration=1, video=b"v")["tags"] == []


def test_lists_may_be_json_text():
  original = record(words=[{"word": "a"}], tags=["x"])
  schema.validate(schema.encode(original))
  assert schema.encode(schema.encode(original)) == schema.encode(original)
  assert schema.decode(schema.encode(original)) == original


def test_text_comes_as_bytes_from_tfds():
  original = record(caption="Größe 日本", tags=["é"])
  stored = {
    key: value.encode() if isinstance(value, str) else value
    for key, value in schema.encode(original).items()
  }
  assert schema.decode(stored) == original


@pytest.mark.parametrize(
  "duration", [-1.0, 0, np.inf, -np.inf, np.nan, "1", None, [1.0]]
)
def test_a_duration_is_a_positive_number(duration):
  with pytest.raises(schema.SchemaError, match="'a': duration must be"):
    schema.validate(record(duration=duration))
  for good in (1, 1.5, np.float32(0.25), np.float64(2)):
    schema.validate(record(duration=good))


def test_a_long_value_is_cut_in_the_message():
  with pytest.raises(schema.SchemaError) as error:
    schema.validate(record(video="x" * 5000))
  assert len(str(error.value)) < 150 and "video must be bytes" in str(
    error.value
  )


@pytest.mark.parametrize("field", schema.FIELDS)
def test_every_field_is_needed(field):
  broken = record()
  broken.pop(field)
  with pytest.raises(schema.SchemaError, match="no id|missing fields"):
    schema.validate(broken)


def test_presence_flags_are_those_of_a_batch():
  from v2a_jax import batch

  ours = (schema.ABSENT, schema.PRESENT, schema.UNKNOWN)
  assert ours == (batch.ABSENT, batch.PRESENT, batch.UNKNOWN)
