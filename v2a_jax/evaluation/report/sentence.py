"""The lines of a verdict."""

from collections.abc import Sequence
import dataclasses


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A line of the verdict: a beginning and the parts that it lists.

  `kind` is `better`, `tie` or `worse`.
  """

  kind: str
  lead: str
  parts: tuple[str, ...] = ()

  @property
  def text(self) -> str:
    """The whole sentence."""
    return f"{self.lead} {self.rest}".strip() + "."

  @property
  def rest(self) -> str:
    """The listed parts."""
    return join(self.parts)


def join(parts: Sequence[str]) -> str:
  """Lists parts as a sentence does."""
  if len(parts) < 2:
    return "".join(parts)
  return ", ".join(parts[:-1]) + " and " + parts[-1]
