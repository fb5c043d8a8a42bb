"""Settings of a published network that is part of a model."""

from collections.abc import Mapping
import dataclasses
from typing import Any, ClassVar

from v2a_jax.basics import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedConfig:
  """A published network; a subclass has a table of those there are.

  It repeats `sizes` with `settings.named` of its table.

  Attributes:
    name: name of the network in that table; "" for none.
    path: folder of its files, read when a new run starts and not again: the
      weights are part of checkpoints and bundles.
    sizes: sizes of the network; empty reads them from the folder.
  """

  NETWORKS: ClassVar[Mapping[str, Any]]

  name: str = ""
  path: str = ""
  sizes: Any = None

  def __post_init__(self):
    settings.choose(self, name=("", *self.NETWORKS))
