"""Leaves of a train state by name: what a checkpoint calls them."""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax

from v2a_jax.weights import mismatch


class CheckpointError(Exception):
  """A checkpoint is missing, damaged, of another shape, or cannot be saved."""


def flatten(tree: Any) -> dict[tuple[str, ...], Any]:
  """Flattens to {path: leaf}; a variable and its value have one name."""
  named = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
      path = path[:-1]
    name = tuple(
      jax.tree_util.keystr((key,), simple=True).replace("/", ":")
      for key in path
    )
    if name in named:
      raise ValueError(f"two leaves are named {'/'.join(name)}")
    named[name] = leaf
  return named


def compare(
  path: pathlib.Path,
  wanted: Mapping[tuple, Any],
  saved: Mapping[tuple, Any],
  *,
  prefix: tuple[str, ...] = (),
) -> None:
  """Raises one line that names everything missing, misshapen or extra."""
  label = lambda tree: {"/".join(prefix + k): v for k, v in tree.items()}
  if told := mismatch.faults(label(saved), label(wanted)):
    raise CheckpointError(
      f"{path}: {told}; use the config it was trained with, or another workdir"
    )


def integer_keys(tree: Any) -> Any:
  """Turns the names of list entries back into integers."""
  if not isinstance(tree, dict):
    return tree
  return {
    int(key) if key.isdigit() else key: integer_keys(value)
    for key, value in tree.items()
  }
