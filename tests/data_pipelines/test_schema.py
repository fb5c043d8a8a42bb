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
    ({"tags": [1]}, "tags must be words"),
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
    (["bird"], "", [0, 0, 0]),
  ],
)
def test_presence(tags, transcript, flags):
  original = record(tags=tags, transcript=transcript)
  assert schema.presence(original).tolist() == flags
