"""Published generators, by the names that users give.

Each is a module with

  recognises(name)   whether a checkpoint's name is one of its
  config(name)       config of the generator
  read(name, model, conditioner)
                     its weights by name in the model of those sizes
  tokenizers(name)   `LoaderConfig` fields of its tokenizers
  file_of(name)      name of the generator's own file in `weights/catalog.py`
  card(name)         model card in Markdown, with the licence

whose files are in `weights/catalog.py`, as a set of the generator's name.
"""

import types
from typing import Any

from v2a_jax.experiment import mmaudio

PUBLISHED: list[types.ModuleType] = [mmaudio]


def find(name: Any) -> types.ModuleType | None:
  """Returns the module of a published generator; None if none has this name."""
  return next((one for one in PUBLISHED if one.recognises(name)), None)
