"""The fields of a record: the contract between writers and readers of data.

A data set is a TFDS `array_record` folder that is written and read without
TensorFlow, which leaves three feature types: Text, Scalar and Tensor of bytes
(encoded media; https://www.tensorflow.org/datasets/external_tfrecord). Lists
(words, events, tags) are stored as JSON text and are lists everywhere else.

Times are seconds from the start of the record.
"""

from collections.abc import Mapping
import json
import math
from typing import Any

import numpy as np

SCHEMA_VERSION = 2
DATASET_NAME = "v2a"

TEXT_FIELDS = ("id", "caption", "audio_caption", "transcript", "label",
               "licence", "source", "split", "sha256")  # fmt: skip
JSON_FIELDS = ("words", "events", "tags", "other_captions")
# `features` stand for the frames of `video`: see features.py.
BYTES_FIELDS = ("video", "audio", "features")
FIELDS = (*TEXT_FIELDS, *JSON_FIELDS, *BYTES_FIELDS, "duration")
SPLITS = ("train", "val", "test")

# Tags that set the presence flags, in the order of `Batch.presence`. The three
# values are those of v2a_jax/batch.py, which imports jax and so cannot be
# imported here.
PRESENCE_TAGS = ("speech", "music", "effects")
ABSENT, PRESENT, UNKNOWN = 0, 1, 2


class SchemaError(ValueError):
  """A record that breaks the schema; names the record, field and value."""


# Seconds by which encoders may cut a clip's sound; if more is missing, the
# sound ends there.
SOUND_SLACK = 0.1


class DataError(RuntimeError):
  """A data set that cannot be read; one line: what, where, what to do."""


def features():
  """Returns the TFDS `FeaturesDict` of a record; imports TFDS (0.7 s)."""
  import tensorflow_datasets as tfds

  spec: dict[str, Any] = {
    name: tfds.features.Text() for name in (*TEXT_FIELDS, *JSON_FIELDS)
  }
  for name in BYTES_FIELDS:
    spec[name] = tfds.features.Tensor(shape=(), dtype=np.object_)
  spec["duration"] = tfds.features.Scalar(dtype=np.float32)
  return tfds.features.FeaturesDict(spec)


def make_record(*, id: str, duration: float, **fields: Any) -> dict[str, Any]:
  """Makes a valid record; fields that are left out are empty, or `train`.

  Raises:
    SchemaError: naming the record, the field and the value.
  """
  record = dict.fromkeys(TEXT_FIELDS, "") | dict.fromkeys(BYTES_FIELDS, b"")
  record |= {field: [] for field in JSON_FIELDS} | {"split": "train"} | fields
  record |= {"id": id, "duration": float(duration)}
  validate(record)
  return record


def validate(record: Mapping[str, Any]) -> None:
  """Checks a record, whose lists may be lists or JSON text.

  Raises:
    SchemaError: naming the record, the field and the value.
  """
  name = record.get("id")
  if not isinstance(name, str) or not name:
    raise SchemaError(f"record has no id: {name!r}")
  missing = sorted(set(FIELDS) - set(record))
  stray = sorted(set(record) - set(FIELDS))
  if missing or stray:
    raise SchemaError(
      f"record {name!r}: missing fields {missing}, unknown fields {stray}"
    )
  for field in TEXT_FIELDS:
    _check(isinstance(record[field], str), name, field, record, "text")
  for field in BYTES_FIELDS:
    _check(isinstance(record[field], bytes), name, field, record, "bytes")
  media = record["video"] or record["audio"] or record["features"]
  _check(media, name, "video", record, "media")
  duration = record["duration"]
  number = isinstance(duration, int | float | np.floating)
  good = number and math.isfinite(duration) and duration > 0
  _check(good, name, "duration", record, "a positive number of seconds")
  _check(record["split"] in SPLITS, name, "split", record, f"one of {SPLITS}")
  lists = {field: _as_list(name, field, record[field]) for field in JSON_FIELDS}
  for entry in lists["events"]:
    time = entry.get("time") if isinstance(entry, dict) else None
    if not isinstance(time, int | float) or not math.isfinite(time):
      raise SchemaError(
        f"record {name!r}: an entry of events needs 'time', in seconds: {entry!r}"
      )
  if fault := word_fault(lists["words"]):
    raise SchemaError(f"record {name!r}: {fault}")
  for field in ("tags", "other_captions"):
    if not all(isinstance(text, str) for text in lists[field]):
      raise SchemaError(
        f"record {name!r}: {field} must be texts: {lists[field]}"
      )


