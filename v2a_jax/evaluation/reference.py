"""Features of true sounds that set distances are measured to.

`others`: true sounds of other clips, drawn at random. Sounds of the judged
clips themselves would put the ground truth at zero by construction, so they are
left out, also where another record has the very same sound. The rest of the
judged split comes first, then the other splits, and never the training split
unless it is the one that is judged: a model that memorises would be rewarded.

`own`: the judged clips' true sounds, as most published numbers have it. The
ground truth's distance is then 0 and says nothing.

Others depend on nothing of the system under evaluation, so they are cached,
under the digest of everything that they depend on.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from data_pipelines import manifest, source
from v2a_jax import media
from v2a_jax.basics import cache, files
from v2a_jax.evaluation import embedded, formats
from v2a_jax.evaluation.clips import LEAST_SECONDS, Truth
from v2a_jax.evaluation.embedded import Kept
from v2a_jax.evaluation.formats import Format
from v2a_jax.evaluation.parts import DAMAGE
from v2a_jax.hearing import embeddings

KINDS = ("others", "own")
_HELD_OUT = ("val", "test")


@dataclasses.dataclass(frozen=True)
class Reference:
  """True sounds that set distances are measured to.

  Attributes:
    features: their embedding features; None where there are fewer than two.
    about: where they come from, for results.json.
    digest: sha256 of their names, sounds and lengths.
    own: whether they are the judged clips' own, in the same order.
    sounds: digests of the sounds that were embedded or found in earlier
      results; empty where the features were in the cache.
  """

  features: embeddings.Features | None
  about: str
  digest: str = ""
  own: bool = False
  sounds: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
  """Which other clips are taken.

  Attributes:
    truth: where the judged clips are from.
    judged: indices of the judged records.
    sounds: sha256 of the judged sounds.
    num: number of sounds; fewer where there are no more.
    seed: random seed of the choice.
  """

  truth: Truth
  judged: Collection[int]
  sounds: Collection[str]
  num: int
  seed: int


def load(
  networks: Mapping[str, embeddings.Embedding],
  draw: Draw,
  format: Format,
  *,
  kept: Kept | None = None,
  log: Callable[[str], None] = print,
) -> dict[str, Reference]:
  """Embeds true sounds of other clips, or reads them from the cache.

  Args:
    networks: embedding networks, by `Embedding.id`.
    draw: which clips.
    format: rate, channels and length that sounds are judged at.
    kept: embeddings of earlier results.
    log: called with one line if the cache is damaged.
  """
  found, drawn, kept = {}, None, kept or Kept()
  for id_, network in networks.items():
    file = _cache_file(network, draw, format)
    if file and (reference := _read(file, log)):
      found[id_] = reference
      continue
    drawn = drawn or _waveforms(draw, format)  # Once for all networks.
    waveforms, about, digest = drawn
    if len(waveforms) < 2:
      reason = "there are no two other clips to be the reference"
      found[id_] = Reference(None, reason)
      continue
    rate = format.sample_rate
    features = kept.embed(network, waveforms, sample_rate=rate)
    sounds = tuple(embedded.digest(sound, rate) for sound in waveforms)
    features = embeddings.joined(features)
    found[id_] = Reference(features, about, digest, sounds=sounds)
    if file:
      _write(file, found[id_])
  return found


def own_of(
  truth: Sequence[Mapping[str, embeddings.Features]],
  ids: Collection[str],
  digest: str,
) -> dict[str, Reference]:
  """Returns the judged clips' true sounds as the reference of each network.

  Args:
    truth: embeddings of each clip's true sound, by `Embedding.id`.
    ids: the networks that need a reference.
    digest: sha256 of the clips.
  """
  if len(truth) < 2:
    none = Reference(None, "one clip has no distance between sets")
    return dict.fromkeys(ids, none)
  # Results from before copies were paired (metrics/own_truth.py) say less.
  about = f"the {len(truth)} judged clips' own true sounds, copies paired"
  return {
    id_: Reference(
      embeddings.joined([of[id_] for of in truth]), about, digest, own=True
    )
    for id_ in ids
  }


def _cache_file(network, draw: Draw, format: Format) -> pathlib.Path | None:
  """Returns the file of the cache; None for a folder, which may change."""
  if not draw.truth.is_set:
    return None
  key = [
    *(draw.truth.digest, draw.truth.split, draw.num, draw.seed),
    *(sorted(draw.judged), sorted(draw.sounds)),
    *(format.sample_rate, format.channels, str(format.seconds)),
    *(network.id, network.sha256, network.window, network.hop),
  ]
  name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
  return cache.root() / "evaluation" / f"{name}.npz"


def _waveforms(draw: Draw, format: Format) -> tuple[list[np.ndarray], str, str]:
  """Returns float32 [samples, channels] each, where from, and the digest."""
  waveforms, items, counts = [], [], {}
  seen = set(draw.sounds)
  for name, records, left_out in _places(draw):
    rng = np.random.default_rng(draw.seed)
    for index in rng.permutation(len(records)):
      if len(waveforms) == draw.num:
        break
      if int(index) in left_out:
        continue
      record = records[int(index)]
      digest = hashlib.sha256(record["audio"]).hexdigest()
      waveform = None if digest in seen else _waveform(record, format)
      if waveform is None:
        continue
      seen.add(digest)
      waveforms.append(waveform)
      seconds = len(waveform) / format.sample_rate
      items.append((record["id"], digest, seconds))
      counts[name] = counts.get(name, 0) + 1
  parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
  about = f"true sounds of other clips: {parts or 'none'}, seed {draw.seed}"
  return waveforms, about, formats.digest(items)


def _places(draw: Draw) -> list[tuple[str, Sequence, Collection[int]]]:
  """Returns (name, records, indices left out) to draw from, in turn."""
  truth, judged = draw.truth, set(draw.judged)
  if not truth.is_set:
    return [(truth.path, truth.records, judged)]
  places = [(truth.split, truth.records, judged)]
  if truth.split != "all":
    splits = manifest.read_manifest(truth.path)["splits"]
    for name in _HELD_OUT:
      if name in splits and name != truth.split:
        places.append((name, source.open_source(truth.path, name), ()))
  return places


def _waveform(record, format: Format) -> np.ndarray | None:
  if not record["audio"]:
    return None
  try:
    samples = format.read(record["audio"], seconds=record["duration"])
  except media.MediaError:
    return None  # The counts in `about` say how many there are.
  short = len(samples) < LEAST_SECONDS * format.sample_rate
  return None if short else samples


def _read(path: pathlib.Path, log) -> Reference | None:
  """Reads a cache file; None if it is missing or (logged) damaged."""
  try:
    files.check_regular(path)
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
      texts = [str(arrays.pop(name)) for name in ("about", "digest")]
      return Reference(embeddings.Features(**arrays), *texts)
  except FileNotFoundError:
    return None
  except (OSError, TypeError, *DAMAGE) as error:
    log(f"{path} cannot be read ({error}); the reference is embedded again")
    return None


def _write(path: pathlib.Path, reference: Reference) -> None:
  """Writes a cache file; does nothing where it cannot be written."""
  texts = {"about": reference.about, "digest": reference.digest}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.written(path) as part:
      np.savez(part, **vars(reference.features), **texts)
  except OSError:
    pass
