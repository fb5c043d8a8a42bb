"""Arrays by name: one way to flatten a tree, to compare it and to fill it.

The name of a leaf is the tuple of the keys that lead to it. An NNX variable and
the array in it share one name, so that a module's state, an optimizer's moments
and the tensors of a file are compared alike.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

Name = tuple[str, ...]


def flatten(tree: Any) -> dict[Name, Any]:
  """Flattens a pytree to {name: leaf}.

  Raises:
    ValueError: two leaves share a name.
  """
  leaves = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = name_of(path)
    if name in leaves:
      raise ValueError(f"two leaves are named {'/'.join(name)}")
    leaves[name] = leaf
  return leaves


def name_of(path: Iterable[Any]) -> Name:
  """Converts a path of jax's key objects to a name."""
  keys = list(path)
  if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
    keys.pop()  # of an NNX variable
  text = lambda key: jax.tree_util.keystr((key,), simple=True)
  return tuple(text(key).replace("/", ":") for key in keys)


def joined(leaves: Mapping[Name, Any]) -> dict[str, Any]:
  """Joins each name to one string, `a/b/0/c`."""
  return {"/".join(name): leaf for name, leaf in leaves.items()}


def split(leaves: Mapping[str, Any]) -> dict[Name, Any]:
  """Undoes `joined`."""
  return {tuple(name.split("/")): leaf for name, leaf in leaves.items()}


def compare(arrays: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> str:
  """Lists what is missing, extra or misshapen; "" if everything fits.

  Args:
    arrays: objects with a `shape`, or shapes, by name.
    wanted: the same for the model.
  """
  label = lambda name: name if isinstance(name, str) else "/".join(name)
  shape = lambda x: tuple(getattr(x, "shape", x))
  missing = sorted(map(label, wanted.keys() - arrays.keys()))
  extra = sorted(map(label, arrays.keys() - wanted.keys()))
  faults = [f"{name} is missing" for name in missing]
  faults += [f"{name} is extra" for name in extra]
  for name in sorted(wanted.keys() & arrays.keys(), key=label):
    have, need = shape(arrays[name]), shape(wanted[name])
    if have != need:
      faults.append(f"{label(name)} is {have}, the model has {need}")
  return "; ".join(faults)


def fill(
  tree: Any,
  arrays: Mapping[Name, Any],
  place: Callable[[Any, Any], Any] = lambda array, leaf: array,
) -> Any:
  """Replaces the leaves of `tree` that `arrays` names; the others stay.

  Args:
    tree: pytree of arrays or shapes.
    arrays: array by name.
    place: makes the new leaf from (array, old leaf), for example by a cast.
  """

  def new(path, leaf):
    name = name_of(path)
    return place(arrays[name], leaf) if name in arrays else leaf

  return jax.tree_util.tree_map_with_path(new, tree)
