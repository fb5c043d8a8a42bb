"""Embeddings that results keep, found again by the digest of the sound.

`embeddings.npz` beside results.json is what distances of sets are computed from.
A row and a network have the arrays

  <row>/<network>/vectors   float16 [n, d]
  <row>/<network>/clips     clip of each vector, int32 [n]
  <row>/<network>/logits    float32 [clips, c]
  <row>/<network>/sounds    sha256 of each clip's sound as it was judged, [clips]
  <row>/<network>/identity  which network it was: its weights and window

in the order of the clips in results.json; the row `reference` has the other
clips' true sounds. A later evaluation that is given the folder embeds no sound
again that the same network has embedded. Its vectors are then rounded to float16,
which moves a distance by less than one part in a thousand.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import contextlib
import functools
import hashlib
import pathlib
import zipfile

import numpy as np

from v2a_jax.basics import cache
from v2a_jax.basics.files import written
from v2a_jax.basics.paths import as_path
from v2a_jax.evaluation.parts import DAMAGE
from v2a_jax.hearing import embeddings
from v2a_jax.hearing.embeddings import Embedding, Features

FILE = "embeddings.npz"
REFERENCE = "reference"


def digest(sound: np.ndarray, sample_rate: int) -> str:
  """Returns the sha256 of samples [t, channels], their shape and rate in Hz."""
  samples = np.ascontiguousarray(sound, np.float32)
  found = hashlib.sha256(f"{samples.shape} {sample_rate}".encode())
  found.update(samples)
  return found.hexdigest()


def identity(network: Embedding) -> str:
  """Names a network so that others have another name."""
  return f"{network.id} {network.sha256} {embeddings.span(network)}"


Add = Callable[[str, Mapping[str, Features], Sequence[str]], None]


@contextlib.contextmanager
def writer(
  folder: pathlib.Path, networks: Mapping[str, Embedding]
) -> Iterator[Add]:
  """Writes the file, row by row.

  Yields a function of a row, its embeddings by network, and the digests of its
  clips' sounds.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with written(folder / FILE) as part, zipfile.ZipFile(part, "w") as file:

    def add(
      row: str, features: Mapping[str, Features], sounds: Sequence[str]
    ) -> None:
      for id_, of in features.items():
        for name, array in (
          ("vectors", of.vectors.astype(np.float16)),
          ("clips", of.clips.astype(np.int32)),
          ("logits", of.logits.astype(np.float32)),
          ("sounds", np.array(sounds)),
          ("identity", np.array(identity(networks[id_]))),
        ):
          path = f"{row}/{id_}/{name}.npy"
          with file.open(path, "w", force_zip64=True) as member:
            np.lib.format.write_array(member, array)

    yield add


class Kept:
  """Embeddings of earlier results.

  Attributes:
    found: number of embeddings of a sound that were not computed again.
  """

  def __init__(self, folders: Collection[str] = ()):
    """Looks at what the folders of results have.

    Raises:
      FileNotFoundError: a folder has no embeddings.
      ValueError: they are damaged, or of an earlier version.
    """
    self.found = 0
    self._places: dict[tuple[str, str], tuple[pathlib.Path, str, int]] = {}
    for folder in folders:
      path = as_path(folder) / FILE
      if not path.is_file():
        raise FileNotFoundError(
          f"{path}: no such file: name a folder of results"
        )
      try:
        self._look(cache.fetch(path))
      except DAMAGE as error:
        raise ValueError(f"{path} cannot be used: {error}") from error

  def _look(self, path: pathlib.Path) -> None:
    with np.load(path, allow_pickle=False) as file:
      for name in file.files:
        place, _, array = name.rpartition("/")
        if array == "sounds":
          network = str(file[f"{place}/identity"])
          for i, sound in enumerate(file[name]):
            self._places[network, str(sound)] = path, place, i

  def embed(
    self, network: Embedding, sounds: Sequence[np.ndarray], *, sample_rate: int
  ) -> list[Features]:
    """Returns the features of each sound [samples, channels], kept or new."""
    kept = [self._find(network, sound, sample_rate) for sound in sounds]
    new = [i for i, features in enumerate(kept) if features is None]
    self.found += len(kept) - len(new)
    if new:
      made = embeddings.embed(
        network, [sounds[i] for i in new], sample_rate=sample_rate
      )
      for i, features in zip(new, made.split(), strict=True):
        kept[i] = features
    return kept

  def _find(self, network, sound, sample_rate) -> Features | None:
    if not self._places:
      return None
    key = identity(network), digest(sound, sample_rate)
    if key not in self._places:
      return None
    path, place, i = self._places[key]
    vectors, clips, logits = _arrays(path, place)
    own = vectors[clips == i].astype(np.float32)
    return Features(own, np.zeros(len(own), int), logits[i : i + 1])


@functools.lru_cache(maxsize=16)
def _arrays(path: pathlib.Path, place: str) -> tuple[np.ndarray, ...]:
  with np.load(path, allow_pickle=False) as file:
    names = ("vectors", "clips", "logits")
    return tuple(file[f"{place}/{name}"] for name in names)
