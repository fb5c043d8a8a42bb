"""docs/weights.md says of every published file what the registry says."""

import pathlib
import string

import pytest

from v2a_jax.hearing import embeddings
from v2a_jax.weights.catalog import SETS, WEIGHTS

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_file_is_described(name):
  weights, text = WEIGHTS[name], DOCS.read_text()
  row, *_ = (
    line for line in text.splitlines() if line.startswith(f"| `{name}`")
  )
  assert weights.licence in row
  digest = weights.sha256[:8] or weights.md5[:8] or "no digest is published"
  assert digest in row
  assert not weights.credit or weights.credit in text


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_entry_can_be_checked_and_fetched(name):
  weights = WEIGHTS[name]
  assert weights.name == name and weights.url.startswith("https://")
  assert not weights.sha256 or 8 <= len(weights.sha256) <= 64
  assert not weights.md5 or len(weights.md5) == 32 and not weights.sha256
  assert set(weights.sha256 + weights.md5) <= set(string.hexdigits.lower())
  assert bool(weights.member) == bool(weights.package)


def test_a_set_names_entries_and_no_two_files_share_a_name():
  for name, parts in SETS.items():
    assert name not in WEIGHTS and set(parts) <= WEIGHTS.keys()
  for name in ("file", "converted"):
    names = [getattr(weights, name) for weights in WEIGHTS.values()]
    assert len(set(names)) == len(names)


def test_every_embedding_is_described():
  text = DOCS.read_text()
  for id_, embedding in embeddings.EMBEDDINGS.items():
    assert embedding.id == id_ and f"| `{id_}` |" in text
    assert embedding.weights in WEIGHTS