def encode(record: Mapping[str, Any]) -> dict[str, Any]:
  """Converts a record to what TFDS stores: lists become JSON text."""
  stored = dict(record)
  for field in JSON_FIELDS:
    if not isinstance(stored[field], str):
      stored[field] = json.dumps(
        stored[field], ensure_ascii=False, separators=(",", ":")
      )
  stored["duration"] = np.float32(stored["duration"])
  return stored


def decode(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Converts what TFDS read to Python values: str, bytes, list, float."""
  record = {}
  for field in TEXT_FIELDS:
    value = stored[field]
    record[field] = value.decode() if isinstance(value, bytes) else str(value)
  for field in BYTES_FIELDS:
    record[field] = bytes(stored[field])
  for field in JSON_FIELDS:
    text = stored[field]
    record[field] = json.loads(text) if text else []
  record["duration"] = float(stored["duration"])
  return record


def presence(record: Mapping[str, Any]) -> np.ndarray:
  """Returns the presence flags of speech, music and effects: int32 [3].

  Tags that name one of the three are taken as complete: what they do not name
  is `ABSENT`. Others, such as keywords of a public set, say nothing of it: all
  are `UNKNOWN`, except for what annotations say (`presence`, yes or no by tag,
  which readers add to a record). A transcript makes speech `PRESENT`.
  """
  tags = {tag.lower() for tag in record["tags"]}
  flags = [PRESENT if t in tags else ABSENT for t in PRESENCE_TAGS]
  if tags.isdisjoint(PRESENCE_TAGS):
    said = record.get("presence", {})
    heard = {True: PRESENT, False: ABSENT, None: UNKNOWN}
    flags = [heard[said.get(tag)] for tag in PRESENCE_TAGS]
  if record["transcript"]:
    flags[0] = PRESENT
  return np.array(flags, np.int32)


def word_fault(words: Any) -> str:
  """Says why something is not [{"word", "start"?, "end"?}], "" if it is."""
  objects = isinstance(words, list) and all(
    isinstance(entry, Mapping) for entry in words
  )
  if not objects:
    return f"words is no list of objects: {str(words)[:60]!r}"
  for entry in words:
    if not isinstance(entry.get("word"), str):
      return f"an entry of words needs 'word', a text: {str(entry)[:60]!r}"
    for name in ("start", "end"):
      time = entry.get(name)
      number = isinstance(time, int | float) and not isinstance(time, bool)
      if time is not None and not (number and abs(time) < math.inf):
        return f"{name} of a word is no number: {str(entry)[:60]!r}"
  return ""


def _check(good, name, field, record, wanted):
  if not good:
    value = repr(record[field])
    value = value if len(value) < 60 else value[:57] + "..."
    raise SchemaError(f"record {name!r}: {field} must be {wanted}: {value}")


def _as_list(name: str, field: str, value: Any) -> list:
  if isinstance(value, str):
    try:
      value = json.loads(value) if value else []
    except json.JSONDecodeError as error:
      raise SchemaError(
        f"record {name!r}: {field} is not JSON: {error}"
      ) from None
  if not isinstance(value, list):
    raise SchemaError(f"record {name!r}: {field} must be a list: {value!r}")
  return value
