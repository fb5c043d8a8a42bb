"""Weights that travel: a folder with safetensors, a config, a model card.

  weights.safetensors   arrays by path ("encoder/stages/0/kernel"), float32 or
                        float16
  config.json           the resolved config that built the model
  tokenizer.model       for generators
  prompt_tokenizer.model  where prompts have a tokenizer of their own
  CARD.md               data, licence, measured quality, how to make it again

`v2a_jax/assets/` holds the project's own bundles; elsewhere a bundle is named by
its folder.
"""

from collections.abc import Mapping
import hashlib
import json
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from data_pipelines import tokenizer as tokenizer_lib
from v2a_jax.weights import mismatch

ASSETS = pathlib.Path(__file__).parents[1] / "assets"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
CARD = "CARD.md"
TOKENIZER = tokenizer_lib.FILENAME
PROMPT_TOKENIZER = tokenizer_lib.PROMPT_FILENAME


class BundleError(ValueError):
  """A bundle is missing, incomplete, or of another model."""


def find(name: str | pathlib.Path) -> pathlib.Path:
  """The folder of a bundle: a path, or a name in `assets/`.

  Raises:
    BundleError: there is none; names those that are bundled.
  """
  for folder in (pathlib.Path(name), ASSETS / name):
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
      return folder
  known = sorted(p.parent.name for p in ASSETS.glob(f"*/{WEIGHTS}"))
  raise BundleError(
    f"no bundle {str(name)!r} ({WEIGHTS} and {CONFIG} in a folder);"
    f" bundled here: {', '.join(known) or 'none'}"
  )


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """The resolved config of a bundle."""
  return json.loads((folder / CONFIG).read_text())


def digest(folder: pathlib.Path) -> str:
  """sha256 of the weights, in hexadecimal."""
  with open(folder / WEIGHTS, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizers(folder: pathlib.Path) -> dict[str, str]:
  """What a `LoaderConfig` says of the tokenizers in a bundle or a workdir."""
  own = folder / PROMPT_TOKENIZER
  more = {"prompt_tokenizer": str(own)} if own.is_file() else {}
  return {"tokenizer": str(folder)} | more


def flatten(state) -> dict[str, Any]:
  """An nnx state as arrays by path, "a/b/0/c"."""
  leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
  name = lambda path: "/".join(str(getattr(k, "key", k)) for k in path)
  return {name(path): leaf for path, leaf in leaves}


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
  """Writes a bundle.

  Args:
    folder: made if needed.
    state: of the model, from `nnx.state`.
    config: JSON-able; what is needed to build the model again.
    card: Markdown.
    tokenizer: a sentencepiece model.
    prompt_tokenizer: of prompts, if not the same.
    dtype: floating arrays are stored in it.
  """
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {}
  for name, leaf in flatten(state).items():
    leaf = np.asarray(leaf)
    floating = np.issubdtype(leaf.dtype, np.floating)
    arrays[name] = np.ascontiguousarray(
      leaf.astype(dtype) if floating else leaf
    )
  safetensors.save_file(arrays, folder / WEIGHTS)
  (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))
  (folder / CARD).write_text(card)
  files = {TOKENIZER: tokenizer, PROMPT_TOKENIZER: prompt_tokenizer}
  for name, model in files.items():
    if model is not None:
      (folder / name).write_bytes(model)


def load_state(folder: pathlib.Path, abstract):
  """Reads a bundle's weights into the shape of `abstract`, an nnx state.

  Raises:
    BundleError: unreadable, or tensors are missing, extra or misshapen; all
      are named.
  """
  path = folder / WEIGHTS
  try:
    arrays = safetensors.load_file(path)
  except (OSError, SafetensorError) as error:
    raise BundleError(f"cannot read {path}: {error}") from None
  if told := mismatch.faults(arrays, flatten(abstract)):
    raise BundleError(f"{path} is not of this model: {told}")

  def put(key_path, leaf):
    name = "/".join(str(getattr(k, "key", k)) for k in key_path)
    return jnp.asarray(arrays[name], leaf.dtype)

  pure = nnx.to_pure_dict(abstract)
  pure = jax.tree_util.tree_map_with_path(put, pure)
  state = jax.tree.map(lambda x: x, abstract)
  nnx.replace_by_pure_dict(state, pure)
  return state
