"""Procedural scenes: picture and sound computed from the same physics."""

from data_pipelines.scenes.records import iter_records, split_of, to_record
from data_pipelines.scenes.scene import ACTIONS, Scene, make_scene
from data_pipelines.scenes.stage import Event

__all__ = [
  "ACTIONS",
  "Event",
  "Scene",
  "iter_records",
  "make_scene",
  "split_of",
  "to_record",
]
