"""Bundles: a folder with a model's weights, its config and a model card.

  weights.safetensors   arrays by path ("encoder/stages/0/kernel"), float32,
                        float16 or bfloat16
  config.json           resolved config of the model
  tokenizer.model       for generators
  prompt_tokenizer.model  where prompts have a tokenizer of their own
  CARD.md               data, licence, measured quality, how to reproduce it
  sha256.json           digests of all these but the card, which are compared
                        when a file is read (older bundles have none)

`v2a_jax/assets/` holds the project's own bundles, which are named by their
folder's name; others are named by their path.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from v2a_jax.basics import cache, files
from v2a_jax.basics.paths import as_path, check_readable, is_remote
from v2a_jax.weights import names

ASSETS = pathlib.Path(__file__).parents[1] / "assets"
WEIGHTS, CONFIG, CARD = "weights.safetensors", "config.json", "CARD.md"
TOKENIZER, PROMPT_TOKENIZER = "tokenizer.model", "prompt_tokenizer.model"
DIGESTS = "sha256.json"


class BundleError(ValueError):
  """A bundle is missing, incomplete, damaged or of another model."""


def find(name: str | pathlib.Path) -> pathlib.Path:
  """Returns the folder of a bundle: a path, or a name in `assets/`.

  Raises:
    BundleError: there is none; names those in `assets/`.
  """
  path = as_path(name)
  check_readable(path)
  for folder in (path, *([] if is_remote(path) else [ASSETS / path])):
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
      return folder
  known = sorted(p.parent.name for p in ASSETS.glob(f"*/{WEIGHTS}"))
  raise BundleError(
    f"no bundle {str(name)!r} ({WEIGHTS} and {CONFIG} in a folder);"
    f" bundled here: {', '.join(known) or 'none'}"
  )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the resolved config of a bundle or a workdir.

  Raises:
    BundleError: config.json is missing, damaged or not a JSON object.
  """
  check_digest(folder, CONFIG)
  try:
    return files.read_json(folder / CONFIG)
  except FileNotFoundError:
    raise BundleError(
      f"{folder} holds no {CONFIG}: name a workdir of `v2a train` or a bundle"
    ) from None
  except ValueError as error:
    raise BundleError(error) from None


def digest(folder: pathlib.Path) -> str:
  """Computes the sha256 of the weights, in hexadecimal."""
  return files.sha256_of(folder / WEIGHTS)


def check_digest(folder: pathlib.Path, name: str) -> None:
  """Compares a file with the bundle's digests, if it has any.

  Raises:
    BundleError: the file, or the list of digests, is damaged.
  """
  place = folder / DIGESTS
  if not place.exists():
    return
  try:
    listed = files.read_json(place)["files"][name]
    found = files.sha256_of(cache.fetch(folder / name))
  except FileNotFoundError:
    raise BundleError(f"{folder / name} is missing") from None
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise BundleError(
      f"{place} does not hold the sha256 of {name}"
      f" ({type(error).__name__}); copy the bundle again"
    ) from None
  if found != listed:
    raise BundleError(
      f"{folder / name} does not have the sha256 of {DIGESTS}: it is damaged;"
      " copy the bundle again"
    )


def tokenizers(folder: pathlib.Path) -> dict[str, str]:
  """Returns the `LoaderConfig` fields of a bundle's or workdir's tokenizers.

  The bundle of a published generator may have the one of prompts alone.

  Raises:
    BundleError: a tokenizer is damaged.
  """
  here = {
    name: (folder / name).is_file() for name in (TOKENIZER, PROMPT_TOKENIZER)
  }
  for name in filter(here.get, here):
    check_digest(folder, name)
  more, places = here[PROMPT_TOKENIZER], {}
  if here[TOKENIZER] or not more:
    places["tokenizer"] = str(folder)
  if more:
    places["prompt_tokenizer"] = str(folder / PROMPT_TOKENIZER)
  return places


def save(
  folder: pathlib.Path,
  state,
  config: Mapping[str, Any],
  *,
  card: str,
  tokenizer: bytes | None = None,
  prompt_tokenizer: bytes | None = None,
  dtype: str = "float16",
) -> None:
  """Writes a bundle; creates the folder if needed.

  Args:
    folder: folder of the bundle.
    state: NNX state of the model.
    config: resolved config of the model, JSON-serialisable.
    card: model card in Markdown.
    tokenizer: bytes of a sentencepiece model; None for none.
    prompt_tokenizer: the same for prompts, if they have their own.
    dtype: dtype in which floating-point arrays are stored.
  """
  folder.mkdir(parents=True, exist_ok=True)
  (folder / DIGESTS).unlink(missing_ok=True)  # those of a bundle before
  arrays = {}
  for name, leaf in names.joined(names.flatten(state)).items():
    leaf = np.asarray(leaf)
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    leaf = leaf.astype(dtype) if floating else leaf
    arrays[name] = np.ascontiguousarray(leaf)
  with files.written(folder / WEIGHTS) as part:
    safetensors.save_file(arrays, part)
  files.write_json(folder / CONFIG, config, sort_keys=True)
  files.write_whole(folder / CARD, card)
  models = {TOKENIZER: tokenizer, PROMPT_TOKENIZER: prompt_tokenizer}
  for name, model in models.items():
    if model is not None:
      files.write_whole(folder / name, model)
  write_digests(folder)


def write_digests(folder: pathlib.Path) -> None:
  """Writes the digests of a bundle's files; last, because they make it whole."""
  names = (WEIGHTS, CONFIG, TOKENIZER, PROMPT_TOKENIZER)
  digests = {
    name: files.sha256_of(folder / name)
    for name in names
    if (folder / name).is_file()
  }
  files.write_json(folder / DIGESTS, {"files": digests})


def read_arrays(folder: pathlib.Path) -> dict[names.Name, np.ndarray]:
  """Reads a bundle's arrays by name, in their stored dtype.

  Raises:
    BundleError: the file cannot be read, or is damaged.
  """
  path = folder / WEIGHTS
  check_digest(folder, WEIGHTS)
  try:
    return names.split(safetensors.load_file(cache.fetch(path)))
  except (OSError, SafetensorError) as error:
    raise BundleError(f"cannot read {path}: {error}") from None


def load_state(folder: pathlib.Path, abstract):
  """Reads a bundle's weights into the structure of an NNX state of shapes.

  Raises:
    BundleError: the file is unreadable, or tensors are missing, extra or
      misshapen; all of them are named.
  """
  arrays = read_arrays(folder)
  if faults := names.compare(arrays, names.flatten(abstract)):
    raise BundleError(f"{folder / WEIGHTS} is not of this model: {faults}")
  cast = lambda array, leaf: jnp.asarray(array, leaf.dtype)
  return names.fill(abstract, arrays, cast)
